"""LabelMe: one JSON file an image, beside the images or in a folder of its own, all in one or a folder a split.

Boxes are the bounds of the shapes, in pixels as written; outlines become masks. Classes are all labels that any file of
the dataset uses, sorted, with the ids 1..K, so that every split has the same; a labels.txt or classes.txt (one name a
line) fixes names and order instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from fpn.data.formats.files import (
    Folder,
    enumerate_issues,
    head_of,
    make_classes,
    read_lines,
    shorten,
)
from fpn.data.formats.labelme_json import NO_CLASSES, LabelmeFile, LabelmeObject, read_labelme
from fpn.data.formats.layout import WHOLE, Layout
from fpn.data.formats.named_images import find_named_images
from fpn.data.formats.split_folders import split_folders
from fpn.data.formats.table import TableDataset
from fpn.data.formats.table_builder import Options, TableBuilder
from fpn.errors import DataError, DataNotFoundError, FpnError
from fpn.structures import Classes
from fpn.suggestions import nearest

_CLASS_LISTS = ("labels.txt", "classes.txt")
_IMAGE_FOLDERS = ("images", "JPEGImages", "imgs", "img")
_HEAD = 1 << 12
_KEYS = (b'"shapes"', b'"imageData"', b'"imagePath"')


def find(path: Path, images: Path | None = None) -> Layout | str:
    """Recognise LabelMe's files at a folder; otherwise what was missing. `images` is asked when it is read."""
    if path.is_file():
        return "not a folder" if not is_labelme_file(path) else "a single file of LabelMe: give the folder it lies in"
    folder = Folder(path)
    places = split_folders(folder, folder.root, ".json", is_labelme_file, deeper=True)
    if not places:
        return "no folder with .json files that hold 'shapes'"
    readers = {split: partial(_read, path, split, tuple(places.items())) for split in places}
    return Layout("LabelMe *.json", readers)


def is_labelme_file(file: Path) -> bool:
    """Whether a JSON file holds the shapes of an image, by its first bytes."""
    start = head_of(file, _HEAD)
    return start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{") and any(key in start for key in _KEYS)


def _read(root: Path, split: str, places: tuple[tuple[str, Path], ...], options: Options) -> TableDataset:
    return _Reader(root, split, dict(places), options).read()


class _Reader:
    """One split on its way to a table."""

    def __init__(self, root: Path, split: str, places: Mapping[str, Path], options: Options) -> None:
        self.folder, self.options, self.split = Folder(root), options, split
        self.places, self.place = places, places[split]
        self.pictured = self.folder if options.images is None else Folder(options.images)
        self.builder = TableBuilder(self.pictured.root, options)

    def read(self) -> TableDataset:
        files = {path: file for path in self._paths(self.place) if (file := self._parse(path)) is not None}
        self._say_aside(files)
        classes = self._classes(files)
        labels = {name: label for label, name in enumerate(classes)}
        images = self._images(files)
        paths = list(images)
        for number, (path, image) in enumerate(images.items(), start=1):
            self.builder.add_image(image, number, files[path].size, extra=files[path].extra)
            for entry in files[path].objects:
                self._add(entry, path, labels)
        name = self.folder.root.name if self.split == WHOLE else f"{self.folder.root.name}/{self.split}"
        return self.builder.finish(classes, name, lambda row, number: f"{self._named(paths[row])}: shape {number}")

    def _named(self, path: str) -> str:
        return self.folder.relative(path)

    def _paths(self, place: Path) -> list[str]:
        """Its JSON files; those that hold something else are left aside."""
        files = (path for path in self.folder.walk(str(place)) if path.lower().endswith(".json"))
        return [path for path in files if is_labelme_file(Path(path))]

    def _parse(self, path: str) -> LabelmeFile | None:
        where = self._named(path)
        self.options.used(path)
        try:
            return read_labelme(
                Path(path),
                where,
                self.options.limits.json_bytes,
                lambda kind, error: self.options.fault(kind, error, where),
                everything=self.options.notes is not None,
            )
        except DataError as error:
            self.options.fault("annotations-unreadable", error, where)
            return None

    def _say_aside(self, files: Mapping[str, LabelmeFile]) -> None:
        told = {self._named(path): next(iter(file.aside.values())) for path, file in files.items() if file.aside}
        if not told:
            return
        count = sum(len(file.aside) for file in files.values())
        first = next(iter(told.values()))
        more = "" if count == 1 else f", and so on for {count - 1} more"
        self.options.remark("shape-aside", told, f"{first}{more}: left aside, no object")

    def _classes(self, files: Mapping[str, LabelmeFile]) -> Classes:
        """The dataset's list of classes if it has one, else the labels that any of its files uses."""
        for name in _CLASS_LISTS:
            file = self.folder.root / name
            if self.folder.has(file):
                self.options.used(file)
                names = [line for line in read_lines(file, self.options.limits.text_bytes) if line not in NO_CLASSES]
                return make_classes(names, range(1, len(names) + 1), str(file))
        found = {entry.name for file in files.values() for entry in file.objects}
        others = (path for split, place in self.places.items() if split != self.split for path in self._paths(place))
        found.update(name for path in others for name in self._labels(path))
        if not found:
            raise DataError(
                f"{self.folder.root}: none of its files labels an object, so there is no class to learn. If that is "
                "right, list the classes in labels.txt there, one a line."
            )
        return make_classes(sorted(found), range(1, len(found) + 1), f"{self.folder.root}: the labels of its shapes")

    def _labels(self, path: str) -> set[str]:
        """The labels of another split's file; what is wrong with that is told when it is opened."""
        limit = self.options.limits.json_bytes
        with suppress(FpnError):
            return {entry.name for entry in read_labelme(Path(path), path, limit, lambda kind, error: None).objects}
        return set()

    def _images(self, files: Mapping[str, LabelmeFile]) -> dict[str, str]:
        """JSON file -> its image, relative to the root.

        Raises:
            DataNotFoundError: some have none.
        """
        by_place: dict[Path, list[str]] = defaultdict(list)
        for path in files:
            by_place[Path(path).parent].append(path)
        found: dict[str, str] = {}
        for place, paths in by_place.items():
            found |= self._images_of(place, {path: files[path] for path in paths})
        missing = {
            self._named(path): f"{self._named(path)}: its image {shorten(self._written(path, file))} does not exist"
            for path, file in files.items()
            if path not in found
        }
        if missing:
            head = f"{self.split}: {len(missing)} of {len(files)} files have no image:"
            remedy = "Restore the image, remove the file, or say where the images are (--images)."
            error = DataNotFoundError(enumerate_issues(head, list(missing.values()), remedy))
            self.options.faults("image-missing", missing, error)
        return self._once({path: found[path] for path in files if path in found})

    def _images_of(self, place: Path, files: Mapping[str, LabelmeFile]) -> dict[str, str]:
        """Those of the files of one folder."""
        return find_named_images(
            self.pictured,
            {path: self._written(path, file) for path, file in files.items()},
            self._image_places(place),
            self.options,
            called={path: self._named(path) for path in files},
            field="imagePath",
            split=self.split,
        )

    def _image_places(self, place: Path) -> list[Path]:
        """Folders that names may be relative to, the likeliest first."""
        if self.options.images is not None:
            return [self.pictured.root]
        root = self.folder.root
        split = [] if self.split == WHOLE else [root / name / self.split for name in _IMAGE_FOLDERS]
        return [place, *split, *(root / name for name in _IMAGE_FOLDERS), root]

    @staticmethod
    def _written(path: str, file: LabelmeFile) -> str:
        """The image's name as the file says it; if it does not, its own with an image's suffix, which is looked for."""
        return file.image_name or f"{Path(path).stem}.jpg"

    def _once(self, images: dict[str, str]) -> dict[str, str]:
        """Each image with one file."""
        first: dict[str, str] = {}
        for path, image in images.items():
            if image in first:
                message = f"{self._named(path)}: {image} is labelled in {self._named(first[image])}, too. Remove one."
                self.options.fault("image-listed-twice", DataError(message), self._named(path))
            first.setdefault(image, path)
        return {path: image for image, path in first.items()}

    def _add(self, entry: LabelmeObject, path: str, labels: Mapping[str, int]) -> None:
        where = f"{self._named(path)}: shape {entry.number}"
        if entry.name not in labels:
            message = (
                f"{where} has label {shorten(entry.name)}, which the list of classes ({', '.join(_CLASS_LISTS)}) does "
                f"not have.{nearest(entry.name, labels)}"
            )
            self.options.fault("id-unknown", DataError(message), self._named(path))
            return
        self.builder.add_object(
            entry.box,
            labels[entry.name],
            ignore=entry.difficult,
            origin=entry.number,
            segmentation=entry.segmentation,
            extra=entry.extra,
        )
