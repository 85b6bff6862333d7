"""From what a reader found, object by object, to a checked table. All formats' boxes are judged here, once."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fpn.data.formats.files import enumerate_issues
from fpn.data.formats.segmentation import pack
from fpn.data.formats.survey import Notes, Survey
from fpn.data.formats.table import Table, TableDataset, Texts
from fpn.data.limits import Limits
from fpn.errors import DataError, FpnError, ImageError
from fpn.image_io import image_size
from fpn.image_values import PixelRange
from fpn.shapes import Size, in_pixels
from fpn.structures import Classes, Skeleton

# Rounding, the 1-based habit of old tools and off-by-one sizes reach this far; beyond it is worth counting.
QUIET_PIXELS = 2.0
QUIET_FRACTION = 0.01


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller of `open_dataset` chose.

    Attributes:
        drop_invalid: leave out boxes that are not valid.
        limits: sizes that are accepted.
        notes: where a check collects everything that would stop a reader; None: the first such thing is raised.
        pixel_range: of images of more than 8 bits, see `read_image`.
        images: the folder of the images, if they lie elsewhere than their annotations.
        skip_unreadable: go on where an image can't be read; who loads it leaves it out.
        remarks: what a reader says without stopping; a check has it in `notes`.
    """

    drop_invalid: bool = False
    limits: Limits = field(default_factory=Limits)
    notes: Notes | None = None
    pixel_range: PixelRange | None = None
    images: Path | None = None
    skip_unreadable: bool = False
    remarks: list[str] = field(default_factory=list)

    def remark(self, kind: str, told: Mapping[str, str], summary: str) -> None:
        """Say what was taken for something else than it is written: to a check each, else all in one line.

        Args:
            kind: a key of `KINDS`.
            told: file -> message.
            summary: of all of them.
        """
        if self.notes is None:
            self.remarks.append(summary)
        else:
            self.faults(kind, told, DataError(summary))

    def used(self, *files: str | Path) -> None:
        """Tell a check that these annotation files were read."""
        if self.notes is not None:
            self.notes.used.update(map(str, files))

    def fault(self, kind: str, error: FpnError, file: str = "") -> None:
        """Stop with the error; in a check note it, so that the reader leaves its cause out and goes on.

        Args:
            kind: a key of `KINDS`.
            error: what to raise.
            file: what it is about, relative to the dataset's folder.
        """
        if self.notes is None:
            raise error
        self.notes.add(kind, str(error), file)

    def faults(self, kind: str, messages: Mapping[str, str], error: FpnError) -> None:
        """`fault` for several of a kind, of which `error` tells all: file -> message."""
        if self.notes is None:
            raise error
        for file, message in messages.items():
            self.notes.add(kind, message, file)


class TableBuilder:
    """Collects images and, after each, its objects; `finish` judges the boxes and makes the dataset."""

    def __init__(self, root: Path, options: Options, *, fractions: bool = False) -> None:
        self.root, self.options, self.fractions = root, options, fractions
        self._names: list[bytes] = []
        self._image_ids, self._sizes, self._counts = array("q"), array("i"), array("q")
        self._boxes, self._areas = array("d"), array("d")
        self._labels, self._ignore, self._origins = array("q"), bytearray(), array("q")
        self._keypoints = array("f")
        self._outlines: list[bytes] = []
        self._image_extras: list[Mapping[str, Any]] = []
        self._object_extras: list[Mapping[str, Any]] = []

    def add_image(self, name: str, image_id: int, size: Size | None, *, extra: Mapping[str, Any] | None = None) -> None:
        """Start an image; without `size` its header is asked, at once for boxes in pixels, later for fractions.

        A check looks at each image itself, later. `extra` is what its file says beside; only a check keeps it.
        """
        if size is None and not self.fractions and self.options.notes is None:
            size = self._seen(name)
        most = self.options.limits.image_pixels
        if size is not None and size.height * size.width > most:
            self.options.fault(
                "size-differs",
                DataError(
                    f"{name}: annotated as {size.width} x {size.height}, more than the limit of "
                    f"{in_pixels(most)}. Correct the size, cut the image into tiles, or raise the limit "
                    "(--max-pixels)."
                ),
                name,
            )
        if self.options.notes is not None:
            self._image_extras.append(extra or {})
        self._names.append(name.encode("utf-8", "surrogateescape"))
        self._image_ids.append(image_id)
        self._sizes.extend(size or (0, 0))
        self._counts.append(0)

    def _seen(self, name: str) -> Size | None:
        try:
            return Size(*image_size(self.root / name, max_bytes=self.options.limits.image_bytes))
        except ImageError:
            if not self.options.skip_unreadable:
                raise
            return None

    def add_object(
        self,
        box: tuple[float, float, float, float],
        label: int,
        *,
        ignore: bool = False,
        area: float = float("nan"),
        origin: int,
        segmentation: object = None,
        keypoints: Sequence[float] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Add an object to the last image.

        Args:
            box: xyxy as written.
            label: 0..K-1.
            ignore: crowd or difficult.
            area: of its outline, if the file says.
            origin: what its file calls it: its number, line or id.
            segmentation: polygons or run-length code.
            keypoints: x, y, visibility of each of the J; for each object of the dataset or for none.
            extra: what the file says beside; only a check keeps it.

        Raises:
            ValueError: the segmentation is of no known form. Nothing was added.
        """
        outline = pack(segmentation)
        if self._counts[-1] >= self.options.limits.objects_per_image:
            self._refuse_more()
            return
        self._counts[-1] += 1
        self._boxes.extend(box)
        self._areas.append(area)
        self._labels.append(label)
        self._ignore.append(ignore)
        self._origins.append(origin)
        self._outlines.append(outline)
        self._keypoints.extend(keypoints)
        if self.options.notes is not None:
            self._object_extras.append(extra or {})

    def _refuse_more(self) -> None:
        name = self._names[-1].decode("utf-8", "surrogateescape")
        limit = self.options.limits.objects_per_image
        message = f"{self.root / name}: more than {limit} objects. If that is right, raise the limit (--max-objects)."
        self.options.fault("entry-broken", DataError(message), name)

    def finish(
        self,
        classes: Classes,
        name: str,
        describe: Callable[[int, int], str],
        *,
        header: Mapping[str, Any] | None = None,
        skeleton: Skeleton | None = None,
    ) -> TableDataset:
        """Judge the boxes and make the dataset.

        Args:
            classes: of the dataset, all splits together.
            name: of the dataset.
            describe: (image number, origin) -> where that object stands, such as "a.xml: object 2".
            header: what the annotation file says beside its lists; only a check keeps it.
            skeleton: what the objects' keypoints are.

        Raises:
            DataError: no images, or invalid boxes without `drop_invalid`.
        """
        if not self._names:
            raise DataError(f"{self.root}: {name} has no images")
        counts = np.frombuffer(self._counts, dtype=np.int64)
        with np.errstate(over="ignore"):
            boxes = np.array(self._boxes, dtype=np.float64).reshape(-1, 4).astype(np.float32)
        owner = np.repeat(np.arange(len(counts)), counts)
        bounds = self._bounds(owner)
        if self.options.notes is not None:
            boxes = self._straightened(boxes, owner, classes, describe)
        bad = invalid_boxes(boxes, bounds)
        dropped = [
            self._fault(k, boxes[k], bounds[k], int(owner[k]), classes, describe) for k in np.flatnonzero(bad).tolist()
        ]
        if dropped and self.options.notes is not None:
            self._note_invalid(np.flatnonzero(bad), boxes, owner, dropped)
        elif dropped and not self.options.drop_invalid:
            raise DataError(
                enumerate_issues(
                    f"{name}: {len(dropped)} boxes are not valid:",
                    dropped,
                    "Fix it, or drop such boxes with --drop-invalid."
                    if len(dropped) == 1
                    else "Fix them, or drop such boxes with --drop-invalid.",
                )
            )
        kept = ~bad
        table, clipped = self._table(boxes[kept], bounds[kept], owner[kept], kept, skeleton)
        dataset = TableDataset(
            table,
            classes=classes,
            root=self.root,
            name=name,
            dropped=dropped,
            clipped=clipped,
            limits=self.options.limits,
            skeleton=skeleton,
            pixel_range=self.options.pixel_range,
            remarks=self.options.remarks,
            skip_unreadable=self.options.skip_unreadable,
        )
        if self.options.notes is not None:
            self.options.notes.surveys.append(self._survey(dataset, boxes, kept, describe, header or {}))
        return dataset

    def _straightened(
        self, boxes: np.ndarray, owner: np.ndarray, classes: Classes, describe: Callable[[int, int], str]
    ) -> np.ndarray:
        """For a check: boxes whose corners are swapped as they were meant, each noted."""
        low, high = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
        with np.errstate(invalid="ignore"):
            reversed_ = (high > low).all(axis=1) & (boxes[:, :2] != low).any(axis=1)
        for number in np.flatnonzero(reversed_ & np.isfinite(boxes).all(axis=1)).tolist():
            row = int(owner[number])
            values = ", ".join(f"{value:.6g}" for value in boxes[number])
            where = f"{describe(row, self._origins[number])} ({classes[self._labels[number]]})"
            assert self.options.notes is not None
            name = self._names[row].decode("utf-8", "surrogateescape")
            self.options.notes.add("box-reversed", f"{where} has box ({values}): its corners are swapped", name)
            boxes[number] = [*low[number], *high[number]]
        return boxes

    def _note_invalid(self, which: np.ndarray, boxes: np.ndarray, owner: np.ndarray, messages: list[str]) -> None:
        assert self.options.notes is not None
        for number, message in zip(which.tolist(), messages, strict=True):
            name = self._names[int(owner[number])].decode("utf-8", "surrogateescape")
            self.options.notes.add(kind_of_invalid(boxes[number]), message, name)

    def _survey(
        self,
        dataset: TableDataset,
        boxes: np.ndarray,
        kept: np.ndarray,
        describe: Callable[[int, int], str],
        header: Mapping[str, Any],
    ) -> Survey:
        return Survey(
            dataset=dataset,
            boxes=boxes[kept],
            origins=np.array(self._origins, dtype=np.int64)[kept],
            describe=describe,
            image_extras=self._image_extras,
            object_extras=[self._object_extras[k] for k in np.flatnonzero(kept)],
            header=header,
        )

    def _bounds(self, owner: np.ndarray) -> np.ndarray:
        """(M, 2) width and height that each box must stay in."""
        if self.fractions:
            return np.ones((len(owner), 2), dtype=np.float32)
        sizes = np.array(self._sizes, dtype=np.float32).reshape(-1, 2)
        # Left open by a check until it has seen the image, and for one that can't be read and will be skipped.
        sizes = np.where(sizes > 0, sizes, np.float32(np.inf))
        return np.asarray(sizes[owner][:, ::-1])

    def _fault(
        self,
        number: int,
        box: np.ndarray,
        bounds: np.ndarray,
        owner: int,
        classes: Classes,
        describe: Callable[[int, int], str],
    ) -> str:
        where = describe(owner, self._origins[number])
        unit = " in fractions of the image" if self.fractions else ""
        values = ", ".join(f"{value:.6g}" for value in box)
        why = why_invalid(box, bounds, self.fractions)
        return f"{where} ({classes[self._labels[number]]}) has box ({values}){unit}: {why}"

    def _table(
        self, boxes: np.ndarray, bounds: np.ndarray, owner: np.ndarray, kept: np.ndarray, skeleton: Skeleton | None
    ) -> tuple[Table, int]:
        limits = np.concatenate((bounds, bounds), axis=1)
        cut = np.clip(boxes, 0, limits)
        quiet = QUIET_FRACTION if self.fractions else QUIET_PIXELS
        clipped = int((np.abs(cut - boxes).max(axis=1, initial=0) > quiet).sum())
        counts = np.bincount(owner, minlength=len(self._names))
        outlines = [self._outlines[k] for k in np.flatnonzero(kept)] if any(self._outlines) else None
        table = Table(
            names=Texts.of(self._names),
            image_ids=torch.tensor(self._image_ids, dtype=torch.int64),
            sizes=torch.tensor(self._sizes, dtype=torch.int32).reshape(-1, 2),
            starts=torch.from_numpy(np.concatenate(([0], np.cumsum(counts)))),
            boxes=torch.from_numpy(np.ascontiguousarray(cut)),
            labels=torch.from_numpy(np.array(self._labels, dtype=np.int64)[kept]),
            ignore=torch.from_numpy(np.frombuffer(bytes(self._ignore), dtype=bool)[kept]),
            areas=torch.from_numpy(np.array(self._areas, dtype=np.float64)[kept]),
            segmentations=None if outlines is None else Texts.of(outlines),
            keypoints=None if skeleton is None else self._points(len(skeleton), kept),
            fractions=self.fractions,
        )
        return table, clipped

    def _points(self, count: int, kept: np.ndarray) -> Tensor:
        points = np.array(self._keypoints, dtype=np.float32).reshape(-1, count, 3)
        return torch.from_numpy(points[kept])


def invalid_boxes(boxes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """(M,) bool: not finite, without extent, or wholly outside of (0, 0, width, height)."""
    finite = np.isfinite(boxes).all(axis=1)
    low, high = boxes[:, :2], boxes[:, 2:]
    with np.errstate(invalid="ignore"):
        extent = (high > low).all(axis=1)
        meets = ((high > 0) & (low < bounds)).all(axis=1)
    return np.asarray(~(finite & extent & meets))


def kind_of_invalid(box: np.ndarray) -> str:
    """Which of the kinds of `faults.KINDS` an invalid box is."""
    if not np.isfinite(box).all():
        return "box-not-finite"
    return "box-empty" if (box[2:] <= box[:2]).any() else "box-outside"


def why_invalid(box: np.ndarray, bounds: np.ndarray, fractions: bool) -> str:
    """What is wrong with a box that `invalid_boxes` found, in words."""
    if not np.isfinite(box).all():
        return "not finite numbers"
    extents = (("width", box[2] - box[0]), ("height", box[3] - box[1]))
    flat = [f"{what} {extent:.6g}" for what, extent in extents if extent <= 0]
    if flat:
        return ", ".join(flat)
    if fractions:
        return "wholly outside of the image (YOLO boxes are fractions from 0 to 1, not pixels)"
    return f"wholly outside of the {bounds[0]:.0f} x {bounds[1]:.0f} image"
