"""Pascal VOC: one XML file an image, in a tree with ImageSets/Main, or beside the images.

Boxes are taken as written (xmin, ymin, xmax, ymax, half-open; docs/decisions/0012-voc-boxes-as-written.md). `difficult`
becomes `ignore`. Classes are all names that any XML file of the dataset uses, sorted, with the ids 1..K, so that every
split has the same; a labels.txt or classes.txt (one name a line) fixes names and order instead.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fpn.data.formats.files import (
    Folder,
    enumerate_issues,
    is_image,
    listed_classes,
    make_classes,
    read_lines,
    shorten,
)
from fpn.data.formats.layout import WHOLE, Layout
from fpn.data.formats.table import TableDataset
from fpn.data.formats.table_builder import Options, TableBuilder
from fpn.data.formats.voc_xml import VocFile, VocObject, class_names, read_voc
from fpn.errors import DataError, DataNotFoundError
from fpn.structures import Classes
from fpn.suggestions import nearest

LISTS = "ImageSets/Main"
_ANNOTATION_FOLDERS = ("Annotations", "annotations", "xml", "xmls")
_IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "img", "imgs")
_CLASS_LISTS = ("labels.txt", "classes.txt")
_SPLIT_FOLDERS = ("train", "valid", "val", "validation", "test")


class _Place(NamedTuple):
    """Where a split's files are: folders of annotations and of images, and the list of names, if there is one."""

    annotations: Path
    images: tuple[Path, ...]
    names: Path | None = None


def find(path: Path) -> Layout | str:
    """Recognise a VOC dataset at a folder; otherwise what was missing."""
    if path.is_file():
        return "not a folder" if path.suffix.lower() != ".xml" else "a single .xml file: give the folder it lies in"
    places = _places(Folder(path))
    if isinstance(places, str):
        return places
    lists = f"{LISTS}/*.txt" if any(place.names for place in places.values()) else "*.xml"
    return Layout(f"VOC {lists}", {split: partial(_read, path, split, tuple(places.values())) for split in places})


def _places(folder: Folder) -> dict[str, _Place] | str:
    root = folder.root
    annotations = next((root / name for name in _ANNOTATION_FOLDERS if _has_xml(folder, root / name)), None)
    if annotations is not None:
        images = (*(root / name for name in _IMAGE_FOLDERS), root, annotations)
        lists = _split_lists(folder)
        return {name: _Place(annotations, images, file) for name, file in lists.items()} or {
            WHOLE: _Place(annotations, images)
        }
    if _has_xml(folder, root):
        return {WHOLE: _Place(root, (root, *(root / name for name in _IMAGE_FOLDERS)))}
    divided = {name: _Place(root / name, (root / name,)) for name in _SPLIT_FOLDERS if _has_xml(folder, root / name)}
    return divided or "no Annotations/*.xml, no *.xml beside the images, no train/*.xml"


def _has_xml(folder: Folder, place: Path) -> bool:
    return any(name.lower().endswith(".xml") for name in folder.listing(place))


def _split_lists(folder: Folder) -> dict[str, Path]:
    """The lists of ImageSets/Main without those of one class (`cat_train.txt`, whose lines end in 1, 0 or -1)."""
    place = folder.root / LISTS
    files = [place / name for name in folder.listing(place) if name.endswith(".txt")]
    return {file.stem: file for file in files if not _of_one_class(file)}


def _of_one_class(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            words = stream.readline(1 << 12).split()
    except OSError:
        return False
    return len(words) == 2 and words[1] in (b"-1", b"0", b"1")


def _read(root: Path, split: str, places: tuple[_Place, ...], options: Options) -> TableDataset:
    return _Reader(root, split, places, options).read()


class _Reader:
    """One split on its way to a table."""

    def __init__(self, root: Path, split: str, places: tuple[_Place, ...], options: Options) -> None:
        self.folder, self.options, self.split = Folder(root), options, split
        self.places, self.place = places, _place_of(split, places)
        self.builder = TableBuilder(self.folder.root, options)
        self.limits = options.limits

    def read(self) -> TableDataset:
        files = {path: file for path in self._files() if (file := self._parse(path)) is not None}
        classes = self._classes(files)
        labels = {name: label for label, name in enumerate(classes)}
        images = self._images(files)
        paths = list(images)
        for number, (path, image) in enumerate(images.items(), start=1):
            self.builder.add_image(image, number, files[path].size, extra=files[path].extra)
            for entry in files[path].objects:
                self._add(entry, path, labels)
        name = self.folder.root.name if self.split == WHOLE else f"{self.folder.root.name}/{self.split}"
        return self.builder.finish(classes, name, lambda row, position: self._called(paths[row], position))

    def _parse(self, path: str) -> VocFile | None:
        where = self._named(path)
        try:
            return read_voc(
                Path(path),
                where,
                self.limits.xml_bytes,
                lambda kind, error: self.options.fault(kind, error, where),
                everything=self.options.notes is not None,
            )
        except DataError as error:
            self.options.fault("annotations-unreadable", error, where)
            return None

    def _named(self, path: str) -> str:
        return self.folder.relative(path)

    def _called(self, path: str, position: int) -> str:
        return f"{self._named(path)}: object {position}"

    def _files(self) -> list[str]:
        """The split's XML files, in the order of its list."""
        if self.place.names is None:
            return self._all_files(self.place)
        where = self.folder.relative(self.place.names)
        files: dict[str, int] = {}
        for line, text in enumerate(read_lines(self.place.names, self.limits.text_bytes), start=1):
            try:
                file = self._listed(text, where)
            except DataError as error:
                self.options.fault("path-outside", error, where)
                continue
            if file in files:
                message = f"{where}: {shorten(text)} is listed twice (entries {files[file]} and {line}). Remove one."
                self.options.fault("image-listed-twice", DataError(message), where)
            files.setdefault(file, line)
        missing = {
            self._named(file): f"{where} lists {shorten(Path(file).stem)}, but there is no {self._named(file)}"
            for file in files
            if not self.folder.has(file)
        }
        if missing:
            head = f"{where}: {len(missing)} of {len(files)} listed annotations are missing:"
            remedy = "Restore them, or take them off the list."
            told = DataNotFoundError(enumerate_issues(head, list(missing.values()), remedy))
            self.options.faults("labels-missing", missing, told)
        return [file for file in files if self._named(file) not in missing]

    def _listed(self, text: str, where: str) -> str:
        """The XML file of a line: a name, perhaps with an image's suffix, perhaps with a flag behind it."""
        first = text.split()[0]
        stems = (text, first, os.path.splitext(first)[0] if is_image(first) else first)  # noqa: PTH122
        files = [self.folder.inside(self.place.annotations, f"{stem}.xml", where) for stem in stems]
        return next((file for file in files if self.folder.has(file)), files[-1])

    def _all_files(self, place: _Place) -> list[str]:
        names = self.folder.listing(place.annotations)
        return [str(place.annotations / name) for name in names if name.lower().endswith(".xml")]

    def _classes(self, files: dict[str, VocFile]) -> Classes:
        """The dataset's list of classes if it has one, else the names that any of its files uses."""
        for name in _CLASS_LISTS:
            if self.folder.has(self.folder.root / name):
                return listed_classes(self.folder.root / name, self.limits)
        names = {entry.name for file in files.values() for entry in file.objects}
        others = (path for place in self.places for path in self._all_files(place) if path not in files)
        names.update(name for path in others for name in class_names(Path(path), self.limits.xml_bytes))
        if not names:
            raise DataError(
                f"{self.folder.root}: none of its annotation files names an object, so there is no class to learn. "
                "If that is right, list the classes in labels.txt there, one a line."
            )
        return make_classes(sorted(names), range(1, len(names) + 1), f"{self.folder.root}: the names of its objects")

    def _images(self, files: dict[str, VocFile]) -> dict[str, str]:
        """XML file -> its image, relative to the root.

        Raises:
            DataNotFoundError: some have none.
        """
        by_stem = {
            place: {os.path.splitext(name)[0]: name for name in self.folder.images(place)}  # noqa: PTH122
            for place in self.place.images
        }
        found = {path: self._image(path, file, by_stem) for path, file in files.items()}
        missing = {
            self._named(path): f"{self._named(path)}: its image does not exist"
            for path, image in found.items()
            if not image
        }
        if missing:
            looked = ", ".join(dict.fromkeys(self._named(str(place)) for place in by_stem if by_stem[place]))
            head = f"{self.split}: {len(missing)} of {len(found)} annotations have no image:"
            remedy = f"Looked in {looked or 'vain for any image'}. Restore the image, or remove the annotation."
            error = DataNotFoundError(enumerate_issues(head, list(missing.values()), remedy))
            self.options.faults("image-missing", missing, error)
        return {path: image for path, image in found.items() if image}

    def _image(self, path: str, file: VocFile, by_stem: dict[Path, dict[str, str]]) -> str:
        """The image that is named like the XML file; else the one its <filename> says, which tools leave stale."""
        stem = Path(path).stem
        for place, names in by_stem.items():
            if stem in names:
                return self._named(str(place / names[stem]))
        if not file.image_name:
            return ""
        where = f"{self._named(path)}: <filename>"
        try:
            paths = [self.folder.inside(place, file.image_name, where) for place in by_stem]
        except DataError as error:
            self.options.fault("path-outside", error, self._named(path))
            return ""
        return next((self._named(path) for path in paths if self.folder.has(path)), "")

    def _add(self, entry: VocObject, path: str, labels: dict[str, int]) -> None:
        if entry.name not in labels:
            message = (
                f"{self._called(path, entry.number)} has class {shorten(entry.name)}, which the list of classes "
                f"({', '.join(_CLASS_LISTS)}) does not have.{nearest(entry.name, labels)}"
            )
            self.options.fault("id-unknown", DataError(message), self._named(path))
            return
        self.builder.add_object(
            entry.box, labels[entry.name], ignore=entry.difficult, origin=entry.number, extra=entry.extra
        )


def _place_of(split: str, places: tuple[_Place, ...]) -> _Place:
    named = (place for place in places if (place.names.stem if place.names else place.annotations.name) == split)
    return next(named, places[0])
