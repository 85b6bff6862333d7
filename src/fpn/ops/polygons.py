"""Polygons to pixels, by COCO's rule and to the pixel as pycocotools does it, all polygons at once.

The rule: corners are rounded to fifths of a pixel, edges become steps of a fifth, and a pixel belongs to the polygon if
the middle of its column is crossed above it an odd number of times.

Source: rleFrPoly and rleMerge of cocoapi's maskApi.c, as described by its results; the arithmetic that decides ties is
the same, while only the steps at the columns' middles are computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from fpn.ops.run_lengths import Integers, Runs, joined_spans, rows_of_parts, starts_of
from fpn.shapes import Size

Numbers = NDArray[np.float64]
# Steps a pixel, and the step before the middle of a column.
_FINE, _MIDDLE = 5, 2
# Crossings of edges and columns in memory at a time, each some hundred bytes.
_CHUNK_CROSSINGS = 1 << 21
# Corners moved into boxes at a time.
_CHUNK_CORNERS = 1 << 18


class Polygons(NamedTuple):
    """The polygons of N objects in one array; an object has any number of them.

    Attributes:
        points: (P, 2) float64 x and y of the corners, pixels.
        parts: (Q + 1,) int64, polygon i has the corners parts[i] to parts[i + 1].
        starts: (N + 1,) int64, object i has the polygons starts[i] to starts[i + 1].
    """

    points: Numbers
    parts: Integers
    starts: Integers

    @classmethod
    def of(cls, objects: Sequence[Sequence[Numbers]]) -> Polygons:
        """Join some objects' polygons, each (k, 2) or x, y, x, y, ..."""
        parts = [part.reshape(-1, 2) for polygons in objects for part in polygons]
        points = np.concatenate([np.zeros((0, 2)), *parts])
        return cls(points, starts_of([len(part) for part in parts]), starts_of([len(each) for each in objects]))

    def take(self, numbers: Integers) -> Polygons:
        """The polygons of some of the objects, in this order."""
        which, starts = rows_of_parts(self.starts, numbers)
        rows, parts = rows_of_parts(self.parts, which)
        return Polygons(self.points[rows], parts, starts)

    def one(self, number: int) -> list[Numbers]:
        """The polygons (k, 2) of one object."""
        which = range(self.starts[number], self.starts[number + 1])
        return [self.points[self.parts[k] : self.parts[k + 1]] for k in which]

    def owners(self) -> Integers:
        """(P,) which object each corner is of."""
        per_object = self.parts[self.starts[1:]] - self.parts[self.starts[:-1]]
        return np.repeat(np.arange(len(per_object)), per_object)


def runs_of_polygons(polygons: Polygons, size: Size) -> Runs:
    """The pixels of each object: of any of its polygons. The work grows with `travel`."""
    numbers = np.arange(len(polygons.starts) - 1)
    chunk = np.cumsum(travel(polygons, size.width)) // _CHUNK_CROSSINGS
    parts = np.split(numbers, np.flatnonzero(np.diff(chunk)) + 1)
    if len(parts) == 1:
        return _filled(polygons, size)
    filled = [_filled(polygons.take(some), size) for some in parts]
    counts = np.concatenate([np.diff(runs.starts) for runs in filled])
    return Runs(np.concatenate([runs.spans for runs in filled]), starts_of(counts))


def travel(polygons: Polygons, width: int) -> Int[np.ndarray, " n"]:
    """(N,) about how many columns of an image the edges of each object cross, all together."""
    x = np.clip(polygons.points[:, 0], 0, width)
    # Across the joint of two polygons, and without each one's last edge: near enough.
    steps = np.ceil(np.abs(np.diff(x, prepend=x[:1]))).astype(np.int64)
    total = np.concatenate(([0], np.cumsum(steps)))
    ends = total[polygons.parts[polygons.starts]]
    return np.diff(ends)


def _filled(polygons: Polygons, size: Size) -> Runs:
    part, toggles = _crossings(polygons, size)
    # Sorted within each polygon, every second crossing ends what the one before it began.
    key = np.sort(part * (size.height * size.width + 1) + toggles)
    part, spans = np.divmod(key.reshape(-1, 2), size.height * size.width + 1)
    owner = np.repeat(np.arange(len(polygons.starts) - 1), np.diff(polygons.starts))[part[:, 0]]
    return _united(owner, spans, len(polygons.starts) - 1, size)


def _crossings(polygons: Polygons, size: Size) -> tuple[Integers, Integers]:
    """Where edges cross the middles of columns: which polygon, and the first pixel behind the crossing."""
    corners = np.trunc(polygons.points * _FINE + 0.5).astype(np.int64)
    follower = np.arange(1, len(corners) + 1)
    lengths = np.diff(polygons.parts)
    follower[polygons.parts[1:][lengths > 0] - 1] = polygons.parts[:-1][lengths > 0]
    start, end = corners, corners[follower]
    flat = np.abs(end - start)[:, 0] >= np.abs(end - start)[:, 1]
    # Always drawn towards larger x if flat, towards larger y if steep, as rounding depends on the direction.
    turned = np.where(flat, start[:, 0] > end[:, 0], start[:, 1] > end[:, 1])[:, None]
    start, end = np.where(turned, end, start), np.where(turned, start, end)
    low, high = np.minimum(start[:, 0], end[:, 0]), np.maximum(start[:, 0], end[:, 0])
    first = np.maximum(-((_MIDDLE - low) // _FINE), 0)
    last = np.minimum((high - _MIDDLE - 1) // _FINE, size.width - 1)
    counts = np.maximum(last - first + 1, 0)
    edge = np.repeat(np.arange(len(counts)), counts)
    column = np.arange(len(edge)) - np.repeat(starts_of(counts)[:-1] - first, counts)
    step = np.where(flat[edge], _flat_steps(start, end, edge, column), _steep_steps(start, end, edge, column))
    row = np.clip(-((_MIDDLE - step) // _FINE), 0, size.height)
    return np.repeat(np.arange(len(lengths)), lengths)[edge], column * size.height + row


def _flat_steps(start: Integers, end: Integers, edge: Integers, column: Integers) -> Integers:
    """The higher of an edge's two steps beside a column's middle, of edges that advance in x by one at each step."""
    across, down = (end - start).T
    slope = (down / np.maximum(across, 1))[edge]
    along = column * _FINE + _MIDDLE - start[edge, 0]
    before, after = (np.trunc(start[edge, 1] + slope * (along + k) + 0.5) for k in (0, 1))
    return np.asarray(np.minimum(before, after).astype(np.int64))


def _steep_steps(start: Integers, end: Integers, edge: Integers, column: Integers) -> Integers:
    """The same of edges that advance in y by one at each step: the last step before x crosses the middle."""
    across, down = (end - start).T
    slope = (across / np.maximum(down, 1))[edge]
    begin, rising = start[edge, 0], slope > 0
    middle = column * _FINE + _MIDDLE + 1.0

    def crossed(along: Integers) -> NDArray[np.bool_]:
        return np.asarray((begin + slope * along + 0.5 >= middle) == rising)

    exact = (middle - 0.5 - begin) / np.where(slope == 0, 1, slope)
    along = np.clip(np.ceil(exact), 0, 2**40).astype(np.int64)
    # The quotient may be a rounding off what the step's own arithmetic says.
    along = np.where(crossed(along - 1), along - 1, along)
    along = np.where(crossed(along), along, along + 1)
    return np.asarray(start[edge, 1] + along - 1)


def _united(owner: Integers, spans: Integers, count: int, size: Size) -> Runs:
    """Runs of several polygons an object as runs of the object; each polygon's ascend, polygons in order."""
    pixels = size.height * size.width + 1
    keyed = spans + owner[:, None] * pixels
    if (keyed[1:, 0] < keyed[:-1, 1]).any():
        keyed = _swept(keyed)
    keyed = joined_spans(keyed)
    owner = keyed[:, 0] // pixels
    return Runs(keyed - owner[:, None] * pixels, starts_of(np.bincount(owner, minlength=count)))


def _swept(spans: Integers) -> Integers:
    """Overlapping runs as ascending ones: from where the first begins to where the last of a heap ends."""
    spans = spans[spans[:, 1] > spans[:, 0]]
    places = np.concatenate((spans[:, 0], spans[:, 1]))
    change = np.repeat([1, -1], len(spans))
    order = np.lexsort((-change, places))
    places, change = places[order], change[order]
    covered = np.cumsum(change)
    begins, ends = (change == 1) & (covered == 1), covered == 0
    return np.stack([places[begins], places[ends]], axis=1)


def clip_polygons(polygons: Polygons, size: Size) -> Polygons:
    """What of each polygon lies in (0, 0, width, height); polygons of which nothing does are left out.

    Source: Sutherland and Hodgman 1974, "Reentrant polygon clipping". Where a polygon leaves the image several times,
    its pieces stay joined by lines along the rim, which hold no area.
    """
    limits = (0.0, 0.0, float(size.width), float(size.height))
    points = polygons.points
    if (points >= 0).all() and (points <= limits[2:]).all():
        return polygons
    for side, limit in enumerate(limits):
        polygons = _clip_side(polygons, axis=side % 2, limit=limit, sign=1.0 if side < 2 else -1.0)
    return polygons


def _clip_side(polygons: Polygons, *, axis: int, limit: float, sign: float) -> Polygons:
    points, lengths = polygons.points, np.diff(polygons.parts)
    before = np.arange(len(points)) - 1
    before[polygons.parts[:-1][lengths > 0]] = polygons.parts[1:][lengths > 0] - 1
    height = sign * (points[:, axis] - limit)
    inside = height >= 0
    crosses = inside != inside[before]
    # A corner gives the crossing on the way to it, if there is one, and then itself, if it is inside.
    counts = crosses.astype(np.int64) + inside
    at = starts_of(counts)
    clipped = np.empty((at[-1], 2))
    share = (height[before] / np.where(crosses, height[before] - height, 1.0))[crosses, None]
    rim = points[before][crosses] + share * (points - points[before])[crosses]
    rim[:, axis] = limit
    clipped[at[:-1][crosses]] = rim
    clipped[at[1:][inside] - 1] = points[inside]
    parts = at[polygons.parts]
    return _without_empty(Polygons(clipped, parts, polygons.starts))


def _without_empty(polygons: Polygons) -> Polygons:
    kept = np.diff(polygons.parts) > 0
    if kept.all():
        return polygons
    numbers = np.concatenate(([0], np.cumsum(kept)))
    parts = np.concatenate((polygons.parts[:-1][kept], polygons.parts[-1:]))
    return Polygons(polygons.points, parts, numbers[polygons.starts])


def boxes_of_polygons(polygons: Polygons) -> Float[np.ndarray, "n 4"]:
    """(N, 4) xyxy from the outermost corners; zeros for an object without any."""
    at = polygons.parts[polygons.starts]
    boxes = np.zeros((len(at) - 1, 4))
    filled = np.flatnonzero(np.diff(at))
    if len(filled):
        boxes[filled, :2] = np.minimum.reduceat(polygons.points, at[filled], axis=0)
        boxes[filled, 2:] = np.maximum.reduceat(polygons.points, at[filled], axis=0)
    return boxes


def rectangles(boxes: Float[np.ndarray, "n 4"]) -> Polygons:
    """Each box as a polygon of four corners."""
    x1, y1, x2, y2 = boxes.astype(np.float64).T
    points = np.stack([x1, y1, x2, y1, x2, y2, x1, y2], axis=1).reshape(-1, 2)
    count = np.arange(len(boxes) + 1)
    return Polygons(points, 4 * count, count)


def rasterised_in_boxes(polygons: Polygons, boxes: Float[np.ndarray, "n 4"], cells: int) -> Int[np.ndarray, "n s s"]:
    """Each object's polygons on the grid of its box, 1 where COCO's rule fills the cell.

    Source: Detectron2's rasterize_polygons_within_box: moved to the box's corner, scaled by cells / side with a side of
    0.1 at least, then filled like an image of S x S.
    """
    chunk = polygons.parts[polygons.starts[1:]] // _CHUNK_CORNERS
    parts = np.split(np.arange(len(boxes)), np.flatnonzero(np.diff(chunk)) + 1)
    if len(parts) == 1:
        return _filled_in_boxes(polygons, boxes, cells)
    return np.concatenate([_filled_in_boxes(polygons.take(some), boxes[some], cells) for some in parts])


def _filled_in_boxes(polygons: Polygons, boxes: np.ndarray, cells: int) -> np.ndarray:
    boxes = boxes.astype(np.float32)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], np.float32(0.1)).astype(np.float64)
    owner = polygons.owners()
    points = (polygons.points - boxes[owner, :2]) * (cells / sides)[owner]
    runs = runs_of_polygons(polygons._replace(points=points), Size(cells, cells))
    at = np.repeat(np.arange(len(boxes)), np.diff(runs.starts)) * cells**2
    change = np.zeros(len(boxes) * cells**2 + 1, dtype=np.int8)
    # No two runs of a mask begin or end at one cell.
    change[runs.spans[:, 0] + at] += 1
    change[runs.spans[:, 1] + at] -= 1
    cover = np.cumsum(change[:-1], dtype=np.int8).reshape(len(boxes), cells, cells)
    return np.asarray(cover.transpose(0, 2, 1))
