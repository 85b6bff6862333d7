"""Boxes: area, overlap, clipping, and the other ways of writing them down.

Boxes are xyxy and half-open: width = x2 - x1. With `legacy_plus_one` a width is x2 - x1 + 1, as in the Matlab code that
fpn.pytorch descends from. Whatever dtype comes in, arithmetic is in float32 or wider: half precision cannot tell pixel
1025 from 1026. No function divides by zero; a box without an area overlaps nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Num
from torch import Tensor

# Keeps 0 / 0 at 0. A box of one thousandth of a pixel's side has 1e-6.
SMALLEST_AREA = 1e-30


def at_least_float32(values: Num[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The same values as float32; float64 stays (finite differences need it)."""
    return values if values.dtype == torch.float64 else values.float()


def area(boxes: Num[Tensor, "*n 4"], *, legacy_plus_one: bool = False) -> Float[Tensor, "*n"]:
    """Area in square pixels; 0 where a corner is on the wrong side of the other."""
    x1, y1, x2, y2 = at_least_float32(boxes).unbind(-1)
    width, height = x2 - x1, y2 - y1
    if legacy_plus_one:
        width, height = width + 1, height + 1
    return width.clamp(min=0) * height.clamp(min=0)


def clip(
    boxes: Num[Tensor, "*n 4"],
    height: float | int | Num[Tensor, "*#n"],
    width: float | int | Num[Tensor, "*#n"],
    *,
    legacy_plus_one: bool = False,
) -> Float[Tensor, "*n 4"]:
    """Cut boxes off at the rim of an image.

    Args:
        boxes: xyxy, pixels of that image.
        height: of the image in pixels; a tensor must broadcast with `boxes[..., 0]`.
        width: see `height`.
        legacy_plus_one: the rim is at width - 1 and height - 1.
    """
    boxes = at_least_float32(boxes)
    less = 1 if legacy_plus_one else 0
    x1, y1, x2, y2 = boxes.unbind(-1)
    limits = (width - less, height - less, width - less, height - less)
    return torch.stack([_limit(v, top) for v, top in zip((x1, y1, x2, y2), limits, strict=True)], dim=-1)


def _limit(values: Tensor, top: float | int | Tensor) -> Tensor:
    if isinstance(top, Tensor):
        return torch.minimum(values.clamp(min=0), top.to(values.dtype))
    return values.clamp(0, top)


def pairwise_iou(
    boxes: Num[Tensor, "n 4"], others: Num[Tensor, "m 4"], *, legacy_plus_one: bool = False
) -> Float[Tensor, "n m"]:
    """Intersection over union of every box with every other, 0..1; 0 where both are empty."""
    shared = pairwise_intersection(boxes, others, legacy_plus_one=legacy_plus_one)
    areas = area(boxes, legacy_plus_one=legacy_plus_one)[:, None] + area(others, legacy_plus_one=legacy_plus_one)
    return shared / (areas - shared).clamp(min=SMALLEST_AREA)


def pairwise_coverage(boxes: Num[Tensor, "n 4"], regions: Num[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Which part of each box's own area lies in each region, 0..1: the measure for crowds."""
    shared = pairwise_intersection(boxes, regions)
    return shared / area(boxes).clamp(min=SMALLEST_AREA)[:, None]


def pairwise_intersection(
    boxes: Num[Tensor, "n 4"],
    others: Num[Tensor, "m 4"],
    *,
    legacy_plus_one: bool = False,
    room: Sequence[Float[Tensor, "n m"]] | None = None,
) -> Float[Tensor, "n m"]:
    """Shared area of every box with every other, in square pixels.

    Args:
        boxes: xyxy.
        others: xyxy, in the same pixels.
        legacy_plus_one: widths are x2 - x1 + 1.
        room: three tensors to work in, of which the first becomes the result; None: new memory.
    """
    # Rows of one coordinate each, and in place: 34 000 anchors by 15 objects take 0.8 ms instead of 11.8 ms.
    one, two = (at_least_float32(b).T.contiguous() for b in (boxes, others))
    *sides, spare = (None, None, None) if room is None else room
    width, height = (
        torch.minimum(one[high][:, None], two[high], out=side).sub_(
            torch.maximum(one[low][:, None], two[low], out=spare)
        )
        for side, (low, high) in zip(sides, ((0, 2), (1, 3)), strict=True)
    )
    if legacy_plus_one:
        width, height = width.add_(1), height.add_(1)
    return width.clamp_(min=0).mul_(height.clamp_(min=0))


def paired_iou(
    boxes: Num[Tensor, "*n 4"], others: Num[Tensor, "*n 4"], *, legacy_plus_one: bool = False
) -> Float[Tensor, "*n"]:
    """Intersection over union of each box with its partner, 0..1; 0 where both are empty."""
    shared, union, _ = _paired(boxes, others, legacy_plus_one=legacy_plus_one)
    return _ratio(shared, union)


def paired_giou(boxes: Num[Tensor, "*n 4"], others: Num[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Generalised IoU of each box with its partner, -1..1.

    IoU minus the part of the smallest enclosing box that neither covers.

    Source: Rezatofighi et al. 2019, arXiv:1902.09630.
    """
    shared, union, hull = _paired(boxes, others, legacy_plus_one=False)
    return _ratio(shared, union) - _ratio(hull - union, hull)


def _paired(boxes: Tensor, others: Tensor, *, legacy_plus_one: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Areas (n,) of intersection, union and smallest enclosing box."""
    boxes, others = at_least_float32(boxes), at_least_float32(others)
    inner_low, inner_high = torch.maximum(boxes, others), torch.minimum(boxes, others)
    inner = torch.cat([inner_low[..., :2], inner_high[..., 2:]], dim=-1)
    outer = torch.cat([inner_high[..., :2], inner_low[..., 2:]], dim=-1)
    shared, hull, one, two = (area(x, legacy_plus_one=legacy_plus_one) for x in (inner, outer, boxes, others))
    return shared, one + two - shared, hull


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """`part / whole`, and 0 with a gradient of 0 where `whole` is 0."""
    return part / torch.where(whole > 0, whole, torch.ones_like(whole))


def _halves(boxes: Tensor) -> tuple[Tensor, Tensor]:
    boxes = at_least_float32(boxes)
    return boxes[..., :2], boxes[..., 2:]


def xyxy_to_xywh(boxes: Num[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """(x1, y1, x2, y2) -> (x1, y1, width, height), as COCO writes boxes."""
    low, high = _halves(boxes)
    return torch.cat([low, high - low], dim=-1)


def xywh_to_xyxy(boxes: Num[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """(x1, y1, width, height) -> (x1, y1, x2, y2)."""
    low, size = _halves(boxes)
    return torch.cat([low, low + size], dim=-1)
