"""Writes a dataset as COCO, VOC or YOLO. What the target can hold is kept; what it can't is listed.

A dataset is written beside its place and then moved there, so that it is there whole or not at all.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fpn.data.formats.files import shorten
from fpn.data.formats.segmentation import unpack
from fpn.data.formats.survey import Survey
from fpn.errors import DataError, OutputError
from fpn.files import read_umask, refuse_unwritable, taken
from fpn.shapes import Size
from fpn.structures import Classes, Skeleton
from fpn.structures.masks import Segmentation

# What no list with a name a line, no XML and no UTF-8 can hold: control characters, ends of lines, halves of letters.
_UNLISTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# How the name of a folder ends that is not yet written whole.
_DRAFT = ".fpn-draft"
# Of losses: there are as many as a file has invented names of fields.
_MOST_LINES = 100


class Annotation(NamedTuple):
    """An object to write: float32 xyxy box in pixels, class, crowd or difficult, outline, and what else its file said.

    `area` is the outline's as the file said, or NaN; `keypoints` (J, 3) float32 x, y, visibility in pixels, or None.
    """

    box: np.ndarray
    label: int
    ignore: bool
    area: float
    outline: Segmentation | None
    extra: Mapping[str, Any]
    keypoints: np.ndarray | None = None


class ImageRecord(NamedTuple):
    """An image to write: `source` relative to the old folder, `target` its new name, unique up to the suffix."""

    source: str
    target: str
    image_id: int
    size: Size
    extra: Mapping[str, Any]
    annotations: list[Annotation]


@dataclass(frozen=True)
class Part:
    """A split to write; `images` can be walked more than once. `family`: which format it came from.

    `place`: (source, target) brings an image to its new place; None: `copy_image`.
    """

    name: str
    family: str
    classes: Classes
    header: Mapping[str, Any]
    sources: Sequence[str]
    images: Callable[[], Iterator[ImageRecord]]
    skeleton: Skeleton | None = None
    place: Callable[[Path, Path], None] | None = None

    def put(self, source: Path, target: Path) -> None:
        """Bring an image to its new place."""
        (self.place or copy_image)(source, target)


@dataclass
class Losses:
    """What could not be written, counted."""

    _counts: Counter[str] = field(default_factory=Counter)

    def add(self, what: str, count: int = 1) -> None:
        """Note that `what` was lost so many times."""
        if count:
            self._counts[what] += count

    def once(self, what: str) -> None:
        """Note a loss that has no number."""
        self._counts[what] = 1

    def lines(self) -> list[str]:
        """Each kind with its number."""
        lines = [f"{what}: {count}" if count > 1 else what for what, count in self._counts.items()]
        return lines[:_MOST_LINES] + [f"{len(lines) - _MOST_LINES} more"] * (len(lines) > _MOST_LINES)


def parts_of(splits: Mapping[str, Survey], family: str, names: Mapping[str, str]) -> list[Part]:
    """The splits as they were read; `names`: old path -> new name."""
    return [part_of(split, survey, family, names, range(len(survey.dataset))) for split, survey in splits.items()]


def part_of(
    split: str,
    survey: Survey,
    family: str,
    names: Mapping[str, str],
    rows: Sequence[int],
    place: Callable[[Path, Path], None] | None = None,
) -> Part:
    """Some images of a split, by their numbers, as a split to write."""

    def images() -> Iterator[ImageRecord]:
        return (record_of(survey, row, survey.dataset.size(row), names) for row in rows)

    sources = [survey.name_of(row) for row in rows]
    return Part(split, family, survey.dataset.classes, survey.header, sources, images, survey.dataset.skeleton, place)


def record_of(survey: Survey, row: int, size: Size, names: Mapping[str, str]) -> ImageRecord:
    """Image number `row` of a split with its objects, their boxes not cut at its edge."""
    table, source = survey.dataset.table, survey.name_of(row)
    start, end = table.starts[row : row + 2].tolist()
    scale = (size.width, size.height)
    boxes = survey.boxes[start:end]
    if table.fractions:
        boxes = boxes * np.array(scale * 2, dtype=np.float32)
    annotations = [
        Annotation(
            box=boxes[number - start],
            label=int(table.labels[number]),
            ignore=bool(table.ignore[number]),
            area=float(table.areas[number]),
            outline=_outline(survey, number, scale),
            extra=survey.object_extras[number],
            keypoints=_keypoints(survey, number, scale),
        )
        for number in range(start, end)
    ]
    return ImageRecord(source, names[source], survey.dataset.image_id(row), size, survey.image_extras[row], annotations)


def _outline(survey: Survey, number: int, scale: tuple[int, int]) -> Segmentation | None:
    table = survey.dataset.table
    if table.segmentations is None:
        return None
    return unpack(table.segmentations[number], scale=scale if table.fractions else None)


def _keypoints(survey: Survey, number: int, scale: tuple[int, int]) -> np.ndarray | None:
    table = survey.dataset.table
    if table.keypoints is None:
        return None
    factor = np.array([*scale, 1] if table.fractions else [1, 1, 1], dtype=np.float32)
    return np.asarray(table.keypoints[number].numpy() * factor)


def unique_names(paths: Sequence[str]) -> dict[str, str]:
    """A name without folders for each path, so that no two are alike up to their suffix.

    VOC and YOLO tell images apart by name without suffix; where two folders or two suffixes share one, the folder's
    name is put before it, or a number behind it. Their lists hold a name a line, without space around it: characters
    that would end the line become `_`.
    """
    taken: set[str] = set()
    names = {}
    stems = Counter(_listable(Path(path).stem).lower() for path in dict.fromkeys(paths))
    for path in dict.fromkeys(paths):
        stem, suffix = _listable(Path(path).stem), Path(path).suffix
        if stems[stem.lower()] > 1 and Path(path).parent.name:
            stem = _listable(f"{Path(path).parent.name}_{stem}")
        base, number = stem, 2
        while stem.lower() in taken:
            stem, number = f"{base}-{number}", number + 1
        taken.add(stem.lower())
        names[path] = stem + suffix
    return names


def _listable(stem: str) -> str:
    return _UNLISTABLE.sub("_", stem).strip() or "image"


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A folder to fill, which takes the name `output` when all went well and vanishes otherwise.

    An empty folder that is there already is filled and not replaced: it may be a link, a mounted disk, or where the
    caller's terminal stands, and the folder around it may not be theirs to write in.

    Raises:
        OutputError: there is something already, or it can't be written.
    """
    refuse_filled(output)
    place = output.resolve()
    is_there = place.is_dir()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{place.name}-", suffix=_DRAFT, dir=place if is_there else place.parent))
    except OSError as error:
        raise OutputError(f"{output}: can't write there ({error.strerror}). Choose another folder.") from error
    try:
        yield draft
        if is_there:
            _move_up(draft)
        else:
            draft.chmod(0o777 & ~read_umask())
            draft.replace(place)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        message = f"{output}: writing failed ({error.strerror or error}). Free some space or choose another folder."
        raise OutputError(message) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _move_up(draft: Path) -> None:
    """Move what is in a folder into the one around it: all, or nothing if one can't be moved.

    Raises:
        OutputError: something of the same name was put there meanwhile.
        OSError: it can't be moved.
    """
    moved: list[tuple[Path, Path]] = []
    try:
        for old in sorted(draft.iterdir()):
            new = draft.parent / old.name
            if new.exists() or new.is_symlink():
                raise OutputError(f"{new}: was put there meanwhile; nothing is ever written over. Try another folder.")
            old.rename(new)
            moved.append((old, new))
    except BaseException:
        for old, new in moved:
            new.rename(old)
        raise


def refuse_filled(output: Path) -> None:
    """Stop before any work if the result would lie on something.

    Raises:
        OutputError: `output` is a file, or a folder that is not empty, or nothing can be written there.
    """
    held = sorted(entry.name for entry in output.iterdir()) if output.is_dir() else []
    if output.is_dir() and not held:
        refuse_unwritable(output)
        return
    if held and all(name.endswith(_DRAFT) for name in held):
        raise OutputError(
            f"{output}: holds the hidden folder {held[0]}, which a run writes into or left when it was killed. If none "
            "is running, remove it."
        )
    if output.exists() or output.is_symlink():
        raise taken(output, "folder")
    refuse_unwritable(output)


def copy_image(source: Path, target: Path) -> None:
    """Copy an image's bytes.

    Raises:
        DataError: it can't be read.
        OSError: it can't be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return  # an image of two splits
    try:
        with source.open("rb"):
            pass
    except OSError as error:
        raise DataError(f"{source}: can't be read ({error.strerror}). Run: fpn check") from error
    shutil.copyfile(source, target)


def link_image(source: Path, target: Path, *, linked: list[Path]) -> None:
    """Give an image a second name, which takes no space; copy it where the file system can't, such as to another disk.

    Args:
        source: the image; where it is a link itself, what that leads to.
        target: the second name.
        linked: takes `target` if it was linked.

    Raises:
        DataError, OSError: as `copy_image`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except FileExistsError:
        return  # an image of two splits
    except OSError:
        copy_image(source, target)
    else:
        linked.append(target)


def attributes(said: Mapping[str, Any], family: str) -> Mapping[str, Any]:
    """What a file says beside that has names of its own: VOC's elements; COCO keeps such things in `attributes`."""
    if family == "voc":
        return said
    found = said.get("attributes")
    return found if isinstance(found, Mapping) else {}


def count_further(image: ImageRecord, losses: Losses) -> None:
    """Count what a COCO json says of an image and its objects beside its own fields and `attributes`."""
    for what, said in (("images", image.extra), *(("objects", annotation.extra) for annotation in image.annotations)):
        for key in said.keys() - _OWN_FIELDS:
            losses.add(f"field {shorten(key)} of {what}")


_OWN_FIELDS = frozenset({"id", "iscrowd", "ignore", "attributes"})


# Of images in two splits, where the target has one file of labels for each.
CONTRADICTED = "labels of images that another split labels differently: the first are kept"


def shortest(value: float) -> str:
    """The shortest decimal that is read back as the same float32."""
    return str(np.format_float_positional(np.float32(value), trim="-"))
