"""Which points learn from which object, without anchors."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fpn.ops.boxes import area, at_least_float32
from fpn.ops.matching import Match

# Objects that are looked at together: 22 000 points of 800 x 1344 and 64 objects take 25 MB.
_TOGETHER = 64


@torch.no_grad()
def match_points(
    points: Float[Tensor, "n 2"],
    strides: Float[Tensor, " n"],
    ranges: Float[Tensor, "n 2"],
    boxes: Float[Tensor, "m 4"],
    ignore: Bool[Tensor, " m"],
    *,
    radius: float | None,
    closed: bool,
) -> Match:
    """Each point becomes the smallest object that it lies inside of and whose farthest side is in the point's range.

    Args:
        points: (x, y), pixels.
        strides: of each point's level, pixels.
        ranges: from which distance to which the farthest side of an object may be from a point of this level, pixels.
        boxes: objects, xyxy.
        ignore: crowds and difficult objects: no point becomes one, and one in the midst of it that is no other's takes
            no part.
        radius: a point may be so many strides from an object's centre, in x and in y; None: anywhere inside.
        closed: a distance that equals an end of its range is in it.

    Source: Tian et al. 2019, arXiv:1904.01355, section 3.2; the centre's region: arXiv:2006.09214, section 3.1.
    """
    boxes, points = at_least_float32(boxes), at_least_float32(points)
    least = points.new_full((len(points),), torch.inf)
    gt_index = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    ignored = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    for start in range(0, len(boxes), _TOGETHER):
        part, crowd = boxes[start : start + _TOGETHER], ignore[start : start + _TOGETHER]
        inside, farthest = _sides(points, part)
        ignored |= (inside & crowd).any(dim=1)
        suits = inside & ~crowd & _in_range(farthest, ranges, closed)
        if radius is not None:
            centres = (part[:, :2] + part[:, 2:]) / 2
            suits &= (points[:, None] - centres).abs().amax(dim=2) < (radius * strides)[:, None]
        smallest, which = torch.where(suits, area(part), torch.inf).min(dim=1)
        gt_index = torch.where(smallest < least, which + start, gt_index)
        least = torch.minimum(least, smallest)
    positive = least < torch.inf
    return Match(gt_index, positive.to(torch.int8) - (ignored & ~positive).to(torch.int8))


def _sides(points: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(n, m): whether each point lies inside of each box, rims not included, and the distance to its farthest side."""
    offsets = torch.cat([points[:, None] - boxes[:, :2], boxes[:, 2:] - points[:, None]], dim=2)
    return offsets.amin(dim=2) > 0, offsets.amax(dim=2)


def _in_range(farthest: Tensor, ranges: Tensor, closed: bool) -> Tensor:
    low, high = ranges[:, :1], ranges[:, 1:]
    if closed:
        return (farthest >= low) & (farthest <= high)
    return (farthest > low) & (farthest < high)
