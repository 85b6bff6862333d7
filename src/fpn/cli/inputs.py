"""From the words after `fpn predict MODEL` to image files, and to a name for each result."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fpn.cli.terminal import say_note
from fpn.errors import ConfigError, DataNotFoundError, FpnError, OutputError
from fpn.files import taken
from fpn.image_io import IMAGE_SUFFIXES, UNREAD_SUFFIXES
from fpn.wording import counted

_GLOB_SIGNS = frozenset("*?[")
# Endings of files that labels are in.
_LABELS = (".json", ".yaml", ".yml", ".xml", ".txt", ".data")


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image file, and where it lies in what was named: its path inside the folder, or its bare name."""

    path: Path
    inside: PurePosixPath


def find_images(words: Sequence[str], *, own: frozenset[str]) -> list[ImageSource]:
    """Every image once, in the order named; folders (with all inside of them) and globs sorted.

    A file that is named is taken whatever its suffix, also when it is missing: reading it will say so.

    Args:
        words: files, folders and globs.
        own: real paths of what an earlier `fpn predict` drew, which folders and globs leave out.

    Raises:
        ConfigError: nothing is named.
        DataNotFoundError: a folder or glob holds no image.
    """
    if not words:
        raise ConfigError("no images: name files, folders or globs, such as: fpn predict model.safetensors photos/")
    found: dict[str, ImageSource] = {}
    for word in words:
        for source in _expand(word, own):
            found.setdefault(os.path.realpath(source.path), source)
    return list(found.values())


def find_films(words: Sequence[str], *, every: int, track: bool) -> list[Path]:
    """The films, if such are named; told by their suffix.

    Raises:
        ConfigError: films and others are named together, or options of films without one.
    """
    from fpn.films import FILM_SUFFIXES

    films = [Path(word) for word in words if Path(word).suffix.lower() in FILM_SUFFIXES]
    if not films and (every != 1 or track):
        raise ConfigError(
            "--every, --track: are about films, and none is named. Films end in "
            f"{', '.join(sorted(FILM_SUFFIXES))}; a .gif counts as an image."
        )
    if films and len(films) < len(words):
        raise ConfigError(f"{films[0]}: is a film, and others of what is named are not. Predict them apart.")
    return films


def name_results(sources: Iterable[ImageSource], suffix: str) -> list[PurePosixPath]:
    """A name for each result: the image's own with another suffix, `-2`, `-3`, ... where that is taken."""
    taken: set[str] = set()
    names = []
    for source in sources:
        name, number = source.inside.with_suffix(suffix), 2
        while str(name).lower() in taken:  # not all file systems tell A from a
            name = source.inside.with_name(f"{source.inside.stem}-{number}{suffix}")
            number += 1
        taken.add(str(name).lower())
        names.append(name)
    return names


def refuse_overwriting(targets: Iterable[Path], sources: Iterable[ImageSource], own: frozenset[str]) -> None:
    """Stop before anything is done if a result would replace a file that an earlier `fpn predict` did not write.

    Args:
        targets: files that will be written.
        sources: the images.
        own: real paths of what an earlier `fpn predict` wrote.

    Raises:
        OutputError: names the file.
    """
    inputs = {os.path.realpath(source.path) for source in sources}
    for target in targets:
        where = os.path.realpath(target)
        if where in inputs:
            raise OutputError(f"{target}: the result would replace the image itself. Choose another --output.")
        if target.exists() and where not in own:
            raise taken(target, "folder", by="fpn predict", otherwise="move the file")


def refuse_labelled(output: Path) -> None:
    """Stop before anything is done if results would lie among labelled images, of which they would seem a part.

    Args:
        output: the folder of the results, in which none are yet.

    Raises:
        OutputError: it is a dataset's folder, or one of those with its images.
    """
    entries = [each.name for each in output.iterdir()] if output.is_dir() else []
    if not entries:
        return
    above = [output, output / "..", output / "../.."][: 3 if any(map(_named_as_image, entries)) else 1]
    dataset = next((each for each in above if _seems_labelled(each)), None)
    if dataset is None:
        return
    among = "labelled images" if dataset == output else f"the labelled images of {dataset.resolve()}"
    raise OutputError(
        f"{output}: is a folder of {among}, and whoever reads these would take the results for a part of them. Choose "
        "another --output."
    )


def _seems_labelled(folder: Path) -> bool:
    """Whether a dataset is known there; folders without a sign of labels are not looked through."""
    from fpn.data import list_splits

    try:
        entries = [each.name.lower() for each in folder.iterdir()]
        signs = any(name.startswith(("annotation", "label")) or name.endswith(_LABELS) for name in entries)
        return signs and bool(list_splits(folder))
    except (FpnError, OSError):
        return False


def _expand(word: str, own: frozenset[str]) -> list[ImageSource]:
    path = Path(word)
    if path.is_dir():
        return _in_folder(path, own)
    if not path.exists() and _GLOB_SIGNS & set(word):
        return _in_glob(word, own)
    return [ImageSource(path, PurePosixPath(path.name))]


def _in_folder(folder: Path, own: frozenset[str]) -> list[ImageSource]:
    found = _without_drawings(folder, [path for path in sorted(folder.rglob("*")) if _is_image(path, own)])
    if not found:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataNotFoundError(f"{folder}: no image in this folder (looked for {kinds})")
    return [ImageSource(path, PurePosixPath(path.relative_to(folder).as_posix())) for path in found]


def _in_glob(pattern: str, own: frozenset[str]) -> list[ImageSource]:
    found = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207  absolute ones too
    found = _without_drawings(pattern, [path for path in found if _is_image(path, own)])
    if not found:
        raise DataNotFoundError(f"{pattern}: no image matches")
    return [ImageSource(path, PurePosixPath(path.name)) for path in found]


def _without_drawings(word: object, found: list[Path]) -> list[Path]:
    """Without what an earlier `fpn predict` drew into folders of its own, as its lists there say.

    Raises:
        DataNotFoundError: nothing else is there.
    """
    from fpn.cli.outputs import real_paths, written_before

    folders = {above for parent in {path.parent for path in found} for above in (parent, *parent.parents)}
    drawings = frozenset[str]().union(*(real_paths(each, written_before(each)) for each in folders))
    left = [path for path in found if os.path.realpath(path) not in drawings]
    if found and not left:
        raise DataNotFoundError(f"{word}: holds nothing but drawings of an earlier `fpn predict`. Name the images.")
    if len(left) < len(found):
        drawn = counted(len(found) - len(left), "drawing")
        say_note(f"{word}: {drawn} of an earlier `fpn predict` left out; a file named by itself is taken")
    return left


def _named_as_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _is_image(path: Path, own: frozenset[str]) -> bool:
    # Of kinds that can't be read, too: each of these is told, as a damaged image is.
    looks_like_one = path.suffix.lower() in IMAGE_SUFFIXES | UNREAD_SUFFIXES and not path.name.startswith(".")
    # A link that leads nowhere was meant as an image: reading it will say so.
    there = path.is_file() or (path.is_symlink() and not path.exists())
    return looks_like_one and there and os.path.realpath(path) not in own
