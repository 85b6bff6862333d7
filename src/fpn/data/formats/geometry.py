"""Boxes around what files say in other ways: outlines, and rectangles that are turned."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from fpn.ops.run_lengths import Runs, boxes_of_runs
from fpn.shapes import Size
from fpn.structures.masks import runs_of_code

Corners: TypeAlias = tuple[float, float, float, float]


def bounds_of(polygons: list[Any]) -> Corners:
    """xyxy around the corners of polygons [[x, y, x, y, ...], ...]; not finite where a corner is not.

    Raises:
        ValueError: there is none, or something else than numbers in pairs.
    """
    values = [value for part in polygons if isinstance(part, list) for value in part]
    even = all(isinstance(part, list) and len(part) % 2 == 0 for part in polygons)
    if not values or not even or not all(type(value) in (int, float) for value in values):
        raise ValueError("no bbox, and no outline of which it could be made")
    if not all(math.isfinite(value) for value in values):
        return (math.nan,) * 4
    xs = [value for part in polygons for value in part[0::2]]
    ys = [value for part in polygons for value in part[1::2]]
    return float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys))


def bounds_of_code(code: dict[str, Any]) -> Corners:
    """xyxy around the pixels of a COCO run-length code.

    Raises:
        ValueError, TypeError, OverflowError: it is broken, or has no pixel.
    """
    height, width = code.get("size", ())
    if type(height) is not int or type(width) is not int or "counts" not in code:
        raise ValueError("no bbox, and an outline without 'size' and 'counts' in whole numbers")
    runs = Runs.of([runs_of_code(code, Size(height, width))])
    box = boxes_of_runs(runs, max(height, 1))[0].tolist()
    if not has_extent(box):
        raise ValueError("no bbox, and no pixel in its outline")
    return float(box[0]), float(box[1]), float(box[2]), float(box[3])


def has_extent(box: Any) -> bool:
    """Whether xyxy are finite and the right lower corner is right of and below the left upper one."""
    with np.errstate(invalid="ignore"):
        return bool(np.isfinite(box).all() and box[0] < box[2] and box[1] < box[3])


def turned_bounds(box: Corners, degrees: float) -> Corners:
    """xyxy around a rectangle that is turned about its centre; not finite where the angle is not."""
    if not math.isfinite(degrees):
        return (math.nan,) * 4
    x1, y1, x2, y2 = box
    cosine, sine = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    width, height = x2 - x1, y2 - y1
    half = ((width * cosine + height * sine) / 2, (width * sine + height * cosine) / 2)
    middle = ((x1 + x2) / 2, (y1 + y2) / 2)
    return middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1]
