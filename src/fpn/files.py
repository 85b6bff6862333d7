"""Writing files so that nothing a user made is ever half-written."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from fpn.errors import OutputError
from fpn.version import __version__

# Seconds without a byte after which a temporary file is nobody's: a batch of large images may take minutes.
_ABANDONED = 600.0
# So many characters of a file are read to know who wrote it: a detection's outline may take thousands.
_HEAD = 2**20
_MADE_BY = re.compile(r'\{\s*"made_by": "([^"]+)"')


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `target`; on success it is flushed to disk and renamed over `target`.

    On any exception the temporary file is removed and `target` stays as it was. Parent folders are made. The temporary
    name keeps the suffix, so that writers which choose a format by suffix work.

    Raises:
        OutputError: the folder can't be made or written to, or the disk is full.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(f"{target}: can't write there ({error.strerror}). Choose another --output.") from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~read_umask())
        temporary.replace(target)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{target}: writing failed ({error.strerror or error}). {_what_helps(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _what_helps(error: OSError) -> str:
    if isinstance(error, IsADirectoryError):
        return "Name a file, not a folder."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space or choose another --output."
    return "Choose another --output."


def remove_abandoned(target: str | os.PathLike[str], suffixes: Collection[str]) -> None:
    """Remove what an `atomic_path` of `target`, under any of these suffixes, left when its process was killed.

    Nothing is removed while one of them is as young as what a process that still runs may have written.
    """
    target = Path(target)
    pattern = re.compile(rf"\.{re.escape(target.stem)}-[a-z0-9_]{{8}}(-[a-z]+)?")
    with suppress(OSError):
        left = [each for each in target.parent.iterdir() if each.suffix in suffixes and pattern.fullmatch(each.stem)]
        if left and time.time() - max(each.stat().st_mtime for each in left) > _ABANDONED:
            for each in left:
                each.unlink()


def taken(
    target: str | os.PathLike[str], what: Literal["folder", "file"], *, by: str = "", otherwise: str = ""
) -> OutputError:
    """The one complaint of a place where something is that a user may have made.

    Args:
        target: the place.
        what: is to be written there.
        by: the command that may replace what it wrote itself; "": none may.
        otherwise: another way than a new name, as the end of a sentence, such as "say --overwrite".
    """
    new = "a new or empty folder" if what == "folder" else "a new file"
    named = f"{new}, or {otherwise}" if otherwise else new
    if by:
        return OutputError(
            f"{target}: is already there, and no earlier `{by}` wrote it. Name {named}; nothing of yours is ever "
            "written over."
        )
    return OutputError(f"{target}: is already there. Name {named}; nothing of yours is ever written over.")


def refuse_unwritable(target: str | os.PathLike[str]) -> None:
    """Stop before any work if nothing can be written where `target`, a file or a folder, is or would be.

    Raises:
        OutputError: the folder, or the nearest one above it that is there, takes no file.
    """
    target = Path(target)
    try:
        place = target if target.is_dir() else target.parent
        while not place.exists():
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise OutputError(f"{target}: can't write there ({error.strerror}). Choose another --output.") from error


def refuse_no_folder(target: Path) -> None:
    """Stop before any work if results can't go into a folder of this name, which may be there.

    Raises:
        OutputError: it is a file, or nothing can be written there.
    """
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target}: is a file, and the results go into a folder. Choose another --output.")
    refuse_unwritable(target)


def write_text(target: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically (see `atomic_path`)."""
    with atomic_path(target) as path:
        path.write_text(text, encoding="utf-8")


def write_figures(target: str | os.PathLike[str], by: str, values: Mapping[str, Any]) -> None:
    """Write figures as JSON, atomically, which say first what made them: `maker` knows them again.

    Args:
        target: the file.
        by: the command, such as "fpn evaluate".
        values: JSON-able.
    """
    write_text(target, json.dumps({"made_by": by, "version": __version__, **values}, indent=2) + "\n")


def maker(target: Path) -> str:
    """Which command wrote the JSON that is there; "": none did, or it does not say so.

    A list of detections, which has no place for that, is `fpn evaluate`'s where its records name their files.
    """
    try:
        with target.open(encoding="utf-8") as stream:
            head = stream.read(_HEAD)
    except (OSError, ValueError):
        return ""
    if found := _MADE_BY.match(head):
        return found[1]
    record = head[: head.find("}, {") if "}, {" in head else None]
    named = all(f'"{name}": ' in record for name in ("image_id", "category_id", "score", "file_name"))
    return "fpn evaluate" if (head.startswith("[{") and named) or head.strip() == "[]" else ""


def leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is one, or a link to one; what can't be looked at, such as a link to itself, is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def read_umask() -> int:
    """The permissions that this process takes from new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
