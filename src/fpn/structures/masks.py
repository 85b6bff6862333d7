"""Instance masks as their files have them: polygons or run lengths, never a pixel for each object at rest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from fpn.errors import ConfigError, DataError
from fpn.ops import masks as mask_ops
from fpn.ops import polygons as polygon_ops
from fpn.ops import run_lengths as run_ops
from fpn.ops.polygons import Polygons
from fpn.ops.run_lengths import Integers, Runs
from fpn.shapes import Size, in_pixels

# COCO's three ways: polygons [[x, y, x, y, ...], ...], or a run-length code {"size": [h, w], "counts": [...] or "..."}.
Segmentation: TypeAlias = list[list[float]] | dict[str, Any]
# Polygons of one object, each (k, 2) or x, y, x, y, ...; or the runs (t, 2) of one.
Outline: TypeAlias = Sequence[NDArray[np.float64]] | Integers
# How far out of its image a polygon may reach, in times of the image's longer side.
MAX_REACH = 10
# What an outline of polygons may have in all, so that a small file can't ask for much memory: corners, and columns that
# its edges cross. Larger ones are left to run-length codes.
MAX_CORNERS = 1 << 17
MAX_TRAVEL = 1 << 21
# Pixels that `dense` makes unless asked for more: a byte each.
DENSE_PIXELS = 1 << 28
# Masks that are images on another device at a time.
_DENSE_TOGETHER = 32


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """The masks of N objects in one image. They stay in main memory, whatever device the boxes are on.

    Each is either polygons or a run-length code and stays what it is. `masks[found]`, `masks[2:5]` and `masks[3]` are
    masks of some of the objects.

    Attributes:
        size: of the image.
        polygons: N sets of polygons; none for a coded mask. They may reach out of the image, where nothing counts.
        runs: N sets of runs; none for polygons.
        coded: (N,) bool, which are run-length codes.
    """

    size: Size
    polygons: Polygons
    runs: Runs
    coded: NDArray[np.bool_]

    def __post_init__(self) -> None:
        assert len(self.polygons.starts) == len(self.runs.starts) == len(self.coded) + 1, "one entry a mask in each"

    # --- from elsewhere ---

    @classmethod
    def empty(cls, size: Size) -> Masks:
        """No masks."""
        return cls.of_outlines([], size)

    @classmethod
    def of_outlines(cls, outlines: Sequence[Outline], size: Size) -> Masks:
        """One mask for each object's polygons (a list) or runs (an array (t, 2))."""
        coded = np.array([isinstance(each, np.ndarray) for each in outlines], dtype=np.bool_)
        polygons = Polygons.of([() if isinstance(each, np.ndarray) else each for each in outlines])
        runs = Runs.of([each if isinstance(each, np.ndarray) else run_ops.no_runs() for each in outlines])
        return cls(size, polygons, runs, coded)

    @classmethod
    def of_boxes(cls, boxes: Float[Tensor, "n 4"], size: Size) -> Masks:
        """Each box filled, as a polygon of four corners."""
        polygons = polygon_ops.rectangles(boxes.cpu().numpy())
        return cls(size, polygons, Runs.of([run_ops.no_runs()] * len(boxes)), np.zeros(len(boxes), dtype=np.bool_))

    @classmethod
    def from_dense(cls, masks: Iterable[Bool[Tensor, "h w"]], size: Size) -> Masks:
        """From pixels, one mask after the other: a tensor (N, H, W), or what makes one mask at a time."""
        return cls.of_outlines([run_ops.runs_of_mask(mask.cpu().numpy().astype(np.bool_)) for mask in masks], size)

    @classmethod
    def from_probabilities(
        cls, probabilities: Float[Tensor, "n s s"], boxes: Float[Tensor, "n 4"], size: Size, *, threshold: float = 0.5
    ) -> Masks:
        """From what a mask head says on the grid of each box; see `paste_masks`."""
        runs = mask_ops.paste_masks(probabilities, boxes, size, threshold=threshold)
        return cls(size, Polygons.of([()] * len(boxes)), runs, np.ones(len(boxes), dtype=np.bool_))

    @classmethod
    def from_coco(cls, segmentations: Sequence[Segmentation], size: Size) -> Masks:
        """From COCO's polygons and run-length codes, compressed or not.

        Raises:
            DataError: one is broken, or of another size than the image.
        """
        outlines = []
        for number, each in enumerate(segmentations, start=1):
            try:
                outlines.append(runs_of_code(each, size) if isinstance(each, dict) else polygons_of(each, size))
            except (ValueError, TypeError, OverflowError) as error:
                raise DataError(f"object {number}: broken segmentation ({error})") from error
        return cls.of_outlines(outlines, size)

    @classmethod
    def concatenate(cls, several: Sequence[Masks]) -> Masks:
        """The masks of several, all of one size."""
        assert len({each.size for each in several}) == 1, "masks of images of several sizes"
        outlines = [each._outline(number) for each in several for number in range(len(each))]
        return cls.of_outlines(outlines, several[0].size)

    def united(self, groups: Sequence[Sequence[int]]) -> Masks:
        """The same masks, where the first of each group has the pixels of all of it."""
        outlines = [self._outline(number) for number in range(len(self))]
        for group in groups:
            outlines[group[0]] = run_ops.united_spans(self[group].rasterised().spans)
        return Masks.of_outlines(outlines, self.size)

    # --- which and what ---

    def __len__(self) -> int:
        return len(self.coded)

    def __getitem__(self, which: int | slice | Tensor | Sequence[int]) -> Masks:
        chosen = which.cpu().numpy() if isinstance(which, Tensor) else which
        chosen = np.asarray(chosen, dtype=np.int64) if isinstance(chosen, Sequence) else chosen
        numbers = np.atleast_1d(np.arange(len(self))[chosen])
        return Masks(self.size, self.polygons.take(numbers), self.runs.take(numbers), self.coded[numbers])

    def __eq__(self, other: object) -> bool:
        """Whether these are the same outlines of the same image: not whether they fill the same pixels."""
        if not isinstance(other, Masks):
            return NotImplemented
        own = (*self.polygons, *self.runs, self.coded)
        others = (*other.polygons, *other.runs, other.coded)
        return self.size == other.size and all(np.array_equal(a, b) for a, b in zip(own, others, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        kinds = f"{int((~self.coded).sum())} of polygons, {int(self.coded.sum())} of run lengths"
        return f"<Masks of {len(self)} objects in {self.size.width} x {self.size.height} pixels: {kinds}>"

    def areas(self) -> Int[Tensor, " n"]:
        """Pixels of each mask, by COCO's rule for the pixels on a polygon's edge."""
        return torch.from_numpy(run_ops.areas_of_runs(self.rasterised()))

    def boxes(self) -> Float[Tensor, "n 4"]:
        """xyxy around each mask: around the polygons' corners, cut at the image's edge, or tight around the pixels.

        Zeros for a mask without pixels.
        """
        corners = polygon_ops.boxes_of_polygons(polygon_ops.clip_polygons(self.polygons, self.size))
        pixels = run_ops.boxes_of_runs(self.runs, self.size.height)
        return torch.from_numpy(np.where(self.coded[:, None], pixels, corners).astype(np.float32))

    def rasterised(self) -> Runs:
        """The pixels of each mask as runs."""
        drawn = polygon_ops.runs_of_polygons(self.polygons, self.size)
        if not self.coded.any():
            return drawn
        return Runs.of([(self.runs if coded else drawn).one(k) for k, coded in enumerate(self.coded)])

    def dense(self, *, max_pixels: int = DENSE_PIXELS) -> Bool[Tensor, "n h w"]:
        """All pixels of all masks, a byte each.

        Raises:
            DataError: they are more than `max_pixels`.
        """
        pixels = len(self) * self.size.height * self.size.width
        if pixels > max_pixels:
            raise DataError(
                f"{len(self)} masks of {self.size.width} x {self.size.height} have {in_pixels(pixels)}, more than the "
                f"limit of {in_pixels(max_pixels)}. Take some at a time (masks[:10].dense()), or raise max_pixels."
            )
        dense = np.zeros((len(self), *self.size), dtype=np.bool_)
        runs, whole = self.rasterised(), (0, 0, self.size.width, self.size.height)
        for number, mask in enumerate(dense):
            mask[:] = run_ops.columns_of_runs(runs.one(number), self.size.height, whole).T
        return torch.from_numpy(dense)

    def to_coco(self, *, polygons: bool = True, compressed: bool = True) -> list[Segmentation]:
        """COCO's form of each mask, ready for JSON.

        Args:
            polygons: leave polygons as they are; False: everything becomes run-length codes, as results must be.
            compressed: codes as text, as results must be; False: as lists of numbers.
        """
        runs = self.runs if polygons else self.rasterised()
        return [
            [part.ravel().tolist() for part in self.polygons.one(number)]
            if polygons and not coded
            else code_of_runs(runs.one(number), self.size, compressed=compressed)
            for number, coded in enumerate(self.coded.tolist())
        ]

    # --- for the loss ---

    def crop(
        self,
        boxes: Float[Tensor, "n 4"],
        size: int,
        *,
        which: Int[Tensor, " n"] | None = None,
        sampling: Literal["outline", "pixels"] = "outline",
        aligned: bool = True,
        threshold: float | None = 0.5,
    ) -> Float[Tensor, "n s s"]:
        """What each box shows of its mask, as target of a mask head. Pixels are read on the boxes' device.

        Args:
            boxes: xyxy, pixels of the image, within it.
            size: S.
            which: the mask that each box is of; None: box i is of mask i.
            sampling: `outline`: polygons are filled on the grid of the box (Detectron2), and only codes are read by
                RoIAlign; `pixels`: everything is read by RoIAlign from the mask's pixels (torchvision).
            aligned: of RoIAlign: True as Detectron2, False as torchvision.
            threshold: what RoIAlign reads becomes 1 from this on, else 0; None: stays a part (torchvision).

        Returns:
            0..1, float32 on the boxes' device.

        Source: Detectron2's PolygonMasks.crop_and_resize and BitMasks.crop_and_resize, torchvision's
        project_masks_on_boxes.
        """
        if which is None:
            assert len(boxes) == len(self), f"{len(boxes)} boxes for {len(self)} masks"
            which = torch.arange(len(self))
        if sampling not in ("outline", "pixels"):
            raise ConfigError(f"sampling={sampling!r}: must be 'outline' or 'pixels'")
        boxes, which = boxes.detach(), which.cpu()
        if sampling == "pixels":
            return self._read(boxes, which, size, aligned, threshold)
        own = self[which]
        filled = polygon_ops.rasterised_in_boxes(own.polygons, boxes.cpu().numpy(), size)
        crops = torch.from_numpy(filled).to(torch.float32).to(boxes.device)
        if own.coded.any():
            coded = torch.from_numpy(own.coded)
            here = coded.to(boxes.device)
            crops[here] = self._read(boxes[here], which[coded], size, aligned, threshold)
        return crops

    def _read(
        self, boxes: Tensor, which: Tensor, cells: int, aligned: bool, threshold: float | None
    ) -> Float[Tensor, "n s s"]:
        """By RoIAlign, of masks whose pixels are made once, however many boxes are of them."""
        used, place = torch.unique(which, return_inverse=True)
        some = self[used]
        with torch.autocast(boxes.device.type, enabled=False):
            if boxes.device.type == "cpu":
                runs = some.rasterised()
                pixels = mask_ops.crop_runs(runs, boxes, self.size, which=place, cells=cells, aligned=aligned)
            else:
                pixels = some._crop_pixels(boxes, place.to(boxes.device), cells, aligned)
        return pixels if threshold is None else (pixels >= threshold).to(torch.float32)

    def _crop_pixels(self, boxes: Tensor, which: Tensor, cells: int, aligned: bool) -> Float[Tensor, "n s s"]:
        """Some masks after the others, each as an image on the boxes' device."""
        crops = torch.zeros(len(boxes), cells, cells, device=boxes.device)
        for first in range(0, len(self), _DENSE_TOGETHER):
            some = self[first : first + _DENSE_TOGETHER]
            dense = some.dense(max_pixels=len(some) * self.size.height * self.size.width).to(boxes.device)
            (here,) = torch.where((which >= first) & (which < first + _DENSE_TOGETHER))
            crops[here] = mask_ops.crop_pixels(dense, boxes[here], which[here] - first, cells=cells, aligned=aligned)
        return crops

    # --- elsewhere in another image ---

    def mapped(self, *, scale: tuple[float, float], offset: tuple[float, float], size: Size) -> Masks:
        """The masks where every point (y, x) of the image has gone to scale * (y, x) + offset.

        Polygons go there exactly and may reach out of the new image. Of a code each new pixel takes the old pixel that
        its centre came from.

        Args:
            scale: y, x; a negative one mirrors.
            offset: y, x, new pixels.
            size: of the new image.
        """
        points = self.polygons.points * np.array(scale[::-1]) + np.array(offset[::-1])
        runs = self.runs
        if self.coded.any():
            boxes = run_ops.boxes_of_runs(runs, self.size.height)
            runs = Runs.of(
                [_resampled(runs.one(k), box, self.size, scale, offset, size) for k, box in enumerate(boxes)]
            )
        return Masks(size, self.polygons._replace(points=points), runs, self.coded)

    def resized(self, size: Size) -> Masks:
        """The masks of the image scaled to another size."""
        scale = (size.height / self.size.height, size.width / self.size.width)
        return self.mapped(scale=scale, offset=(0.0, 0.0), size=size)

    def flipped(self, *, vertical: bool = False) -> Masks:
        """The masks of the image mirrored left to right, or upside down."""
        height, width = self.size
        if vertical:
            return self.mapped(scale=(-1.0, 1.0), offset=(float(height), 0.0), size=self.size)
        return self.mapped(scale=(1.0, -1.0), offset=(0.0, float(width)), size=self.size)

    def transposed(self) -> Masks:
        """The masks of the image with rows and columns exchanged: a quarter turn is this and a flip."""
        points, runs = self.polygons.points[:, ::-1], self.runs
        if self.coded.any():
            boxes = run_ops.boxes_of_runs(runs, self.size.height)
            runs = Runs.of([_transposed(runs.one(k), box, self.size) for k, box in enumerate(boxes)])
        return Masks(Size(self.size.width, self.size.height), self.polygons._replace(points=points), runs, self.coded)

    def shifted(self, *, top: int, left: int, size: Size) -> Masks:
        """The masks of the image laid with its corner at (top, left) of a canvas of that size; negative cuts off."""
        return self.mapped(scale=(1.0, 1.0), offset=(float(top), float(left)), size=size)

    def clipped(self) -> Masks:
        """The masks with polygons cut at the image's edge; codes can't reach out of it."""
        return Masks(self.size, polygon_ops.clip_polygons(self.polygons, self.size), self.runs, self.coded)

    def _outline(self, number: int) -> Outline:
        return self.runs.one(number) if self.coded[number] else self.polygons.one(number)


def polygons_of(parts: Sequence[Sequence[float] | NDArray[np.float64]], size: Size) -> list[NDArray[np.float64]]:
    """COCO's polygons as arrays (k, 2); those of fewer than three corners fill nothing and are left out.

    Raises:
        ValueError, TypeError: one has an odd count of numbers, reaches far out of the image, or has more corners or
            longer edges than `MAX_CORNERS` and `MAX_TRAVEL` allow.
    """
    polygons = [np.asarray(part, dtype=np.float64) for part in parts if len(part) >= 6]
    for polygon in polygons:
        if len(polygon) % 2:
            raise ValueError(f"a polygon has {len(polygon)} numbers, an odd count")
        # Infinite and NaN are not within it either.
        if not (np.abs(polygon) <= MAX_REACH * max(size)).all():
            raise ValueError(f"a polygon reaches far out of the {size.width} x {size.height} image")
    joined = Polygons.of([polygons])
    if len(joined.points) > MAX_CORNERS or int(polygon_ops.travel(joined, size.width)[0]) > MAX_TRAVEL:
        raise ValueError(f"polygons of {len(joined.points)} corners that cross the image over and over")
    return [polygon.reshape(-1, 2) for polygon in polygons]


def runs_of_code(code: dict[str, Any], size: Size) -> Integers:
    """The runs (t, 2) of a COCO run-length code.

    Raises:
        ValueError, TypeError, OverflowError: it is broken or of another size.
    """
    if list(code["size"]) != [size.height, size.width]:
        raise ValueError(f"run-length code for height, width {code['size']}, the image has {list(size)}")
    counts = code["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")
    if not isinstance(counts, str | list):
        raise ValueError(f"counts of type {type(counts).__name__}")
    lengths = run_ops.counts_of_text(counts) if isinstance(counts, str) else np.array(counts, dtype=np.int64)
    return run_ops.runs_of_counts(lengths, size.height * size.width)


def code_of_runs(spans: Integers, size: Size, *, compressed: bool = True) -> dict[str, Any]:
    """The reverse of `runs_of_code`, ready for JSON."""
    counts = run_ops.counts_of_runs(spans, size.height * size.width)
    return {"size": list(size), "counts": run_ops.text_of_counts(counts) if compressed else counts.tolist()}


def _resampled(
    spans: Integers,
    box: Int[np.ndarray, " 4"],
    size: Size,
    scale: tuple[float, float],
    offset: tuple[float, float],
    new: Size,
) -> Integers:
    """Runs after `Masks.mapped`; `box` is tight around them."""
    left, top, right, bottom = box.tolist()
    rows, row_from = _sources(top, bottom, scale[0], offset[0], new.height)
    columns, column_from = _sources(left, right, scale[1], offset[1], new.width)
    if not rows or not columns:
        return run_ops.no_runs()
    pixels = run_ops.columns_of_runs(spans, size.height, (left, top, right, bottom))
    moved = pixels[np.ix_(column_from - left, row_from - top)]
    return run_ops.runs_of_columns(moved, top=rows.start, left=columns.start, height=new.height)


def _transposed(spans: Integers, box: Int[np.ndarray, " 4"], size: Size) -> Integers:
    """Runs of the image with rows and columns exchanged; `box` is tight around them."""
    left, top, right, bottom = box.tolist()
    pixels = run_ops.columns_of_runs(spans, size.height, (left, top, right, bottom))
    return run_ops.runs_of_columns(pixels.T, top=left, left=top, height=size.width)


def _sources(first: int, end: int, scale: float, offset: float, side: int) -> tuple[range, Integers]:
    """The new pixels of an axis that show old ones from `first` to `end`, and which one each shows."""
    low, high = sorted((first * scale + offset, end * scale + offset))
    new = range(max(0, math.ceil(low - 0.5)), min(side, math.ceil(high - 0.5)))
    places = (np.arange(new.start, new.stop) + 0.5 - offset) / scale
    return new, np.clip(np.floor(places), first, end - 1).astype(np.int64)
