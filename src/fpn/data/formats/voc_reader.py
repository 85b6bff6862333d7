"""Pascal VOC: one XML file an image, in a tree with ImageSets/Main, in a folder of any name, or beside the images.

Boxes are taken as written (xmin, ymin, xmax, ymax, half-open; docs/decisions/0012-voc-boxes-as-written.md). `difficult`
becomes `ignore`. Images with a PNG in SegmentationObject have masks. Classes are all names that any XML file of the
dataset uses, sorted, with the ids 1..K, so that every split has the same; a labels.txt or classes.txt (one name a line)
fixes names and order instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fpn.data.formats.files import (
    SHOWN_ISSUES,
    Folder,
    enumerate_issues,
    head_of,
    is_image,
    listed_classes,
    make_classes,
    read_lines,
    shorten,
)
from fpn.data.formats.layout import WHOLE, Layout
from fpn.data.formats.locate import locate
from fpn.data.formats.named_images import find_named_images
from fpn.data.formats.split_folders import split_folders
from fpn.data.formats.table import TableDataset
from fpn.data.formats.table_builder import Options, TableBuilder
from fpn.data.formats.voc_images import ImageIndex
from fpn.data.formats.voc_masks import MASK_FOLDER, read_masks
from fpn.data.formats.voc_xml import VocFile, VocObject, class_names, read_voc
from fpn.data.issues import Finding
from fpn.errors import DataError, DataNotFoundError
from fpn.structures import Classes
from fpn.suggestions import nearest

LISTS = "ImageSets/Main"
_LIST_FOLDERS = (LISTS, "ImageSets", "ImageSets/Segmentation")
_ANNOTATION_FOLDERS = ("Annotations", "annotations", "annots", "xml", "xmls")
_IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "img", "imgs")
# Their images have the names of those that were labelled.
_MASK_FOLDERS = frozenset({"SegmentationClass", MASK_FOLDER, "SegmentationClassRaw"})
_CLASS_LISTS = ("labels.txt", "classes.txt")
# How many files, and how much of each, are looked at to know a folder or a list by its content.
_LOOKED_AT, _HEAD = 20, 1 << 12


class _Place(NamedTuple):
    """Where a split's files are: the folder of annotations, and the list of their names, if there is one."""

    annotations: Path
    names: Path | None = None


def find(path: Path, images: Path | None = None) -> Layout | str:
    """Recognise a VOC dataset at a folder; otherwise what was missing. `images` is asked when it is read."""
    if path.is_file():
        return "not a folder" if path.suffix.lower() != ".xml" else "a single .xml file: give the folder it lies in"
    folder = Folder(path)
    places = _places(folder)
    if not places:
        return "no Annotations/*.xml or other folder with .xml files that hold an <annotation>"
    lists, aside = _split_lists(folder, next(iter(places.values())).annotations)
    if lists and len(places) == 1:
        (place,) = places.values()
        places = {name: place._replace(names=file) for name, file in lists.items()}
    shown = f"{LISTS}/*.txt" if lists else "*.xml"
    findings = [Finding("file-aside", f"{name}: one class's list of images", name) for name in aside]
    readers = {split: partial(_read, path, split, tuple(places.values())) for split in places}
    return Layout(f"VOC {shown}", readers, findings)


def _places(folder: Folder) -> dict[str, _Place]:
    """Split -> where it is; empty if nothing here is VOC."""
    root = folder.root
    for name in _ANNOTATION_FOLDERS:
        if folder.folders(root / name) or folder.listing(root / name):
            found = _divided(folder, root / name)
            if found:
                return found
    return _divided(folder, root, deeper=True)


def _divided(folder: Folder, annotations: Path, *, deeper: bool = False) -> dict[str, _Place]:
    found = split_folders(folder, annotations, ".xml", is_voc_file, deeper=deeper)
    return {name: _Place(place) for name, place in found.items()}


def is_voc_file(file: Path) -> bool:
    """Whether an XML file holds an annotation, or is too broken to tell; another tool's has another root."""
    head = head_of(file, _HEAD).lstrip(b"\xef\xbb\xbf \r\n\t")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        head = head.decode("utf-16", "ignore").encode()
    tags = _TAG.findall(head)
    return not tags or tags[0] == b"annotation"


# The first element: neither a declaration nor a comment.
_TAG = re.compile(rb"<([A-Za-z_][\w.-]*)")


def _split_lists(folder: Folder, annotations: Path) -> tuple[dict[str, Path], list[str]]:
    """The lists of ImageSets/Main; and those of one class (`cat_train.txt`, whose lines end in 1, 0 or -1)."""
    places = [folder.root / name for name in _LIST_FOLDERS]
    place = next((each for each in places if _texts(folder, each)), places[0])
    files = [place / name for name in _texts(folder, place)]
    aside = [file for file in files if _of_one_class(file, folder, annotations)]
    lists = {file.stem: file for file in files if file not in aside}
    return lists, [folder.relative(file) for file in aside]


def _texts(folder: Folder, place: Path) -> list[str]:
    return [name for name, is_folder in folder.listing(place).items() if name.endswith(".txt") and not is_folder]


def _of_one_class(file: Path, folder: Folder, annotations: Path) -> bool:
    """Whether all lines are a name and a flag: `img 0` may be a name, too, which its annotation shows."""
    lines = [line.decode("utf-8", "replace").strip() for line in head_of(file, _HEAD).splitlines()[:_LOOKED_AT]]
    flagged = [line.split() for line in lines if line]
    if not flagged or not all(len(words) == 2 and words[1] in ("-1", "0", "1") for words in flagged):
        return False
    return not any(folder.has(annotations / f"{line}.xml") for line in lines if line)


def _read(root: Path, split: str, places: tuple[_Place, ...], options: Options) -> TableDataset:
    return _Reader(root, split, places, options).read()


class _Reader:
    """One split on its way to a table."""

    def __init__(self, root: Path, split: str, places: tuple[_Place, ...], options: Options) -> None:
        self.folder, self.options, self.split = Folder(root), options, split
        self.places, self.place = places, _place_of(split, places)
        self.pictured = self.folder if options.images is None else Folder(options.images)
        self.builder = TableBuilder(self.pictured.root, options)
        self.limits = options.limits
        self.mended: dict[str, str] = {}

    def read(self) -> TableDataset:
        files = {path: file for path in self._files() if (file := self._parse(path)) is not None}
        classes = self._classes(files)
        labels = {name: label for label, name in enumerate(classes)}
        images = self._images(files)
        paths = list(images)
        for number, (path, image) in enumerate(images.items(), start=1):
            self.builder.add_image(image, number, files[path].size, extra=files[path].extra)
            masks = self._masks(path, files[path])
            for entry in files[path].objects:
                self._add(entry, path, labels, masks.get(entry.number))
        if self.mended:
            more = f", and so on for {len(self.mended) - 1} more" if len(self.mended) > 1 else ""
            self.options.remark("box-mended", self.mended, next(iter(self.mended.values())) + more)
        name = self.folder.root.name if self.split == WHOLE else f"{self.folder.root.name}/{self.split}"
        return self.builder.finish(classes, name, lambda row, position: self._called(paths[row], position))

    def _parse(self, path: str) -> VocFile | None:
        where = self._named(path)
        self.options.used(path)
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
        self.options.used(self.place.names)
        lines = read_lines(self.place.names, self.limits.text_bytes)
        found = self._listed(lines, where)
        files: dict[str, int] = {}
        for line, text in enumerate(lines, start=1):
            file = found.get(text)
            if file is None:
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

    def _listed(self, lines: list[str], where: str) -> dict[str, str]:
        """Line -> its XML file: a name, perhaps with an image's suffix, perhaps with a flag behind it."""
        names = {text: self._xml_name(text) for text in lines}
        found = locate(
            self.folder,
            dict.fromkeys(names.values()),
            lambda _: (self.place.annotations,),
            where,
            split=self.split,
            wanted=lambda name: name.lower().endswith(".xml"),
        )
        for error in found.outside.values():
            self.options.fault("path-outside", error, where)
        if found.repaired:
            self.options.remark("name-repaired", found.told(where), found.summary(where))
        return {text: found.paths[name] for text, name in names.items() if name in found.paths}

    def _xml_name(self, text: str) -> str:
        first = text.split()[0]
        stems = [text, first, *(os.path.splitext(each)[0] for each in (text, first) if is_image(each))]  # noqa: PTH122
        there = (stem for stem in stems if self.folder.has(self.place.annotations / f"{stem}.xml"))
        return next(there, stems[-1]) + ".xml"

    def _all_files(self, place: _Place) -> list[str]:
        return [path for path in self.folder.walk(str(place.annotations)) if path.lower().endswith(".xml")]

    def _classes(self, files: dict[str, VocFile]) -> Classes:
        """The dataset's list of classes if it has one, else the names that any of its files uses."""
        for name in _CLASS_LISTS:
            if self.folder.has(self.folder.root / name):
                self.options.used(self.folder.root / name)
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
        index = ImageIndex(self.pictured, self._image_places())
        found: dict[str, str] = {}
        unlike: dict[str, str] = {}
        for path, file in files.items():
            images = index.images_of(os.path.relpath(path, self.place.annotations), file.image_name)
            if len(images) > 1:
                shown = ", ".join(images[:SHOWN_ISSUES])
                message = (
                    f"{self._named(path)}: {shown} have its name, and <filename> says none of them. Name it there."
                )
                self.options.fault("entry-broken", DataError(message), self._named(path))
            elif images:
                found[path] = images[0]
            elif file.image_name:
                unlike[path] = file.image_name
        found |= self._named_images(unlike)
        missing = {
            self._named(path): f"{self._named(path)}: its image does not exist"
            for path in files
            if path not in found and not index.has_several(os.path.relpath(path, self.place.annotations))
        }
        if missing:
            looked = ", ".join(self.pictured.relative(place) for place in index.filled())
            head = f"{self.split}: {len(missing)} of {len(files)} annotations have no image:"
            remedy = (
                f"Looked in {looked or 'vain for any image'}. Restore the image, remove the annotation, or say where "
                "the images are (--images)."
            )
            error = DataNotFoundError(enumerate_issues(head, list(missing.values()), remedy))
            self.options.faults("image-missing", missing, error)
        return {path: found[path] for path in files if path in found}

    def _image_places(self) -> list[Path]:
        """Folders of images, the likeliest first."""
        if self.options.images is not None:
            return [self.pictured.root]
        root, own = self.folder.root, self.place.annotations
        split = [] if self.split == WHOLE else [root / name / self.split for name in _IMAGE_FOLDERS]
        # In a split's own folder images lie in it, else in the folder that all share.
        near = [own] if own.parent == root and own.name not in _ANNOTATION_FOLDERS else []
        others = [root / name for name in self.folder.folders(root) if name not in _MASK_FOLDERS]
        return list(dict.fromkeys([*near, *split, *(root / name for name in _IMAGE_FOLDERS), root, own, *others]))

    def _named_images(self, names: dict[str, str]) -> dict[str, str]:
        """XML file -> the image that its <filename> says, of those that are called otherwise."""
        return find_named_images(
            self.pictured,
            names,
            self._image_places(),
            self.options,
            called={path: self._named(path) for path in names},
            field="<filename>",
            split=self.split,
        )

    def _masks(self, path: str, file: VocFile) -> Mapping[int, Any]:
        """Object number -> outline, of those that have one."""
        self.options.used(self.folder.root / MASK_FOLDER / f"{Path(path).stem}.png")
        try:
            return read_masks(self.folder, Path(path).stem, file.size, self.limits)
        except DataError as error:
            self.options.fault("outline-broken", error, self._named(path))
            return {}

    def _add(self, entry: VocObject, path: str, labels: dict[str, int], segmentation: Any) -> None:
        if entry.name not in labels:
            message = (
                f"{self._called(path, entry.number)} has class {shorten(entry.name)}, which the list of classes "
                f"({', '.join(_CLASS_LISTS)}) does not have.{nearest(entry.name, labels)}"
            )
            self.options.fault("id-unknown", DataError(message), self._named(path))
            return
        if entry.mended:
            called = self._called(path, entry.number)
            self.mended[called] = f"{called} {entry.mended}: its bounds are taken"
        self.builder.add_object(
            entry.box,
            labels[entry.name],
            ignore=entry.difficult,
            origin=entry.number,
            segmentation=segmentation,
            extra=entry.extra,
        )


def _place_of(split: str, places: tuple[_Place, ...]) -> _Place:
    named = (place for place in places if (place.names.stem if place.names else place.annotations.name) == split)
    return next(named, places[0])
