"""From the words after `fpn predict MODEL` to image files, and to a name for each result."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fpn.errors import ConfigError, DataNotFoundError, OutputError
from fpn.files import taken
from fpn.image_io import IMAGE_SUFFIXES, UNREAD_SUFFIXES

_GLOB_SIGNS = frozenset("*?[")


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


def _expand(word: str, own: frozenset[str]) -> list[ImageSource]:
    path = Path(word)
    if path.is_dir():
        return _in_folder(path, own)
    if not path.exists() and _GLOB_SIGNS & set(word):
        return _in_glob(word, own)
    return [ImageSource(path, PurePosixPath(path.name))]


def _in_folder(folder: Path, own: frozenset[str]) -> list[ImageSource]:
    found = [path for path in sorted(folder.rglob("*")) if _is_image(path, own)]
    if not found:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataNotFoundError(f"{folder}: no image in this folder (looked for {kinds})")
    return [ImageSource(path, PurePosixPath(path.relative_to(folder).as_posix())) for path in found]


def _in_glob(pattern: str, own: frozenset[str]) -> list[ImageSource]:
    found = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207  absolute ones too
    found = [path for path in found if _is_image(path, own)]
    if not found:
        raise DataNotFoundError(f"{pattern}: no image matches")
    return [ImageSource(path, PurePosixPath(path.name)) for path in found]


def _is_image(path: Path, own: frozenset[str]) -> bool:
    # Of kinds that can't be read, too: each of these is told, as a damaged image is.
    looks_like_one = path.suffix.lower() in IMAGE_SUFFIXES | UNREAD_SUFFIXES and not path.name.startswith(".")
    # A link that leads nowhere was meant as an image: reading it will say so.
    there = path.is_file() or (path.is_symlink() and not path.exists())
    return looks_like_one and there and os.path.realpath(path) not in own
