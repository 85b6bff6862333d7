"""Tiles of a large image: where they lie, and which of their boxes are the same object."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fpn.ops.boxes import SMALLEST_AREA, area, paired_iou, pairwise_intersection
from fpn.shapes import Size


class Tile(NamedTuple):
    """A part of an image, pixels; what is right of and below it begins at `left + width` and `top + height`."""

    top: int
    left: int
    height: int
    width: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The same as x1, y1, x2, y2."""
        return self.left, self.top, self.left + self.width, self.top + self.height


class TilePairs(NamedTuple):
    """Pairs of boxes of two tiles that may be of one object.

    Attributes:
        first, second: (p,) numbers of the boxes.
        iou: (p,) of the two.
        first_covered, second_covered: (p,) which part of the one lies in the other, 0 to 1.
        shared_iou: (p,) of what of the two lies in both tiles; 0 where one has nothing there.
    """

    first: Int[Tensor, " p"]
    second: Int[Tensor, " p"]
    iou: Float[Tensor, " p"]
    first_covered: Float[Tensor, " p"]
    second_covered: Float[Tensor, " p"]
    shared_iou: Float[Tensor, " p"]


def tile_places(size: Size, side: int, overlap: float) -> list[Tile]:
    """The fewest tiles that cover an image and overlap by a share of their side at least, row by row.

    All have the same size: `side`, or the image's where that is less. They are spread evenly.
    """
    height, width = min(side, size.height), min(side, size.width)
    return [
        Tile(top, left, height, width)
        for top in _starts(size.height, height, overlap)
        for left in _starts(size.width, width, overlap)
    ]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    room = length - side
    steps = math.ceil(room / max(1.0, side * (1 - overlap)))
    return [round(room * step / steps) for step in range(steps + 1)] if steps else [0]


def cut_sides(
    boxes: Float[Tensor, "n 4"], tile: tuple[int, int, int, int], image: Size, reach: float
) -> Bool[Tensor, "n 4"]:
    """Which sides of boxes may be where the tile ends rather than the object: left, top, right, bottom.

    Args:
        boxes: xyxy, pixels of the image.
        tile: x1, y1, x2, y2.
        image: nothing is cut where the tile ends with the image.
        reach: a side that is so near to the tile's is cut, pixels.
    """
    ends = boxes.new_tensor(tile)
    inner = torch.tensor([tile[0] > 0, tile[1] > 0, tile[2] < image.width, tile[3] < image.height], device=boxes.device)
    return ((boxes - ends).abs() <= reach) & inner


def tile_pairs(
    boxes: Float[Tensor, "n 4"],
    labels: Int[Tensor, " n"],
    own: Int[Tensor, " k"],
    others: Int[Tensor, " m"],
    shared: tuple[int, int, int, int],
) -> TilePairs:
    """The pairs of one class that overlap, of boxes of two tiles.

    Args:
        boxes: xyxy, pixels of the image.
        labels: their classes.
        own: numbers of the one tile's boxes.
        others: numbers of the other's.
        shared: what lies in both tiles, x1, y1, x2, y2.
    """
    own, others = _within(boxes, own, shared), _within(boxes, others, shared)
    both = pairwise_intersection(boxes[own], boxes[others])
    row, column = ((both > 0) & (labels[own][:, None] == labels[others])).nonzero(as_tuple=True)
    first, second, both = own[row], others[column], both[row, column]
    one, two = boxes[first], boxes[second]
    return TilePairs(
        first,
        second,
        paired_iou(one, two),
        both / area(one).clamp(min=SMALLEST_AREA),
        both / area(two).clamp(min=SMALLEST_AREA),
        paired_iou(_clipped(one, shared), _clipped(two, shared)),
    )


def _within(boxes: Tensor, numbers: Tensor, shared: tuple[int, int, int, int]) -> Tensor:
    clipped = _clipped(boxes[numbers], shared)
    return numbers[(clipped[:, 2:] > clipped[:, :2]).all(dim=1)]


def _clipped(boxes: Tensor, window: tuple[int, int, int, int]) -> Tensor:
    low, high = boxes.new_tensor([*window[:2]] * 2), boxes.new_tensor([*window[2:]] * 2)
    return boxes.maximum(low).minimum(high)
