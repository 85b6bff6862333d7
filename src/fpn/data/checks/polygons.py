"""Outlines: can they be made into masks, do their polygons have an area, do they cross themselves?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fpn.data.checks.boxes import Objects
from fpn.data.formats.segmentation import is_polygons, polygon_arrays, unpack
from fpn.data.formats.survey import Survey
from fpn.data.issues import Finding
from fpn.shapes import Size
from fpn.structures.masks import MAX_CORNERS, MAX_REACH, MAX_TRAVEL, Segmentation, polygons_of, runs_of_code

# Polygons with more corners are not looked at for crossings: the time grows with the square.
MOST_CORNERS = 2000
# Pairs of edges in memory at a time.
_PAIRS = 1 << 20
_ANY = Size(1 << 30, 1 << 30)


def check_outlines(survey: Survey, objects: Objects) -> Iterator[Finding]:
    """What is wrong with the outlines of a split."""
    texts = survey.dataset.table.segmentations
    if texts is None:
        return
    polygons: list[np.ndarray] = []
    owners: list[int] = []
    sizes = _sizes(objects, survey)
    packed_at, starts = texts.data.numpy().tobytes(), texts.starts.tolist()
    for number, (start, end) in enumerate(itertools.pairwise(starts)):
        packed = packed_at[start:end]
        parts = polygon_arrays(packed) if is_polygons(packed) else []
        problem = _polygons_problem(parts, sizes[number]) if parts else outline_problem(unpack(packed), sizes[number])
        if problem:
            file = survey.name_of(int(objects.owner[number]))
            yield Finding("outline-broken", f"{survey.called(number)}: {problem}", file)
            continue
        least = min(map(len, parts), default=6) // 2
        if least < 3:
            file = survey.name_of(int(objects.owner[number]))
            yield Finding("outline-short", f"{survey.called(number)} has a polygon of {least} points", file)
        fit = [part.reshape(-1, 2) for part in parts if 8 <= len(part) <= 2 * MOST_CORNERS]
        polygons += fit
        owners += [number] * len(fit)
    for number in sorted({owners[k] for k in np.flatnonzero(crossing(polygons)).tolist()}):
        yield Finding("outline-crossing", survey.called(number), survey.name_of(int(objects.owner[number])))


def outline_problem(outline: Segmentation | None, size: Size | None) -> str:
    """Why an outline can't be made into a mask of an image of this size (None: not known); empty if it can."""
    try:
        if isinstance(outline, dict):
            height, width = outline["size"]
            if not len(runs_of_code(outline, size or Size(int(height), int(width)))):
                return "the run-length code has no pixel"
        elif outline is not None:
            return _polygons_problem([np.array(part) for part in outline], size)
    except (ValueError, TypeError, OverflowError) as error:
        return str(error)
    return ""


def _polygons_problem(parts: Sequence[np.ndarray], size: Size | None) -> str:
    odd = [len(part) for part in parts if len(part) >= 6 and len(part) % 2]
    if odd:
        return f"a polygon has {odd[0]} numbers, an odd count"
    reach = MAX_REACH * max(size or _ANY)
    if not all((np.abs(part) <= reach).all() for part in parts):
        return "a polygon reaches far out of the image, or holds what is no number"
    drawn = [part for part in parts if len(part) >= 6]
    if parts and not drawn:
        return "no polygon has three points, so the outline has no area"
    if size is not None and drawn and all(_is_outside(part, size) for part in drawn):
        return "the outline is wholly outside of the image"
    if drawn and all(_is_line(part) for part in drawn):
        return "the outline is a line, without an area"
    if size is not None and sum(map(len, parts)) * max(size.width, MAX_TRAVEL // MAX_CORNERS) > 2 * MAX_TRAVEL:
        try:
            polygons_of(list(parts), size)
        except ValueError as error:
            return str(error)
    return ""


def _is_outside(part: np.ndarray, size: Size) -> bool:
    """Whether a polygon lies on one side of the image; of most the first corner tells."""
    if 0 < part[0] < size.width and 0 < part[1] < size.height:
        return False
    x, y = part[0::2], part[1::2]
    return bool(x.max() <= 0 or y.max() <= 0 or x.min() >= size.width or y.min() >= size.height)


def _is_line(part: np.ndarray) -> bool:
    """Whether three or four corners enclose nothing; more are rarely drawn in a line."""
    if len(part) > 8:
        return False
    x, y = part[0::2] - part[0], part[1::2] - part[1]
    furthest = int(np.abs(x + 1j * y).argmax())
    return bool((x * y[furthest] == y * x[furthest]).all())


def crossing(polygons: Sequence[np.ndarray]) -> np.ndarray:
    """(P,) bool: which polygons, each (corners, 2), cross themselves. Edges that only touch do not cross."""
    crosses = np.zeros(len(polygons), dtype=bool)
    for corners, members in _by_length(polygons).items():
        at_once = max(1, _PAIRS // corners**2)
        for start in range(0, len(members), at_once):
            chunk = members[start : start + at_once]
            crosses[chunk] = _cross(np.stack([polygons[k] for k in chunk]))
    return crosses


def _by_length(polygons: Sequence[np.ndarray]) -> Mapping[int, list[int]]:
    groups: dict[int, list[int]] = {}
    for number, polygon in enumerate(polygons):
        groups.setdefault(len(polygon), []).append(number)
    return groups


def _cross(polygons: np.ndarray) -> np.ndarray:
    """(n,) bool of (n, corners, 2): an edge's ends lie on both sides of another edge, and the other way round."""
    starts, ends = polygons, np.roll(polygons, -1, axis=1)
    edges = ends - starts

    def side(points: np.ndarray) -> np.ndarray:
        """(n, edges, points): the sign says on which side of the edge the point lies."""
        delta = points[:, None] - starts[:, :, None]
        return np.asarray(edges[:, :, None, 0] * delta[..., 1] - edges[:, :, None, 1] * delta[..., 0])

    divided = side(starts) * side(ends) < 0  # (n, a, b): edge b lies on both sides of edge a
    return np.asarray((divided & divided.transpose(0, 2, 1)).any(axis=(1, 2)))


def _sizes(objects: Objects, survey: Survey) -> list[Size | None]:
    """The image's size for each object, in the unit of its polygons; None where not known."""
    if survey.dataset.table.fractions:
        return [Size(1, 1)] * len(objects)
    return [Size(int(height), int(width)) if height < math.inf else None for height, width in objects.sizes.tolist()]
