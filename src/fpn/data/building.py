"""From what a reader found, object by object, to a checked table. All formats' boxes are judged here, once."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from fpn.data.reading import Limits, enumerate_faults
from fpn.data.segmentation import pack
from fpn.data.table import Table, TableDataset, Texts
from fpn.errors import DataError
from fpn.pictures import MAX_PIXELS, picture_size
from fpn.shapes import Size
from fpn.structures import Classes

# Rounding, the 1-based habit of old tools and off-by-one sizes reach this far; beyond it is worth counting.
QUIET_PIXELS = 2.0
QUIET_FRACTION = 0.01


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller of `open_dataset` chose."""

    drop_invalid: bool = False
    limits: Limits = field(default_factory=Limits)


class TableBuilder:
    """Collects pictures and, after each, its objects; `finish` judges the boxes and makes the dataset."""

    def __init__(self, root: Path, options: Options, *, fractions: bool = False) -> None:
        self.root, self.options, self.fractions = root, options, fractions
        self._names: list[bytes] = []
        self._image_ids, self._sizes, self._counts = array("q"), array("i"), array("q")
        self._boxes, self._areas = array("d"), array("d")
        self._labels, self._ignore, self._origins = array("q"), bytearray(), array("q")
        self._outlines: list[bytes] = []

    def add_picture(self, name: str, image_id: int, size: Size | None) -> None:
        """Start a picture; without `size` its header is asked, at once for boxes in pixels, later for fractions."""
        if size is None and not self.fractions:
            size = Size(*picture_size(self.root / name))
        if size is not None and size.height * size.width > MAX_PIXELS:
            raise DataError(
                f"{name}: annotated as {size.width} x {size.height}, more than the {MAX_PIXELS / 1e6:.0f} million "
                "pixels that can be read. Correct the size, or cut the picture into tiles."
            )
        self._names.append(name.encode("utf-8", "surrogateescape"))
        self._image_ids.append(image_id)
        self._sizes.extend(size or (0, 0))
        self._counts.append(0)

    def add_object(
        self,
        box: tuple[float, float, float, float],
        label: int,
        *,
        ignore: bool = False,
        area: float = float("nan"),
        origin: int,
        segmentation: object = None,
    ) -> None:
        """Add an object to the last picture. `origin` is what its file calls it: its number, line or id."""
        self._counts[-1] += 1
        if self._counts[-1] > self.options.limits.objects_per_picture:
            raise DataError(
                f"{self.root / self._names[-1].decode('utf-8', 'surrogateescape')}: more than "
                f"{self.options.limits.objects_per_picture} objects. If that is right, raise the limit "
                "(fpn.data.Limits)."
            )
        self._boxes.extend(box)
        self._areas.append(area)
        self._labels.append(label)
        self._ignore.append(ignore)
        self._origins.append(origin)
        self._outlines.append(pack(segmentation))

    def finish(self, classes: Classes, name: str, describe: Callable[[int, int], str]) -> TableDataset:
        """Judge the boxes and make the dataset.

        Args:
            classes: of the dataset, all splits together.
            name: of the dataset.
            describe: (picture number, origin) -> where that object stands, such as "a.xml: object 2".

        Raises:
            DataError: no pictures, or invalid boxes without `drop_invalid`.
        """
        if not self._names:
            raise DataError(f"{self.root}: {name} has no pictures")
        counts = np.frombuffer(self._counts, dtype=np.int64)
        with np.errstate(over="ignore"):
            boxes = np.array(self._boxes, dtype=np.float64).reshape(-1, 4).astype(np.float32)
        owner = np.repeat(np.arange(len(counts)), counts)
        bounds = self._bounds(owner)
        bad = _invalid(boxes, bounds)
        dropped = [
            self._fault(k, boxes[k], bounds[k], int(owner[k]), classes, describe) for k in np.flatnonzero(bad).tolist()
        ]
        if dropped and not self.options.drop_invalid:
            raise DataError(
                enumerate_faults(
                    f"{name}: {len(dropped)} boxes are not valid:",
                    dropped,
                    "Fix it, or drop such boxes with --drop-invalid."
                    if len(dropped) == 1
                    else "Fix them, or drop such boxes with --drop-invalid.",
                )
            )
        kept = ~bad
        table, clipped = self._table(boxes[kept], bounds[kept], owner[kept], kept)
        return TableDataset(table, classes=classes, root=self.root, name=name, dropped=dropped, clipped=clipped)

    def _bounds(self, owner: np.ndarray) -> np.ndarray:
        """(M, 2) width and height that each box must stay in."""
        if self.fractions:
            return np.ones((len(owner), 2), dtype=np.float32)
        sizes = np.array(self._sizes, dtype=np.float32).reshape(-1, 2)
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
        unit = " in fractions of the picture" if self.fractions else ""
        values = ", ".join(f"{value:.6g}" for value in box)
        why = _why(box, bounds, self.fractions)
        return f"{where} ({classes[self._labels[number]]}) has box ({values}){unit}: {why}"

    def _table(self, boxes: np.ndarray, bounds: np.ndarray, owner: np.ndarray, kept: np.ndarray) -> tuple[Table, int]:
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
            fractions=self.fractions,
        )
        return table, clipped


def _invalid(boxes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """(M,) bool: not finite, without extent, or wholly outside of (0, 0, width, height)."""
    finite = np.isfinite(boxes).all(axis=1)
    low, high = boxes[:, :2], boxes[:, 2:]
    with np.errstate(invalid="ignore"):
        extent = (high > low).all(axis=1)
        meets = ((high > 0) & (low < bounds)).all(axis=1)
    return np.asarray(~(finite & extent & meets))


def _why(box: np.ndarray, bounds: np.ndarray, fractions: bool) -> str:
    if not np.isfinite(box).all():
        return "not finite numbers"
    extents = (("width", box[2] - box[0]), ("height", box[3] - box[1]))
    flat = [f"{what} {extent:.6g}" for what, extent in extents if extent <= 0]
    if flat:
        return ", ".join(flat)
    if fractions:
        return "wholly outside of the picture (YOLO boxes are fractions from 0 to 1, not pixels)"
    return f"wholly outside of the {bounds[0]:.0f} x {bounds[1]:.0f} picture"
