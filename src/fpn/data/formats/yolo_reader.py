"""YOLO: one text file an image with lines `class centre-x centre-y width height`, in fractions of the image.

Found by a data.yaml (path / train / val / test / names), or as folders images/ and labels/ side by side, or as .txt
files beside the images. A line with six or more coordinates is an outline, whose bounds are the box. Category ids are
the class indices 0..K-1. An image without a label file is one without objects.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fpn.data.formats.files import (
    Folder,
    enumerate_issues,
    is_image,
    listed_classes,
    read_lines,
    read_text,
    shorten,
)
from fpn.data.formats.keypoints import checked_keypoints
from fpn.data.formats.layout import WHOLE, Layout
from fpn.data.formats.table import TableDataset
from fpn.data.formats.table_builder import Options, TableBuilder
from fpn.data.formats.yolo_config import YoloConfig, YoloPose, looks_like_config, read_config
from fpn.errors import DataError, DataNotFoundError
from fpn.structures import Classes

_CLASS_LISTS = ("classes.txt", "obj.names", "labels/classes.txt", "labels.txt")
# Text files that lie among labels without being any.
_NOT_LABELS = frozenset(
    {
        "classes.txt",
        "labels.txt",
        "notes.txt",
        "train.txt",
        "val.txt",
        "valid.txt",
        "test.txt",
        "README.txt",
        "readme.txt",
        "README.dataset.txt",
        "README.roboflow.txt",
    }
)


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the images and the class names of one split come from.

    Attributes:
        root: the dataset's folder.
        places: folders of images, or .txt lists of them, relative to the root.
        all_places: those of all splits, for class names that no file lists.
        config: what data.yaml says, if there is one.
    """

    root: Path
    places: tuple[str, ...]
    all_places: tuple[str, ...]
    config: YoloConfig | None = None


def find_configured(path: Path) -> Layout | str:
    """Recognise a data.yaml at a file or in a folder; otherwise what was missing."""
    if path.is_file():
        if path.suffix.lower() not in (".yaml", ".yml"):
            return "not a .yaml file"
        file = path
    else:
        files = [*sorted(path.glob("*.yaml")), *sorted(path.glob("*.yml"))]
        files = [file for file in files if looks_like_config(file)]
        if len(files) != 1:
            several = ", ".join(file.name for file in files)
            return f"several .yaml files ({several}): give one" if files else "no .yaml with names and train or val"
        file = files[0]
    # The file's own `path` may lead elsewhere only if the file itself was named by the caller.
    config = read_config(file, trusted=path.is_file())
    everything = tuple(place for places in config.splits.values() for place in places)
    sources = {name: _Source(config.root, places, everything, config) for name, places in config.splits.items()}
    return Layout(f"YOLO {file.name}", {name: partial(_read, source, name) for name, source in sources.items()})


def find_label_folders(path: Path) -> Layout | str:
    """Recognise images with label files at a folder; otherwise what was missing."""
    if path.is_file():
        return "not a folder"
    folder = Folder(path)
    places = _label_folders(folder)
    if not places:
        return "no images/ with labels/, no train/images with train/labels, no .txt beside the images"
    everything = tuple(places.values())
    sources = {name: _Source(path, (place,), everything) for name, place in places.items()}
    return Layout("YOLO label files", {name: partial(_read, source, name) for name, source in sources.items()})


def _label_folders(folder: Folder) -> dict[str, str]:
    root = folder.root
    if folder.listing(root / "images") and folder.has(root / "labels"):
        parts = [name for name in folder.listing(root / "images") if folder.listing(root / "images" / name)]
        if parts and not folder.images(root / "images"):
            return {name: f"images/{name}" for name in parts}
        return {WHOLE: "images"}
    parts = [name for name in folder.listing(root) if folder.listing(root / name / "images")]
    divided = {name: f"{name}/images" for name in parts if folder.has(root / name / "labels")}
    return divided or ({WHOLE: "."} if _has_labels_beside(folder) else {})


def _has_labels_beside(folder: Folder) -> bool:
    names = folder.listing(folder.root)
    return any(_stem(name) + ".txt" in names for name in folder.images(folder.root))


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122  # a hundred thousand of them: Path is ten times slower


def _read(source: _Source, split: str, options: Options) -> TableDataset:
    return _Reader(source, split, options).read()


class _Reader:
    """One split on its way to a table."""

    def __init__(self, source: _Source, split: str, options: Options) -> None:
        self.source, self.split, self.options, self.limits = source, split, options, options.limits
        self.folder = Folder(source.root)
        self.builder = TableBuilder(self.folder.root, options, fractions=True)

    def read(self) -> TableDataset:
        images = self._check(list(self._images(self.source.places)))
        classes = self._classes()
        labels = []
        for number, image in enumerate(images, start=1):
            self.builder.add_image(self.folder.relative(image), number, None)
            labels.append(self.folder.relative(_label_file(image, self.folder.root)))
            for line, text in self._lines(image):
                self._add(text, labels[-1], line, classes)
        name = self.folder.root.name if self.split == WHOLE else f"{self.folder.root.name}/{self.split}"
        pose = self._pose()
        return self.builder.finish(
            classes,
            name,
            lambda row, line: f"{labels[row]}, line {line}",
            skeleton=None if pose is None else pose.skeleton,
        )

    def _pose(self) -> YoloPose | None:
        return None if self.source.config is None else self.source.config.pose

    def _images(self, places: tuple[str, ...]) -> Iterator[str]:
        for place in places:
            path = self.folder.root / place
            if place.endswith(".txt"):
                yield from self._listed(path)
            elif self.folder.listing(path):
                yield from _walk(self.folder, str(path))
            else:
                raise DataNotFoundError(
                    f"{self.folder.root}: the images of split {self.split!r} should be in {place}, which does not "
                    "exist or is empty. Restore the folder, or correct the entry in the .yaml file."
                )

    def _listed(self, file: Path) -> Iterator[str]:
        """The images of a list: relative to the list's folder (`./a.jpg`) or to the dataset's."""
        where = self.folder.relative(file)
        for text in read_lines(file, self.limits.text_bytes):
            try:
                paths = [self.folder.inside(base, text, where) for base in (file.parent, self.folder.root)]
            except DataError as error:
                self.options.fault("path-outside", error, where)
                continue
            yield next((path for path in paths if self.folder.has(path)), paths[0])

    def _check(self, images: list[str]) -> list[str]:
        """The images, each once. Every one exists; every label file has its image."""
        missing = {
            self.folder.relative(path): f"image {self.folder.relative(path)} is listed but does not exist"
            for path in images
            if not self.folder.has(path)
        }
        if missing:
            head = f"{self.split}: {len(missing)} of {len(images)} listed images do not exist:"
            remedy = "Restore them, or take them off the list."
            error = DataNotFoundError(enumerate_issues(head, list(missing.values()), remedy))
            self.options.faults("image-missing", missing, error)
        for path in [path for path, times in Counter(images).items() if times > 1]:
            name = self.folder.relative(path)
            message = f"{self.split}: image {name} is listed twice. Remove one entry."
            self.options.fault("image-listed-twice", DataError(message), name)
        # A list may leave images out on purpose, so only folders are held to having an image for each label file.
        if not any(place.endswith(".txt") for place in self.source.places):
            self._check_orphans(images)
        return [path for path in dict.fromkeys(images) if self.folder.relative(path) not in missing]

    def _check_orphans(self, images: list[str]) -> None:
        expected = {_label_file(path, self.folder.root) for path in images}
        orphans = {
            self.folder.relative(file): f"{self.folder.relative(file)} has no image"
            for place in dict.fromkeys(os.path.split(file)[0] for file in expected)
            for name in self.folder.listing(place)
            if name.endswith(".txt") and name not in _NOT_LABELS
            if (file := os.path.join(place, name)) not in expected  # noqa: PTH118
        }
        if orphans:
            head = f"{self.split}: {len(orphans)} label files have no image:"
            remedy = "Restore the image, or remove the label file."
            error = DataNotFoundError(enumerate_issues(head, list(orphans.values()), remedy))
            self.options.faults("image-missing", orphans, error)

    def _classes(self) -> Classes:
        if self.source.config is not None and self.source.config.classes is not None:
            return self.source.config.classes
        listed = (self.folder.root / name for name in _CLASS_LISTS)
        for file in listed:
            if self.folder.has(file):
                return listed_classes(file, self.limits, first_id=0)
        highest = max((self._highest(place) for place in self.source.all_places), default=-1)
        if highest < 0:
            raise DataError(
                f"{self.folder.root}: no label file has an object, so there is no class to learn. If that is right, "
                "list the classes in classes.txt there, one a line."
            )
        return Classes(tuple(str(k) for k in range(highest + 1)), tuple(range(highest + 1)))

    def _highest(self, place: str) -> int:
        """The highest class index of a split; another split's broken lines are told when it is opened."""
        words = (text.split()[0] for image in self._images((place,)) for _, text in self._lines(image))
        # A number of many digits would take long to read, or be refused with a ValueError.
        indices = (int(word) for word in words if word.isdecimal() and len(word) <= len(str(_MAX_UNNAMED)))
        return max((index for index in indices if index < _MAX_UNNAMED), default=-1)

    def _lines(self, image: str) -> Iterator[tuple[int, str]]:
        """Line numbers and texts of an image's label file, if it has one."""
        file = _label_file(image, self.folder.root)
        if not self.folder.has(file):
            return
        try:
            text = read_text(Path(file), self.limits.text_bytes)
        except DataError as error:
            self.options.fault("annotations-unreadable", error, self.folder.relative(file))
            return
        lines = enumerate(text.splitlines(), start=1)
        yield from ((number, line) for number, line in lines if line.strip())

    def _add(self, text: str, file: str, line: int, classes: Classes) -> None:
        where = f"{file}, line {line}"
        words = text.split()
        try:
            index, *values = (float(word) for word in words)
        except ValueError:
            message = f"{where}: {shorten(text)} holds something that is not a number. {_EXPECTED}"
            self.options.fault("entry-broken", DataError(message), file)
            return
        if index not in range(len(classes)):
            message = (
                f"{where}: class {words[0]} is unknown, there are {len(classes)} classes (0 to {len(classes) - 1})"
            )
            self.options.fault("id-unknown", DataError(message), file)
            return
        values, keypoints = self._split(values, where, file)
        polygon = values if len(values) >= 6 and len(values) % 2 == 0 else None
        if polygon is None and len(values) != 4:
            message = f"{where}: {len(values)} numbers after the class. {_EXPECTED}"
            self.options.fault("entry-broken", DataError(message), file)
            return
        box = _corners(values) if polygon is None else _bounds(polygon)
        outline = [polygon] if polygon else None
        self.builder.add_object(box, int(index), origin=line, segmentation=outline, keypoints=keypoints)

    def _split(self, values: list[float], where: str, file: str) -> tuple[list[float], Sequence[float]]:
        """What a line says of its box, and its keypoints as x, y, visibility: zeros where it has none."""
        pose = self._pose()
        if pose is None:
            return values, ()
        values, keypoints = _split_pose(values, pose)
        try:
            return values, checked_keypoints(keypoints, pose.skeleton)
        except ValueError as error:
            self.options.fault("keypoints-broken", DataError(f"{where}: {error}"), file)
            return values, checked_keypoints([], pose.skeleton)


_EXPECTED = "A line is: class centre-x centre-y width height, or class x1 y1 x2 y2 x3 y3 ..., in fractions."
# Class indices that are believed without a list of names; above it is a typing error, not a dataset.
_MAX_UNNAMED = 10_000


def _corners(values: list[float]) -> tuple[float, float, float, float]:
    x, y, width, height = values
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _split_pose(values: list[float], pose: YoloPose) -> tuple[list[float], list[float]]:
    """Box and keypoints (x, y, visibility) of a line; none of a line of another length."""
    count = len(pose.skeleton)
    if len(values) != 4 + count * pose.numbers:
        return values, []
    if pose.numbers == 3:
        return values[:4], values[4:]
    # Without a visibility a keypoint that is not labelled lies at 0, 0.
    pairs = zip(values[4::2], values[5::2], strict=True)
    return values[:4], [number for x, y in pairs for number in (x, y, 2.0 if x > 0 or y > 0 else 0.0)]


def _bounds(polygon: list[float]) -> tuple[float, float, float, float]:
    xs, ys = polygon[0::2], polygon[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _walk(folder: Folder, place: str) -> Iterator[str]:
    """All images under a folder, in a fixed order. A linked folder is followed one level, so that no circle traps."""
    for name in folder.listing(place):
        path = os.path.join(place, name)  # noqa: PTH118
        if is_image(name):
            yield path
        elif "." not in name and not os.path.islink(path):  # noqa: PTH114
            yield from _walk(folder, path)


def _label_file(image: str, root: Path) -> str:
    """The label file of an image: the last folder called `images` replaced by `labels`, or beside the image."""
    inner = list(Path(os.path.relpath(image, root)).parts)
    folders = inner[:-1]
    if "images" in folders:
        last = len(folders) - 1 - folders[::-1].index("images")
        inner[last] = "labels"
    return os.path.join(root, *inner[:-1], _stem(inner[-1]) + ".txt")  # noqa: PTH118
