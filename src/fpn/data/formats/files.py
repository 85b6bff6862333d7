"""Reading annotation files that may be broken or hostile: bounded, inside the dataset's folder, with a clear error."""

from __future__ import annotations

import json
import os
import re
import stat
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import defusedxml.ElementTree
import yaml
from defusedxml.common import DefusedXmlException

from fpn.data.limits import Limits
from fpn.errors import ConfigError, DataError, DataNotFoundError
from fpn.files import leads_to_folder
from fpn.image_io import IMAGE_SUFFIXES
from fpn.structures import Classes
from fpn.suggestions import nearest

# How many of many faults a message shows: enough to see the pattern, few enough to read.
SHOWN_ISSUES = 8
# Many times what the largest public sets have.
MAX_CLASSES = 100_000
MAX_CLASS_NAME = 200
# Folders inside of folders that are walked through.
MAX_DEPTH = 24
# The file with which `fpn predict` marks its folder.
PREDICTED = "detections.json"
_LONGEST_PATH, _LONGEST_PART = 1024, 255
# Of brackets in YAML; a dataset's file has two at most.
_DEEPEST = 50
# XML that says to be in another encoding than UTF-8.
_DECLARED = re.compile(
    rb"\s*<\?xml[^>]{0,100}?encoding=[\"'](?!utf-?8)([A-Za-z0-9._-]{1,40})[\"'][^>]{0,100}\?>", re.IGNORECASE
)
_MANY_BYTES = frozenset(
    {b"gb2312", b"gbk", b"gb18030", b"big5", b"big5-hkscs", b"shift_jis", b"shift-jis", b"euc-jp", b"euc-kr", b"cp949"}
)
_BRACKETS = re.compile(r"[\[\]{}]")


def read_bytes(path: Path, limit: int) -> bytes:
    """The whole of a plain file of at most `limit` bytes."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: is not a plain file")
        if status.st_size > limit:
            raise DataError(
                f"{path}: {status.st_size / 2**20:.0f} MiB, more than the limit of {limit / 2**20:.0f} MiB. "
                "Is it an annotation file? If so, raise the limit (--max-file-size)."
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error})") from error


def read_text(path: Path, limit: int) -> str:
    """The text of a UTF-8 file, with or without a byte order mark."""
    raw = read_bytes(path, limit)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text. Save it again as UTF-8.") from error


def read_lines(path: Path, limit: int) -> list[str]:
    """The stripped lines of a text file that are not empty."""
    return [line.strip() for line in read_text(path, limit).splitlines() if line.strip()]


def read_json(path: Path, limit: int) -> Any:
    """What a JSON file holds."""
    text = read_text(path, limit)
    if not text.strip():
        raise DataError(f"{path}: the file is empty. Export the annotations again.")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        cut = " The file seems to be cut off: copy or export it again." if error.pos >= len(text.rstrip()) else ""
        raise DataError(f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}).{cut}") from error
    except (RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DataError(f"{path}: not JSON that can be read ({reason})") from error


def read_xml(path: Path, limit: int) -> ElementTree.Element:
    """The root element of an XML file without entities or external references."""
    raw = read_bytes(path, limit)
    if not raw.strip():
        raise DataError(f"{path}: the file is empty. Label the image again or remove both.")
    try:
        root: ElementTree.Element = defusedxml.ElementTree.fromstring(_as_utf8(raw))
        return root
    except DefusedXmlException as error:
        raise DataError(
            f"{path}: declares XML entities or external references. These can fill the memory or read other files, "
            "and annotations don't need them: remove the <!DOCTYPE ...> part."
        ) from error
    except ElementTree.ParseError as error:
        line, column = error.position
        remedy = "" if _DECLARED.match(raw) is None and _is_utf8(raw) else ". Save it again as UTF-8."
        raise DataError(f"{path}, line {line}, column {column + 1}: broken XML ({_reason(error)}){remedy}") from error
    except (ValueError, LookupError, RecursionError) as error:
        raise DataError(f"{path}: broken XML ({error}). Save it again as UTF-8.") from error


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _as_utf8(raw: bytes) -> bytes:
    """XML in an encoding of several bytes a letter (gb2312, shift_jis, big5), which the parser does not know."""
    declared = _DECLARED.match(raw)
    if declared is None or declared[1].lower() not in _MANY_BYTES:
        return raw
    return raw[declared.end() :].decode(declared[1].decode("ascii")).encode()


def _reason(error: ElementTree.ParseError) -> str:
    return str(error).split(":")[0]


def read_yaml(path: Path, limit: int) -> Any:
    """What a YAML file holds; every value is a string, so that a class called `no` stays one."""
    text = read_text(path, limit)
    if is_deep(text):
        raise DataError(f"{path}: not YAML that can be read (brackets inside of brackets, {_DEEPEST} times and more)")
    try:
        # BaseLoader constructs nothing but str, list and dict: as safe as SafeLoader, without its guesses.
        return yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise DataError(f"{path}{where}: not YAML ({error.problem or error.context})") from error
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise DataError(f"{path}: not YAML that can be read ({type(error).__name__})") from error


def is_deep(text: str) -> bool:
    """Whether YAML's brackets are nested absurdly: the parser's time grows with more than the square of the depth."""
    depth = 0
    for bracket in _BRACKETS.finditer(text):
        depth = depth + 1 if bracket[0] in "[{" else max(depth - 1, 0)
        if depth >= _DEEPEST:
            return True
    return False


def make_classes(names: Sequence[str], ids: Sequence[int], where: str) -> Classes:
    """Classes out of a file.

    Raises:
        DataError: a name or id comes twice, a name is empty or can't be printed, or there are none or absurdly many.
    """
    if not names:
        raise DataError(f"{where}: no class in it. Write each class once.")
    if len(names) > MAX_CLASSES:
        raise DataError(f"{where}: {len(names)} classes, more than the limit of {MAX_CLASSES}")
    for name in names:
        if (
            len(name) > MAX_CLASS_NAME
            or not _is_unicode(name)
            or any(ord(character) < 32 for character in name.strip())
        ):
            raise DataError(
                f"{where}: {shorten(name)} is no class name: longer than {MAX_CLASS_NAME} characters, or with some "
                "that can't be printed. Rename the class."
            )
    try:
        return Classes(tuple(name.strip() for name in names), tuple(ids))
    except ConfigError as error:
        raise DataError(f"{where}: {error}. Write each class once.") from error


def listed_classes(file: Path, limits: Limits, *, first_id: int = 1) -> Classes:
    """Classes of a text file with one name a line, with the ids `first_id`, `first_id` + 1, ..."""
    names = read_lines(file, limits.text_bytes)
    return make_classes(names, range(first_id, first_id + len(names)), str(file))


def enumerate_issues(head: str, faults: list[str], remedy: str) -> str:
    """A message of one fault in one line, or of many in a list with the first few."""
    if len(faults) == 1:
        return f"{faults[0]}{'' if faults[0].endswith(('?', '.')) else '.'} {remedy}"
    more = [f"  ... and {len(faults) - SHOWN_ISSUES} more"] if len(faults) > SHOWN_ISSUES else []
    return "\n".join([head, *(f"  {fault}" for fault in faults[:SHOWN_ISSUES]), *more, remedy])


def is_image(name: str) -> bool:
    """Whether a file name has an image's suffix and is not a hidden file (such as macOS's `._a.jpg`)."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")  # noqa: PTH122


class Folder:
    """The dataset's folder: finds files in it by listing each folder once, and lets no name lead out of it.

    Names are compared as written, symbolic links are followed: a link was made by the person who owns the disk, a
    name was written by whoever made the annotation.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))  # noqa: PTH100  # resolve() would follow links
        self._listings: dict[str, dict[str, bool]] = {}
        self._plain: dict[str, dict[str, list[str]]] = {}

    def listing(self, folder: str | Path) -> dict[str, bool]:
        """The sorted names in a folder, and which are folders; empty if there is no such folder."""
        key = str(folder)
        if key not in self._listings:
            try:
                with os.scandir(key) as entries:
                    self._listings[key] = dict(sorted((entry.name, leads_to_folder(entry)) for entry in entries))
            except (OSError, ValueError):
                self._listings[key] = {}
        return self._listings[key]

    def folders(self, folder: str | Path) -> list[str]:
        """The sorted names of the folders in a folder that are neither hidden nor of a tool's own."""
        return [name for name, is_folder in self.listing(folder).items() if is_folder and not is_set_apart(name)]

    def walk(self, place: str | Path, depth: int = MAX_DEPTH) -> Iterator[str]:
        """The paths of all files under a folder, in a fixed order.

        Left out are hidden folders, what `fpn predict` wrote, and links to folders, so that no circle traps; see
        `left_out`.
        """
        for name, is_folder in self.listing(place).items():
            path = os.path.join(place, name)  # noqa: PTH118  # a hundred thousand of them
            if not is_folder:
                yield path
            elif depth and self.why_left_out(path) is None:
                yield from self.walk(path, depth - 1)

    def why_left_out(self, path: str) -> str | None:
        """Why a folder inside of the dataset is not walked through; None: it is."""
        if is_set_apart(os.path.basename(path)):  # noqa: PTH119
            return "a hidden folder, or one of a tool's own"
        if os.path.islink(path):  # noqa: PTH114
            return "a link to a folder, which is followed only where it is named"
        return "what `fpn predict` wrote" if self.is_predicted(path) else None

    def is_predicted(self, path: str) -> bool:
        """Whether `fpn predict` wrote its results into this folder: drawn images are none to learn from."""
        return PREDICTED in self.listing(path) and is_prediction(Path(path, PREDICTED))

    def alike(self, path: str) -> str | None:
        """The only file of a folder with this name but for case and the way accents are written."""
        folder, name = os.path.split(path)
        if folder not in self._plain:
            names: dict[str, list[str]] = {}
            for each in self.listing(folder):
                names.setdefault(plain_name(each), []).append(each)
            self._plain[folder] = names
        found = self._plain[folder].get(plain_name(name), ())
        return os.path.join(folder, found[0]) if len(found) == 1 else None  # noqa: PTH118

    def has(self, path: str | Path) -> bool:
        """Whether a file or folder exists."""
        folder, name = os.path.split(path)
        return name in self.listing(folder)

    def neighbour(self, path: str) -> str:
        """`. Did you mean 'x'?` for a file that is not there: the same name with another suffix, or one alike."""
        folder, name = os.path.split(path)
        stem = os.path.splitext(name)[0]  # noqa: PTH122
        namesakes = [other for other in self.listing(folder) if os.path.splitext(other)[0].lower() == stem.lower()]  # noqa: PTH122
        hint = f" Did you mean {namesakes[0]!r}?" if namesakes else nearest(name, self.listing(folder))
        return f".{hint}" if hint else ""

    def inside(self, folder: Path, name: str, where: str) -> str:
        """The path that `name`, as an annotation in `where` writes it, has when taken from `folder`.

        Raises:
            DataError: it is no file name or leads out of the dataset's folder.
        """
        if not is_file_name(name):
            raise DataError(f"{where}: {shorten(name)} is not a file name")
        path = os.path.normpath(os.path.join(self._absolute(folder), name))  # noqa: PTH118
        if "\\" in name and not self.has(path):
            path = os.path.normpath(os.path.join(self._absolute(folder), name.replace("\\", "/")))  # noqa: PTH118
        if not path.startswith(self._prefix()):
            raise DataError(
                f"{where}: file name {shorten(name)} leads out of the dataset's folder {self.root}. "
                "Write file names relative to that folder."
            )
        return path

    def relative(self, path: str | Path) -> str:
        """A path of this folder as messages show it and the table stores it."""
        return os.path.relpath(path, self.root).replace(os.sep, "/")

    def images(self, folder: str | Path) -> list[str]:
        """Sorted names of the images directly in a folder."""
        return [name for name in self.listing(folder) if is_image(name)]

    def _absolute(self, folder: Path) -> Path:
        return folder if folder.is_absolute() else self.root / folder

    def _prefix(self) -> str:
        return str(self.root).rstrip(os.sep) + os.sep


def plain_name(name: str) -> str:
    """A name as file systems that take no notice of case, or of how an accent is written, compare it."""
    return unicodedata.normalize("NFC", name).casefold()


def is_set_apart(name: str) -> bool:
    """Whether a folder is hidden or one that archivers and tools make for themselves."""
    return name.startswith(".") or name == "__MACOSX"


def is_prediction(file: Path) -> bool:
    """Whether a json is what `fpn predict` wrote, by its first bytes."""
    return b'"made_by": "fpn predict"' in head_of(file, 256)


def head_of(file: Path, count: int) -> bytes:
    """The first bytes of a file; none if it can't be read."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return b""
        with file.open("rb") as stream:
            return stream.read(count)
    except (OSError, ValueError):
        return b""


def is_file_name(name: str) -> bool:
    """Whether a file can be called so: on no system is a part longer than 255 bytes, or a null character in it."""
    if not name or len(name) > _LONGEST_PATH or "\0" in name or not _is_unicode(name):
        return False
    return all(len(part.encode()) <= _LONGEST_PART for part in name.split("/"))


def _is_unicode(text: str) -> bool:
    """False if it holds halves of surrogate pairs, which JSON can write but no terminal and no file can take."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def shorten(value: object, limit: int = 60) -> str:
    """The repr of something out of a file, cut to a length that a message can hold."""
    text = repr(value) if not isinstance(value, (dict, list)) else f"a {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 4] + "..." + text[-1]
