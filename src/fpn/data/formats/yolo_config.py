"""YOLO's data.yaml: where the splits are and what the classes are called.

Every split must lie in the dataset's folder: that of the file, or the one its `path` names. A `path` that leads out of
the file's own folder is followed only if the caller named the file itself, since they then chose to trust it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fpn.data.formats.files import MAX_CLASSES, Folder, head_of, is_file_name, make_classes, read_yaml, shorten
from fpn.data.formats.layout import plain_split
from fpn.errors import ConfigError, DataError, DataNotFoundError
from fpn.structures import Classes, Skeleton

SPLITS = ("train", "val", "test")
_CONFIG_BYTES = 2**20
# Whole-body skeletons have 133; more is a typing error.
_MAX_KEYPOINTS = 1000


@dataclass(frozen=True, slots=True)
class YoloConfig:
    """What a data.yaml says.

    Attributes:
        root: the dataset's folder.
        splits: name -> folders and .txt lists of images, relative to the root.
        classes: the names with the ids 0..K-1, or None if there is no `names`.
        count: `nc`, how many classes there are; None if it does not say.
        pose: what `kpt_shape` says of the keypoints on every line, or None if it is not there.
        absent: splits of which nothing is there, and where it should be.
        repaired: places as written -> as they are.
    """

    root: Path
    splits: dict[str, tuple[str, ...]]
    classes: Classes | None
    count: int | None = None
    pose: YoloPose | None = None
    absent: Mapping[str, str] = field(default_factory=dict)
    repaired: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class YoloPose:
    """The keypoints of a line: `numbers` for each, x and y in fractions and, if three, its visibility."""

    skeleton: Skeleton
    numbers: int


def looks_like_config(file: Path) -> bool:
    """By its keys: a folder may hold other YAML files."""
    keys = _keys(file)
    return bool(keys & {b"names", b"nc"}) and bool(keys & {b"train", b"val", b"test"})


def has_names(file: Path) -> bool:
    """Whether a YAML file lists names, by its keys."""
    return b"names" in _keys(file)


def _keys(file: Path) -> set[bytes]:
    lines = head_of(file, _CONFIG_BYTES).removeprefix(b"\xef\xbb\xbf").splitlines()
    return {line.split(b":")[0].strip(b" '\"") for line in lines if b":" in line}


def read_config(file: Path, *, trusted: bool, root: Path | None = None) -> YoloConfig:
    """Read a data.yaml.

    Args:
        file: the file.
        trusted: whether its `path` may lead out of its folder.
        root: the dataset's folder, if it is not what the file says.

    Raises:
        DataError: it is broken, names no split, or leads out of the dataset's folder with all of them.
    """
    data = read_yaml(file, _CONFIG_BYTES)
    if not isinstance(data, dict):
        raise DataError(f"{file}: holds {shorten(data)}; a YOLO data file has the keys train, val and names")
    folder = Folder(root or _root(file, data.get("path"), trusted))
    named = {name: _values(data[name], name, file) for name in SPLITS if data.get(name)}
    if not named:
        raise DataError(f"{file}: names no split. Add train: and val: with the folders of their images.")
    classes, count = _classes(data, file)
    splits, absent, repaired = find_places(named, folder, file)
    return YoloConfig(folder.root, splits, classes, count, _pose(data, file), absent, repaired)


def names_of(file: Path) -> Classes | None:
    """The names that a YAML file lists, whatever else it holds.

    Raises:
        DataError: it is broken.
    """
    data = read_yaml(file, _CONFIG_BYTES)
    return _classes(data, file)[0] if isinstance(data, dict) else None


def find_places(
    named: Mapping[str, Sequence[str]], folder: Folder, file: Path
) -> tuple[dict[str, tuple[str, ...]], dict[str, str], dict[str, str]]:
    """Where the splits are that a file names: (those there are, those there are not, what was repaired).

    Raises:
        DataError: none is there.
    """
    splits: dict[str, tuple[str, ...]] = {}
    absent: dict[str, str] = {}
    repaired: dict[str, str] = {}
    errors: list[DataError] = []
    for name, entries in named.items():
        try:
            places = [find_place(entry, folder, file) for entry in entries]
        except DataError as error:
            absent[name] = _missing(name, [shorten(entry) for entry in entries], folder, file)
            errors.append(error)
            continue
        there = [place for place in places if _is_there(place, folder)]
        repaired |= {e: p for e, p in zip(entries, places, strict=True) if p in there and not _same(e, p)}
        if there:
            splits[name] = tuple(places)
        else:
            absent[name] = _missing(name, places, folder, file)
    if not splits:
        raise errors[0] if errors else DataNotFoundError(next(iter(absent.values())))
    return splits, absent, repaired


def _missing(split: str, places: Sequence[str], folder: Folder, file: Path) -> str:
    return (
        f"{folder.root}: the images of split {split!r} should be in {', '.join(places)}, which does not exist or "
        f"is empty. Restore it, or correct {file.name}."
    )


def _same(entry: str, place: str) -> bool:
    # Roboflow writes ../train/images for what is train/images beside the file.
    return os.path.normpath(entry).removeprefix("../") == place


def _is_there(place: str, folder: Folder) -> bool:
    path = folder.root / place
    return bool(folder.listing(path)) or (place.endswith((".txt", ".names")) and folder.has(path))


def _root(file: Path, path: Any, trusted: bool) -> Path:
    own = Path(os.path.abspath(file)).parent  # noqa: PTH100  # resolve() would follow links
    if not path:
        return own
    if not isinstance(path, str) or not is_file_name(path):
        raise DataError(f"{file}: path is {shorten(path)}; it must be a folder")
    said = Path(os.path.normpath(own / path))
    if said.is_relative_to(own):
        return said if said.is_dir() else own
    if trusted and said.is_dir():
        return said
    # The commonest case: a dataset that was moved or unpacked elsewhere keeps the path of its old home.
    if not said.is_dir():
        return own
    raise DataError(
        f"{file}: its path {shorten(path)} leads out of the folder that was opened. If you trust the file, name it "
        f"instead of its folder: {file}; otherwise remove its path."
    )


def _values(value: Any, split: str, file: Path) -> list[str]:
    values = value if isinstance(value, list) else [value]
    for entry in values:
        if not isinstance(entry, str) or not entry:
            raise DataError(
                f"{file}: {split} is {shorten(value)}; it must be a folder, a .txt list, or a list of these"
            )
    return values


def find_place(entry: str, folder: Folder, file: Path) -> str:
    """An entry relative to the root: as written, or without the folders of another machine in front of it.

    Raises:
        DataError: it is not there, and leads out of the folder.
    """
    if os.path.normpath(entry) == ".":
        return "."
    problem = None
    try:
        place = folder.relative(folder.inside(folder.root, entry, file.name))
        if _is_there(place, folder):
            return place
    except DataError as error:
        problem = error
    parts = [part for part in entry.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    for dropped in range(len(parts)):
        # A folder of all images is no stand-in for that of a split.
        if any(plain_split(part) in SPLITS for part in parts[:dropped]):
            break
        tail = "/".join(parts[dropped:])
        if is_file_name(tail) and _is_there(tail, folder):
            return tail
    if problem is not None:
        raise problem
    return place


def _pose(data: dict[str, Any], file: Path) -> YoloPose | None:
    """What kpt_shape, flip_idx and kpt_names say; names are numbers where there are none."""
    shape = data.get("kpt_shape")
    if not shape:
        return None
    numbers = _whole_numbers(shape, file, "kpt_shape")
    if len(numbers) != 2 or not 0 < numbers[0] <= _MAX_KEYPOINTS or numbers[1] not in (2, 3):
        raise DataError(f"{file}: kpt_shape is {shorten(shape)}; it must be [number of keypoints, 2 or 3]")
    count = numbers[0]
    flipped = _whole_numbers(data.get("flip_idx") or list(range(count)), file, "flip_idx")
    if sorted(flipped) != list(range(count)) or any(flipped[flipped[k]] != k for k in range(count)):
        raise DataError(f"{file}: flip_idx must name each of the keypoints 0 to {count - 1} once, pairs each other")
    pairs = tuple((one, other) for one, other in enumerate(flipped) if one < other)
    names = _keypoint_names(data.get("kpt_names"), count, file)
    try:
        named = Skeleton.named(names)
        return YoloPose(Skeleton(names, pairs or named.flip_pairs, sigmas=named.sigmas), numbers[1])
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from error


def _whole_numbers(values: Any, file: Path, key: str) -> list[int]:
    if not isinstance(values, list) or not all(str(value).isdecimal() and len(str(value)) <= 6 for value in values):
        raise DataError(f"{file}: {key} is {shorten(values)}; it must be a list of whole numbers")
    return [int(value) for value in values]


def _keypoint_names(names: Any, count: int, file: Path) -> tuple[str, ...]:
    """Of the first class: a dataset has one skeleton."""
    if isinstance(names, dict) and names:
        if any(other != next(iter(names.values())) for other in names.values()):
            raise DataError(f"{file}: kpt_names differ between classes, but a dataset has one skeleton")
        names = next(iter(names.values()))
    if not names:
        return tuple(str(number) for number in range(count))
    if not isinstance(names, list) or len(names) != count or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file}: kpt_names is {shorten(names)}; it must list {count} names")
    return tuple(names)


def _classes(data: dict[str, Any], file: Path) -> tuple[Classes | None, int | None]:
    """`names` and `nc`."""
    names, count = data.get("names"), data.get("nc")
    if isinstance(names, dict):
        names = _in_order(names, file)
    if names is not None and (not isinstance(names, list) or not all(isinstance(name, str) for name in names)):
        raise DataError(f"{file}: names is {shorten(names)}; it must be a list of names, or index: name")
    if count is not None and not _is_count(count):
        raise DataError(f"{file}: nc is {shorten(count)}; it must be the number of classes")
    if not names:
        return None, None if count is None else int(count)
    if count is not None and int(count) != len(names):
        raise DataError(f"{file}: nc is {count} but there are {len(names)} names. Correct one of them.")
    return make_classes(names, range(len(names)), str(file)), len(names)


def _is_count(text: Any) -> bool:
    """Whether it is a number of classes. Its length comes first: int() refuses to read thousands of digits."""
    return isinstance(text, str) and text.isdecimal() and len(text) <= 6 and 0 < int(text) <= MAX_CLASSES


def _in_order(names: dict[Any, Any], file: Path) -> list[Any]:
    """The values of {0: a, 1: b, ...} by index."""
    try:
        by_index = {int(key): name for key, name in names.items()}
    except (ValueError, TypeError):
        raise DataError(f"{file}: names has a key that is not a class index 0, 1, 2, ...") from None
    if sorted(by_index) != list(range(len(names))):
        raise DataError(f"{file}: names must have the indices 0 to {len(names) - 1}, each once")
    return [by_index[index] for index in range(len(names))]
