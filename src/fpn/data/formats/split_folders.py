"""Where the annotation files of a dataset lie that has one for each image: in one folder, or in one of each split."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from fpn.data.formats.files import Folder
from fpn.data.formats.layout import WHOLE, plain_split

_SPLITS = ("train", "val", "test")
# Files that are looked at to know a folder by its content.
_LOOKED_AT = 20


def split_folders(
    folder: Folder, place: Path, suffix: str, holds: Callable[[Path], bool], *, deeper: bool = False
) -> dict[str, Path]:
    """A folder of annotations as a whole, or by its folders if they are called as splits are.

    Args:
        folder: of the dataset.
        place: in it.
        suffix: of annotation files.
        holds: whether a file with the suffix is one.
        deeper: if only one of its folders has annotations, go on with that one.

    Returns:
        Split -> folder; empty if there are no annotations.
    """
    if _holds_any(folder.listing(place), place, suffix, holds):
        return {WHOLE: place}
    inner = [name for name in folder.folders(place) if _holds_below(folder, place / name, suffix, holds)]
    if inner and all(plain_split(name) in _SPLITS for name in inner):
        return {name: place / name for name in inner}
    if deeper and len(inner) == 1:
        return split_folders(folder, place / inner[0], suffix, holds)
    return {WHOLE: place} if inner else {}


def _holds_below(folder: Folder, place: Path, suffix: str, holds: Callable[[Path], bool]) -> bool:
    """Whether one of the first files with the suffix, in any depth, is an annotation."""
    return _holds_any((os.path.relpath(path, place) for path in folder.walk(place)), place, suffix, holds)


def _holds_any(names: Iterable[str], place: Path, suffix: str, holds: Callable[[Path], bool]) -> bool:
    """Whether one of the first of these files with the suffix is an annotation."""
    files = islice((name for name in names if name.lower().endswith(suffix)), _LOOKED_AT)
    return any(holds(place / name) for name in files)
