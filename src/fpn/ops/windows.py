"""Windows that slide over maps: where they stand, which object each learns, and what it sees."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from fpn.ops.boxes import at_least_float32
from fpn.ops.matching import Match


class Grid(NamedTuple):
    """The windows of one size on one map: one in the middle of each cell, in the order y, x.

    Attributes:
        height, width: cells.
        stride: from cell to cell, pixels.
        scale: longer side of the objects that they are for, pixels.
    """

    height: int
    width: int
    stride: int
    scale: float


def window_centres(grids: Sequence[Grid], device: torch.device) -> Float[Tensor, "n 2"]:
    """(x, y) in pixels of all windows, grid after grid."""
    found = []
    for grid in grids:
        x, y = (
            (torch.arange(count, device=device, dtype=torch.float32) + 0.5) * grid.stride
            for count in (grid.width, grid.height)
        )
        found.append(torch.cartesian_prod(y, x).flip(1))
    return torch.cat(found)


def nearest_scale(sides: Float[Tensor, " m"], scales: Sequence[float]) -> Int[Tensor, " m"]:
    """The number of the scale that each length is nearest to in octaves; of two equally near the first."""
    octaves = sides.clamp(min=1e-6).log2()[:, None] - sides.new_tensor(scales).log2()
    return octaves.abs().argmin(dim=1)


@torch.no_grad()
def match_windows(
    grids: Sequence[Grid], boxes: Float[Tensor, "m 4"], ignore: Bool[Tensor, " m"], *, reach: float
) -> Match:
    """A window learns the object of its scale whose centre is nearest to its own, if it is within reach.

    Args:
        grids: all windows, n of them.
        boxes: around the objects, xyxy, pixels.
        ignore: crowds and difficult objects: no window learns one, and one that stands in such a box and learns no
            other takes no part.
        reach: cells from a window's centre to the object's, in x and in y, at most.

    Source: Lin et al. 2017, arXiv:1612.03144, appendix A.
    """
    boxes = at_least_float32(boxes)
    starts = [0, *accumulate(grid.height * grid.width for grid in grids)]
    place, distance, which = _within_reach(grids, starts, boxes, reach)
    place, distance, which = (each[~ignore[which]] for each in (place, distance, which))
    nearest = boxes.new_full((starts[-1],), torch.inf).scatter_reduce_(0, place, distance, "amin")
    best = distance == nearest[place]
    gt_index = torch.full((starts[-1],), len(boxes), dtype=torch.int64, device=boxes.device)
    gt_index.scatter_reduce_(0, place[best], which[best], "amin")  # of equally near objects the first
    positive = nearest < torch.inf
    ignored = _in_any(window_centres(grids, boxes.device), boxes[ignore])
    kind = positive.to(torch.int8) - (ignored & ~positive).to(torch.int8)
    return Match(torch.where(positive, gt_index, 0), kind)


def _within_reach(
    grids: Sequence[Grid], starts: Sequence[int], boxes: Tensor, reach: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of a window and an object of its scale: the window's number, their distance in cells, the object's."""
    corner, end = boxes[:, :2], boxes[:, 2:]
    owner = nearest_scale((end - corner).amax(dim=1), [grid.scale for grid in grids])
    table = boxes.new_tensor([grid[:3] for grid in grids])[owner]
    height, width = (column[:, None, None] for column in table[:, :2].unbind(1))
    centre_x, centre_y = ((corner + end) / 2 / table[:, 2:] - 0.5)[:, :, None, None].unbind(1)  # in cells
    step = torch.arange(int(2 * reach) + 1, device=boxes.device)
    x, y = (centre_x - reach).ceil() + step, (centre_y - reach).ceil() + step[:, None]
    distance = torch.maximum((x - centre_x).abs(), (y - centre_y).abs())
    found = (distance <= reach) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    number = torch.arange(len(boxes), device=boxes.device)[:, None, None].expand_as(found)
    first = torch.tensor(starts[:-1], device=boxes.device)[owner][:, None, None]
    place = first + y.long() * width.long() + x.long()
    return place[found], distance[found], number[found]


def _in_any(points: Float[Tensor, "n 2"], boxes: Float[Tensor, "k 4"]) -> Bool[Tensor, " n"]:
    inside = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    for box in boxes:  # there are few, and n is large
        inside |= ((points >= box[:2]) & (points <= box[2:])).all(dim=1)
    return inside


def locate_windows(
    grids: Sequence[Grid], place: Int[Tensor, " k"]
) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"], Int[Tensor, " k"]]:
    """Numbers of windows as the number of their grid, y and x in its cells."""
    starts = place.new_tensor([0, *accumulate(grid.height * grid.width for grid in grids)])
    grid = torch.searchsorted(starts, place, right=True) - 1
    own, width = place - starts[grid], place.new_tensor([each.width for each in grids])[grid]
    return grid, own // width, own % width


def cut_windows(
    maps: Float[Tensor, "b c h w"], image: Int[Tensor, " k"], y: Int[Tensor, " k"], x: Int[Tensor, " k"], side: int
) -> Float[Tensor, "k c s s"]:
    """What windows see of maps, around the cells (y, x); zeros beyond the rim, as a convolution has them.

    Args:
        maps: of B images.
        image: number of the image that each window is of.
        y, x: its middle cell.
        side: of a window in cells, an odd number.
    """
    around = side // 2
    padded = functional.pad(maps, [around] * 4).permute(0, 2, 3, 1)  # rows of C numbers, which are read as a whole
    step = torch.arange(side, device=maps.device)
    rows, columns = y[:, None, None] + step[:, None], x[:, None, None] + step
    return padded[image[:, None, None], rows, columns].permute(0, 3, 1, 2)
