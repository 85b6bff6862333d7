"""Darknet's obj.data: `classes = 2`, `names = data/obj.names`, `train = data/train.txt`; CVAT exports YOLO 1.1 so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fpn.data.formats.files import Folder, head_of, is_file_name, listed_classes, read_lines, shorten
from fpn.data.formats.yolo_config import YoloConfig, find_place, find_places
from fpn.data.limits import Limits
from fpn.errors import DataError, DataNotFoundError
from fpn.structures import Classes

# What the lists of images are called, whatever obj.data says.
DARKNET_LISTS = ("train.txt", "valid.txt", "val.txt", "validation.txt", "test.txt")
_LIMIT = 2**20
# Its keys that name no split.
_OTHER_KEYS = frozenset({"classes", "names", "backup", "eval", "results", "labels", "map", "top"})


def find_data_file(path: Path) -> Path | None:
    """The file at a path or in a folder, by its content."""
    if path.is_file():
        return path if path.suffix == ".data" and _is_data_file(path) else None
    return next((file for file in sorted(path.glob("*.data")) if _is_data_file(file)), None)


def _is_data_file(file: Path) -> bool:
    keys = {line.split(b"=")[0].strip() for line in head_of(file, _LIMIT).splitlines() if b"=" in line}
    return b"names" in keys and bool(keys - {b"names"})


def read_data_file(file: Path, images: Path | None = None) -> YoloConfig:
    """What it says, as if a data.yaml had said it.

    Args:
        file: obj.data.
        images: the folder of the images, if they lie elsewhere.

    Raises:
        DataError: it is broken, or the file with the classes' names is not there: numbers would be wrong.
    """
    pairs = (line.split("=", 1) for line in read_lines(file, _LIMIT) if "=" in line)
    said = {key.strip(): value.strip() for key, value in pairs}
    folder = Folder(images or file.parent)
    named = {key: [value] for key, value in said.items() if key not in _OTHER_KEYS and value.endswith(".txt")}
    for key in named:
        # A split's name becomes that of a folder where the dataset is written again.
        if not is_file_name(key) or not key.isprintable() or {"/", "\\"} & {*key} or set(key) <= {"."}:
            raise DataError(f"{file}: {shorten(key)} is no name of a split. Write it in letters.")
    # CVAT names a list for each of its subsets, or train alone whatever there is.
    for name in DARKNET_LISTS:
        if folder.has(folder.root / name) and not any(Path(value[0]).name == name for value in named.values()):
            named[Path(name).stem] = [name]
    if not named:
        raise DataError(f"{file}: names no list of images. Add a line: train = train.txt")
    splits, absent, repaired = find_places(named, folder, file)
    classes = _names(said, file)
    return YoloConfig(folder.root, splits, classes, len(classes), None, absent, {} if images is None else repaired)


def _names(said: Mapping[str, str], file: Path) -> Classes:
    place = find_place(said["names"] or "obj.names", Folder(file.parent), file)
    names = file.parent / place
    if not names.is_file():
        raise DataNotFoundError(f"{file}: the names of its classes should be in {place}, which does not exist.")
    return listed_classes(names, Limits(), first_id=0)
