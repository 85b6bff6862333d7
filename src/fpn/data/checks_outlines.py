"""Outlines: can they be made into masks, do their polygons have an area, do they cross themselves?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fpn.data.checks_boxes import Objects
from fpn.data.faults import Finding, Survey
from fpn.data.segmentation import Segmentation, check_reach, parse_runs, unpack
from fpn.shapes import Size

# Polygons with more corners are not looked at for crossings: the time grows with the square.
MOST_CORNERS = 2000
# Pairs of edges in memory at a time.
_PAIRS = 1 << 20


def judge_outlines(survey: Survey, objects: Objects) -> Iterator[Finding]:
    """What is wrong with the outlines of a split."""
    texts = survey.dataset.table.segmentations
    if texts is None:
        return
    polygons: list[np.ndarray] = []
    owners: list[int] = []
    for number in range(len(objects)):
        outline = unpack(texts[number])
        file = survey.name_of(int(objects.owner[number]))
        problem = outline_problem(outline, _size(objects, number, survey))
        if problem:
            yield Finding("outline-broken", f"{survey.called(number)}: {problem}", file)
        elif isinstance(outline, list):
            if any(len(part) < 6 for part in outline):
                least = min(len(part) for part in outline) // 2
                yield Finding("outline-short", f"{survey.called(number)} has a polygon of {least} points", file)
            fit = [part for part in outline if 8 <= len(part) <= 2 * MOST_CORNERS]
            polygons += [np.array(part).reshape(-1, 2) for part in fit]
            owners += [number] * len(fit)
    for number in sorted({owners[k] for k in np.flatnonzero(crossing(polygons)).tolist()}):
        yield Finding("outline-crossing", survey.called(number), survey.name_of(int(objects.owner[number])))


def outline_problem(outline: Segmentation | None, size: Size | None) -> str:
    """Why an outline can't be made into a mask of a picture of this size (None: not known); empty if it can."""
    try:
        if isinstance(outline, dict):
            height, width = outline["size"]
            parse_runs(outline, size or Size(int(height), int(width)))
        elif outline is not None:
            odd = [len(part) for part in outline if len(part) >= 6 and len(part) % 2]
            if odd:
                return f"a polygon has {odd[0]} numbers, an odd count"
            for part in outline:
                check_reach(part, size or Size(1 << 30, 1 << 30))
    except (ValueError, TypeError, OverflowError) as error:
        return str(error)
    return ""


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


def _size(objects: Objects, number: int, survey: Survey) -> Size | None:
    height, width = objects.sizes[number]
    if survey.dataset.table.fractions:
        return Size(1, 1)  # polygons are fractions, too
    return Size(int(height), int(width)) if np.isfinite(height) else None
