"""Outlines and keypoints that are not where their object's box is, or not in the image. All objects at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from fpn.data.checks.boxes import Objects
from fpn.data.formats.geometry import bounds_of_code
from fpn.data.formats.segmentation import is_polygons, polygon_arrays, unpack
from fpn.data.formats.survey import Survey
from fpn.data.issues import Finding

# A side of the outline may be this far from the box's, in pixels and as a part of the box: boxes are drawn by hand, and
# grown by a pixel here and there.
_NEAR_PIXELS, _NEAR = 4.0, 0.15
# A keypoint may be as far from its box as this part of the box's longer side: half-hidden people have such.
_FAR = 1.0
_AT_ONCE = 50_000


def check_outline_places(survey: Survey, objects: Objects) -> Iterator[Finding]:
    """Outlines whose bounds are not their object's box, if that is not cut by the image's edge."""
    texts = survey.dataset.table.segmentations
    if texts is None:
        return
    packed_at, starts = texts.data.numpy().tobytes(), texts.starts.tolist()
    packed = [packed_at[start:end] for start, end in itertools.pairwise(starts)]
    for first in range(0, len(packed), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        bounds = _bounds(packed[some])
        if survey.dataset.table.fractions:
            bounds = bounds * np.tile(objects.sizes[some][:, ::-1], 2)
        limits = np.tile(objects.sizes[some][:, ::-1], 2)
        boxes = objects.cut[some]
        sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0, keepdims=True)
        seen = np.clip(bounds, 0, limits)
        with np.errstate(invalid="ignore"):
            wrong = (np.abs(seen - boxes) > np.maximum(_NEAR_PIXELS, _NEAR * sides)).any(axis=1)
            # What lies outside of the image, or has no area, is told as broken.
            wrong &= objects.measured[some] & (seen[:, 2:] > seen[:, :2]).all(axis=1)
        for number in np.flatnonzero(wrong).tolist():
            said = f"its outline reaches from {_corners(bounds[number])}, its box from {_corners(boxes[number])}"
            file = survey.name_of(int(objects.owner[first + number]))
            yield Finding("outline-elsewhere", f"{survey.called(first + number)}: {said}", file)


def _bounds(packed: list[bytes]) -> np.ndarray:
    """(n, 4) xyxy around outlines; NaN for none, and for one that is broken, which is told elsewhere."""
    bounds = np.full((len(packed), 4), np.nan)
    polygons: list[np.ndarray] = []
    owners: list[int] = []
    for number, outline in enumerate(packed):
        if is_polygons(outline):
            parts = [part for part in polygon_arrays(outline) if len(part) >= 6 and len(part) % 2 == 0]
            polygons += parts
            owners += [number] * len(parts)
        elif outline:
            bounds[number] = _code_bounds(outline)
    if polygons:
        corners = np.concatenate(polygons).reshape(-1, 2)
        begins = np.cumsum([0, *(len(part) // 2 for part in polygons[:-1])])
        low, high = np.minimum.reduceat(corners, begins), np.maximum.reduceat(corners, begins)
        first = np.flatnonzero(np.diff(owners, prepend=-1))
        bounds[np.array(owners)[first], :2] = np.minimum.reduceat(low, first)
        bounds[np.array(owners)[first], 2:] = np.maximum.reduceat(high, first)
    return bounds


def _code_bounds(outline: bytes) -> tuple[float, ...]:
    code = unpack(outline)
    assert isinstance(code, dict), "no polygons"
    try:
        return bounds_of_code(code)
    except (ValueError, TypeError, OverflowError):
        return (np.nan,) * 4


def check_keypoint_places(survey: Survey, objects: Objects) -> Iterator[Finding]:
    """Labelled keypoints outside of their image, or further from their box than that is large."""
    dataset = survey.dataset
    if dataset.table.keypoints is None or dataset.skeleton is None:
        return
    points = dataset.table.keypoints.numpy()
    sizes = objects.sizes[:, None, ::-1]  # (M, 1, 2) width, height
    places = points[..., :2] * sizes if dataset.table.fractions else points[..., :2]
    low, high = objects.boxes[:, None, :2], objects.boxes[:, None, 2:]
    away = np.maximum(np.maximum(low - places, places - high), 0).max(axis=-1)
    far = away > _FAR * (high - low).max(axis=-1)
    outside = np.asarray(((places < 0) | (places > sizes)).any(axis=-1))
    wrong = (far | outside) & (points[..., 2] > 0) & objects.measured[:, None]
    for number in np.flatnonzero(wrong.any(axis=1)).tolist():
        which = int(np.flatnonzero(wrong[number])[0])
        x, y = places[number, which]
        where = (
            "outside of the image" if outside[number, which] else f"far from its box {_corners(objects.boxes[number])}"
        )
        message = f"{survey.called(number)}: keypoint {dataset.skeleton.names[which]} is at ({x:.6g}, {y:.6g}), {where}"
        yield Finding("keypoint-elsewhere", message, survey.name_of(int(objects.owner[number])))


def _corners(box: np.ndarray) -> str:
    x1, y1, x2, y2 = box
    return f"({x1:.6g}, {y1:.6g}) to ({x2:.6g}, {y2:.6g})"
