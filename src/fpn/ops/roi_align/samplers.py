"""Where a RoI's grid reads a map along one axis, and with which weights.

Bilinear sampling is separable: what a bin reads is the outer product of its taps down the rows and its taps along the
columns. All samplers but the maximum of RoIPool differ only in the points computed here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Taps:
    """Cells that each bin reads along one axis. A tap of weight 0 is padding, whatever its cell.

    Attributes:
        cell: (R, S, T) int64, within [0, size - 1].
        weight: (R, S, T) float32.
    """

    cell: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Span:
    """One axis of all RoIs.

    Attributes:
        start: (R,) lower edges in cells of the map.
        end: (R,) upper edges in cells of the map.
        size: (R,) int64, cells of the map along the axis.
    """

    start: Tensor
    end: Tensor
    size: Tensor

    def __getitem__(self, part: slice) -> Span:
        """Some RoIs."""
        return Span(self.start[part], self.end[part], self.size[part])


def align(span: Span, bins: int, *, ratio: int, aligned: bool) -> Taps:
    """RoIAlign: `ratio` points a bin (0: as many as the bin has cells), their mean.

    Source: He et al. 2017, arXiv:1703.06870; arithmetic in the order of torchvision.ops.roi_align, whose points on the
    rim of a map must fall to the same side.
    """
    shift = 0.5 if aligned else 0.0
    start = (span.start - shift)[:, None, None]
    length = (span.end - shift)[:, None, None] - start
    if not aligned:
        length = length.clamp(min=1.0)
    if ratio > 0:
        grid, most = torch.full_like(length, ratio), ratio
    else:
        grid = (length / bins).ceil().clamp(min=0)
        most = max(int(grid.max()), 1) if len(grid) else 1
    sample = torch.arange(most, device=start.device)
    step = length / bins
    place = start + _bins(bins, start) * step + (sample + 0.5) * step / grid.clamp(min=1)
    size = span.size[:, None, None]
    inside = (place >= -1) & (place <= size) & (sample < grid)
    place = torch.minimum(place.clamp(min=0), size - 1)
    return _bilinear(place, place.floor(), size, inside / grid.clamp(min=1))


def align_average(span: Span, bins: int) -> Taps:
    """RoIAlignAvg of fpn.pytorch: (S + 1) points from edge to edge, averaged two by two.

    The box is one cell too long there (its +1 belongs to pixels, but is added to cells), and beyond the centre of
    the last cell the map is continued along its last slope: weights leave [0, 1].
    """
    length = (span.end - span.start + 1).clamp(min=0)[:, None, None]
    point = _bins(bins, length) + torch.arange(2, device=length.device)
    place = span.start[:, None, None] + point * (length / bins)
    size = span.size[:, None, None]
    low = torch.minimum(place.floor(), size - 2).clamp(min=0)
    return _bilinear(place, low, size, ((place >= 0) & (place < size)) * 0.5)


def crop(span: Span, points: int) -> Taps:
    """RoICrop of fpn.pytorch: points from edge to edge, the map surrounded by zeros.

    What F.affine_grid and F.grid_sample with align_corners=True compute, and in the order of theirs, by way of a map
    from -1 to 1: for RoIs far larger than the map a shorter way rounds otherwise by more than 1e-5.
    """
    size = span.size[:, None, None]
    start, end, last = span.start[:, None, None], span.end[:, None, None], (size - 1).clamp(min=1)
    base = torch.linspace(-1, 1, points, device=start.device)[None, :, None] if points > 1 else torch.zeros_like(start)
    grid = base * ((end - start) / last) + (start + end - last) / last
    place = (grid + 1) / 2 * last
    return _bilinear(place, place.floor(), size, torch.ones_like(place))


def crop_and_resize(span: Span, points: int) -> Taps:
    """tf.image.crop_and_resize: points from edge to edge; one beyond the outermost centres reads 0."""
    place = _from_edge_to_edge(span, points)
    size = span.size[:, None, None]
    inside = (place >= 0) & (place <= size - 1)
    return _bilinear(place, place.floor(), size, inside.to(place.dtype))


def merged(taps: Taps) -> Taps:
    """Add up the taps of a bin that read the same cell; what becomes free is padding at the end.

    A bin narrower than two cells reads some cells twice: a third of the work of typical RoIs.

    Args:
        taps: as `_bilinear` lays them out: the lower cells of the samples, then the upper ones. The samples of a bin
            go in one direction, so that a cell's taps are neighbours.
    """
    samples = taps.cell.shape[2] // 2
    if samples == 1:
        return taps
    low, high = taps.cell[..., :samples], taps.cell[..., samples:]
    slot = torch.zeros_like(low)
    # Two slots on is far enough for the next sample, as its lower cell is then not this one's upper one.
    slot[..., 1:] = low.diff(dim=2).clamp(-2, 2).cumsum(dim=2)
    slot -= slot[..., -1:].clamp(max=0)
    slots = torch.cat([slot, slot + (high - low)], dim=2)
    cell = torch.zeros_like(taps.cell).scatter_(2, slots, taps.cell)
    weight = torch.zeros_like(taps.weight).scatter_add_(2, slots, taps.weight)
    return Taps(cell, weight)


def _bins(bins: int, like: Tensor) -> Tensor:
    return torch.arange(bins, dtype=like.dtype, device=like.device)[None, :, None]


def _from_edge_to_edge(span: Span, points: int) -> Tensor:
    start, end = span.start[:, None, None], span.end[:, None, None]
    if points == 1:
        return (start + end) / 2
    return start + _bins(points, start) * ((end - start) / (points - 1))


def _bilinear(place: Tensor, low: Tensor, size: Tensor, weight: Tensor) -> Taps:
    """Taps of points (R, S, N): first the N cells below them, then the N cells above."""
    upper = place - low
    low = low.to(torch.int64)
    weights = torch.cat([(1 - upper) * weight, upper * weight], dim=2)
    cells = torch.cat([low, low + 1], dim=2)
    outside = (cells < 0) | (cells >= size)
    last = size - 1
    return Taps(torch.minimum(cells.clamp(min=0), last), weights.masked_fill(outside, 0.0))
