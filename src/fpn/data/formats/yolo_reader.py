"""YOLO: one text file an image with lines `class centre-x centre-y width height`, in fractions of the image.

Found by a data.yaml (path / train / val / test / names) or Darknet's obj.data, as folders images/ and labels/ side by
side, or as .txt files beside the images. A line with six or more coordinates is an outline, whose bounds are the box,
unless data.yaml says that keypoints stand behind the box. Category ids are the class indices 0..K-1. An image without a
label file is one without objects.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fpn.data.formats.darknet import DARKNET_LISTS, find_data_file, read_data_file
from fpn.data.formats.files import Folder, enumerate_issues, head_of, is_image, is_set_apart, read_lines, read_text
from fpn.data.formats.keypoints import checked_keypoints
from fpn.data.formats.layout import WHOLE, Layout, plain_split
from fpn.data.formats.locate import locate
from fpn.data.formats.table import TableDataset
from fpn.data.formats.table_builder import Options, TableBuilder
from fpn.data.formats.yolo_config import SPLITS, YoloConfig, YoloPose, looks_like_config, read_config
from fpn.data.formats.yolo_lines import Line, keypoints_of, looks_like_pose, read_line
from fpn.data.formats.yolo_names import CLASS_LISTS, find_names
from fpn.data.issues import Finding
from fpn.errors import DataError, DataNotFoundError
from fpn.structures import Classes

# Text files that lie among labels without being any.
_NOT_LABELS = frozenset(
    {*CLASS_LISTS, *DARKNET_LISTS, "notes.txt", "README.txt", "readme.txt", "README.dataset.txt", "README.roboflow.txt"}
)
# Of a folder's text files, how many are looked at before it is taken for one without labels.
_LOOKED_AT = 20
# What a folder that is a split is called, see `plain_split`.
_SPLITS = frozenset({*SPLITS, "trainval"})
# Class indices that are believed without a list of names; above it is a typing error, not a dataset.
_MAX_UNNAMED = 10_000


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the images and the class names of one split come from.

    Attributes:
        root: the folder of the images.
        places: folders of images, or .txt lists of them, relative to the root.
        all_places: those of all splits, for class names that no file lists.
        config: what data.yaml says, if there is one.
        labels: the folder of the labels, if they lie apart from the images, in the same folders inside.
    """

    root: Path
    places: tuple[str, ...]
    all_places: tuple[str, ...]
    config: YoloConfig | None = None
    labels: Path | None = None


def find_configured(path: Path, images: Path | None = None) -> Layout | str:
    """Recognise a data.yaml at a file or in a folder; otherwise what was missing.

    Raises:
        DataError: there are several, and they say different things.
    """
    if path.is_file():
        if path.suffix.lower() not in (".yaml", ".yml"):
            return "not a .yaml file"
        files = [path]
    else:
        files = [file for ending in ("*.yaml", "*.yml") for file in sorted(path.glob(ending))]
        files = [file for file in files if looks_like_config(file)]
    if not files:
        return "no .yaml with names and train or val"
    # The file's own `path` may lead elsewhere only if the file itself was named by the caller.
    configs = [read_config(file, trusted=path.is_file(), root=images) for file in files]
    if any((each.splits, each.classes) != (configs[0].splits, configs[0].classes) for each in configs):
        several = ", ".join(file.name for file in files)
        raise DataError(f"{path}: several .yaml files ({several}) describe it differently: give one of them.")
    return _configured(configs[0], files[0])


def find_darknet(path: Path, images: Path | None = None) -> Layout | str:
    """Recognise Darknet's obj.data, as CVAT writes it, at a file or in a folder; otherwise what was missing."""
    file = find_data_file(path)
    if file is None:
        return "no obj.data with classes and names"
    return _configured(read_data_file(file, images), file)


def _configured(config: YoloConfig, file: Path) -> Layout:
    everything = tuple(place for places in config.splits.values() for place in places)
    sources = {name: _Source(config.root, places, everything, config) for name, places in config.splits.items()}
    findings = [
        Finding("name-repaired", f"{file.name}: {entry!r} is taken for {place}", file.name)
        for entry, place in config.repaired.items()
    ]
    readers = {name: partial(_read, source, name) for name, source in sources.items()}
    return Layout(f"YOLO {file.name}", readers, findings, config.absent)


def find_label_folders(path: Path, images: Path | None = None) -> Layout | str:
    """Recognise images with label files at a folder; otherwise what was missing."""
    if path.is_file():
        return "not a folder"
    if images is not None:
        return _find_apart(path, images)
    folder = Folder(path)
    places = _label_folders(folder)
    if not places:
        return "no images/ with labels/, no train/images with train/labels, no .txt beside the images"
    everything = tuple(places.values())
    sources = {name: _Source(path, (place,), everything) for name, place in places.items()}
    return Layout("YOLO label files", {name: partial(_read, source, name) for name, source in sources.items()})


def _find_apart(path: Path, images: Path) -> Layout | str:
    """Labels in one folder, images in another: the same folders inside of both."""
    labels = path / "labels" if (path / "labels").is_dir() else path
    if not any(file.endswith(".txt") and is_label_file(Path(file)) for file in Folder(labels).walk(labels)):
        return "no label files of YOLO"
    parts = [name for name in Folder(images).folders(images) if (labels / name).is_dir()]
    places = {name: name for name in parts} or {WHOLE: "."}
    sources = {name: _Source(images, (place,), tuple(places.values()), labels=labels) for name, place in places.items()}
    return Layout("YOLO label files", {name: partial(_read, source, name) for name, source in sources.items()})


def _label_folders(folder: Folder) -> dict[str, str]:
    root = folder.root
    if folder.listing(root / "images") and folder.has(root / "labels"):
        if parts := _parts(folder, root / "images"):
            return {name: f"images/{name}" for name in parts}
        return {WHOLE: "images"}
    parts = [name for name in folder.folders(root) if folder.listing(root / name / "images")]
    divided = {name: f"{name}/images" for name in parts if folder.has(root / name / "labels")}
    if divided:
        return _without_datasets(folder, divided)
    if _has_labels_beside(folder, root):
        return {WHOLE: "."}
    beside = {name: name for name in folder.folders(root) if _has_labels_beside(folder, root / name)}
    return _without_datasets(folder, beside)


def _parts(folder: Folder, images: Path) -> list[str]:
    """The folders that a folder of images is divided into: none if images lie in it themselves."""
    return [] if folder.images(images) else [name for name in folder.folders(images) if folder.listing(images / name)]


def _without_datasets(folder: Folder, places: Mapping[str, str]) -> dict[str, str]:
    """The splits among folders; a dataset of its own is none: as one its own splits would be run together.

    Raises:
        DataError: there are several datasets, or one beside others.
    """
    own = [name for name in places if _is_dataset(folder, name)]
    if own and len(places) > 1:
        others = [name for name in places if name not in own]
        beside = f", and beside it {', '.join(others[:8])}" if others else ""
        raise DataError(
            f"{folder.root}: holds {'datasets of their own' if len(own) > 1 else 'a dataset of its own'} "
            f"({', '.join(own[:8])}){beside}. Give one folder, such as {folder.root / own[0]}."
        )
    return {} if own else dict(places)


def _is_dataset(folder: Folder, name: str) -> bool:
    """Whether a folder says itself how it is divided: by a file, or by folders in its images/."""
    root = folder.root / name
    files = (root / each for each in folder.listing(root) if each.lower().endswith((".yaml", ".yml")))
    if find_data_file(root) is not None or any(looks_like_config(file) for file in files):
        return True
    parts = _parts(folder, root / "images")
    # A split may have folders inside of it, such as one for each film.
    named = (plain_split(each) in _SPLITS for each in parts)
    return bool(parts) and (plain_split(name) not in _SPLITS or any(named))


def _has_labels_beside(folder: Folder, place: Path) -> bool:
    names = folder.listing(place)
    beside = (_stem(name) + ".txt" for name in folder.images(place))
    files = [place / name for name in beside if name in names and name not in _NOT_LABELS]
    return any(is_label_file(file) for file in files[:_LOOKED_AT])


def is_label_file(file: Path) -> bool:
    """Whether a text begins as a label file does, with a class and four numbers: others hold captions, or licences."""
    if file.name in _NOT_LABELS:
        return False
    words = head_of(file, 256).removeprefix(b"\xef\xbb\xbf").split(b"\n")[0].split()
    try:
        return len(words) >= 5 and all(float(word) == float(word) for word in words[:5])
    except ValueError:
        return False


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122  # a hundred thousand of them: Path is ten times slower


def _read(source: _Source, split: str, options: Options) -> TableDataset:
    return _Reader(source, split, options).read()


class _Reader:
    """One split on its way to a table."""

    def __init__(self, source: _Source, split: str, options: Options) -> None:
        self.source, self.split, self.options, self.limits = source, split, options, options.limits
        self.folder = Folder(source.root)
        self.texts = self.folder if source.labels is None else Folder(source.labels)
        self.builder = TableBuilder(self.folder.root, options, fractions=True)
        self.pose: YoloPose | None = None if source.config is None else source.config.pose
        self.shape = None if self.pose is None else (len(self.pose.skeleton), self.pose.numbers)
        self.outlines: Counter[tuple[int, bool]] = Counter()

    def read(self) -> TableDataset:
        images = self._check(list(self._images(self.source.places)))
        files = self._labels(images)
        classes = self._classes()
        for number, image in enumerate(images, start=1):
            self.builder.add_image(self.folder.relative(image), number, None)
            for line, text in self._lines(files[image]):
                self._add(text, self.texts.relative(files[image]), line, classes)
        self._check_outlines()
        labels = [self.texts.relative(files[image]) for image in images]
        name = self.folder.root.name if self.split == WHOLE else f"{self.folder.root.name}/{self.split}"
        return self.builder.finish(
            classes,
            name,
            lambda row, line: f"{labels[row]}, line {line}",
            skeleton=None if self.pose is None else self.pose.skeleton,
        )

    def _images(self, places: tuple[str, ...]) -> Iterator[str]:
        for place in places:
            path = self.folder.root / place
            if place.endswith(".txt"):
                yield from self._listed(path)
            elif self.folder.listing(path):
                yield from (file for file in self.folder.walk(str(path)) if is_image(os.path.basename(file)))  # noqa: PTH119
            else:
                raise DataNotFoundError(
                    f"{self.folder.root}: the images of split {self.split!r} should be in {place}, which does not "
                    "exist or is empty. Restore the folder, or correct the entry in the .yaml file."
                )

    def _listed(self, file: Path) -> Iterator[str]:
        """The images of a list: relative to the list's folder (`./a.jpg`) or to the dataset's."""
        where = self.folder.relative(file)
        self.options.used(file)
        names = read_lines(file, self.limits.text_bytes)
        bases = (file.parent, self.folder.root)
        found = locate(self.folder, dict.fromkeys(names), lambda _: bases, where, split=self.split, wanted=is_image)
        for error in found.outside.values():
            self.options.fault("path-outside", error, where)
        if found.repaired:
            self.options.remark("name-repaired", found.told(where), found.summary(where))
        yield from (found.paths[name] for name in names if name in found.paths)

    def _check(self, images: list[str]) -> list[str]:
        """The images, each once. Every one exists."""
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
        return [path for path in dict.fromkeys(images) if self.folder.relative(path) not in missing]

    def _labels(self, images: list[str]) -> dict[str, str]:
        """Image -> its label file, or where that would be. Every label file has its image."""
        files = {image: self._label_file(image) for image in images}
        repaired = {}
        for image, file in files.items():
            if not self.texts.has(file):
                # The same name in another writing; or the file beside the image, if there is none in labels/.
                beside = _stem(image) + ".txt" if self.source.labels is None else file
                found = self.texts.alike(file) or (beside if self.texts.has(beside) else self.texts.alike(beside))
                if found is not None and os.path.basename(found) not in _NOT_LABELS:  # noqa: PTH119
                    files[image] = found
                    if os.path.basename(found) != os.path.basename(file):  # noqa: PTH119
                        repaired[self.texts.relative(found)] = self.folder.relative(image)
        if repaired:
            told = {file: f"{file} is taken for the labels of {image}" for file, image in repaired.items()}
            more = f", and so on for {len(told) - 1} more" if len(told) > 1 else ""
            self.options.remark("name-repaired", told, next(iter(told.values())) + more)
        self.options.used(*files.values())
        # A list may leave images out on purpose, so only folders are held to having an image for each label file.
        if not any(place.endswith(".txt") for place in self.source.places):
            self._check_orphans(files.values())
        return files

    def _label_file(self, image: str) -> str:
        if self.source.labels is None:
            return _label_file(image, self.folder.root)
        inside = os.path.relpath(_stem(image) + ".txt", self.folder.root)
        return os.path.join(self.texts.root, inside)  # noqa: PTH118

    def _check_orphans(self, files: Iterable[str]) -> None:
        expected = set(files)
        orphans = {
            self.texts.relative(file): f"{self.texts.relative(file)} has no image"
            for place in dict.fromkeys(os.path.split(file)[0] for file in expected)
            for name in self.texts.listing(place)
            if name.lower().endswith(".txt") and name not in _NOT_LABELS and not is_set_apart(name)
            if (file := os.path.join(place, name)) not in expected  # noqa: PTH118
        }
        if orphans:
            head = f"{self.split}: {len(orphans)} label files have no image:"
            remedy = "Restore the image, or remove the label file."
            error = DataNotFoundError(enumerate_issues(head, list(orphans.values()), remedy))
            self.options.faults("image-missing", orphans, error)

    def _classes(self) -> Classes:
        config = self.source.config
        if config is not None and config.classes is not None:
            return config.classes
        count = None if config is None else config.count
        listed = find_names(self.texts, self.source.all_places, self.limits)
        if listed is not None:
            classes, file = listed
            self.options.used(file)
            if count not in (None, len(classes)):
                raise DataError(f"{file}: {len(classes)} names, but nc is {count}. Correct one of them.")
            return classes
        highest = -1 if count is None else count - 1
        if count is None:
            highest = max((self._highest(place) for place in self.source.all_places), default=-1)
        if highest < 0:
            raise DataError(
                f"{self.folder.root}: no label file has an object, so there is no class to learn. If that is right, "
                "list the classes in classes.txt there, one a line."
            )
        told = f"{self.folder.root}: no file lists the names of its classes: they are called 0 to {highest}"
        self.options.remark("class-unnamed", {"": told}, told)
        return Classes(tuple(str(k) for k in range(highest + 1)), tuple(range(highest + 1)))

    def _highest(self, place: str) -> int:
        """The highest class index of a split; another split's broken lines are told when it is opened."""
        files = (self._label_file(image) for image in self._images((place,)))
        words = (text.split()[0] for file in files for _, text in self._lines(file))
        # A number of many digits would take long to read, or be refused with a ValueError.
        indices = (int(word) for word in words if word.isdecimal() and len(word) <= len(str(_MAX_UNNAMED)))
        return max((index for index in indices if index < _MAX_UNNAMED), default=-1)

    def _lines(self, file: str) -> Iterator[tuple[int, str]]:
        """Line numbers and texts of a label file, if it is there."""
        if not self.texts.has(file):
            return
        try:
            text = read_text(Path(file), self.limits.text_bytes)
        except DataError as error:
            self.options.fault("annotations-unreadable", error, self.texts.relative(file))
            return
        lines = enumerate(text.splitlines(), start=1)
        yield from ((number, line) for number, line in lines if line.strip())

    def _add(self, text: str, file: str, line: int, classes: Classes) -> None:
        where = f"{file}, line {line}"
        try:
            read = read_line(text, self.shape)
        except ValueError as error:
            self.options.fault("entry-broken", DataError(f"{where}: {error}"), file)
            return
        if read.confidence is not None:
            message = (
                f"{where}: a box and a fifth number, {read.confidence:g}: a model's confidence? Remove it if the "
                "box is a label."
            )
            self.options.fault("line-scored", DataError(message), file)
        if read.label not in range(len(classes)):
            message = (
                f"{where}: class {text.split()[0]} is unknown, there are {len(classes)} classes "
                f"(0 to {len(classes) - 1})"
            )
            self.options.fault("id-unknown", DataError(message), file)
            return
        if read.polygon is not None:
            self.outlines[len(read.polygon), looks_like_pose(read)] += 1
        outline = None if read.polygon is None else [read.polygon]
        points = self._points(read, where, file)
        self.builder.add_object(read.box, int(read.label), origin=line, segmentation=outline, keypoints=points)

    def _points(self, read: Line, where: str, file: str) -> Sequence[float]:
        """The line's keypoints as x, y, visibility: zeros where it has none."""
        if self.pose is None:
            return ()
        try:
            return checked_keypoints(keypoints_of(read, self.pose.numbers), self.pose.skeleton)
        except ValueError as error:
            self.options.fault("keypoints-broken", DataError(f"{where}: {error}"), file)
            return checked_keypoints([], self.pose.skeleton)

    def _check_outlines(self) -> None:
        """Stop if what was read as outlines are boxes with keypoints: they all look like it, and are of one length."""
        if len(self.outlines) != 1:
            return
        ((length, is_pose),) = self.outlines
        if is_pose:
            message = (
                f"{self.split}: each line has {length} numbers after the class, of which the first four are a box that "
                "holds all the others: keypoints, not an outline? Say so in data.yaml, such as kpt_shape: "
                f"[{(length - 4) // 2}, 2], or leave them out."
            )
            raise DataError(message)


def _label_file(image: str, root: Path) -> str:
    """The label file of an image: the last folder called `images` replaced by `labels`, or beside the image."""
    inner = list(Path(os.path.relpath(image, root)).parts)
    folders = inner[:-1]
    if "images" in folders:
        last = len(folders) - 1 - folders[::-1].index("images")
        inner[last] = "labels"
    return os.path.join(root, *inner[:-1], _stem(inner[-1]) + ".txt")  # noqa: PTH118
