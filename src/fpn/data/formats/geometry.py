"""Boxes around what files say in other ways: outlines, and rectangles that are turned."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

Corners: TypeAlias = tuple[float, float, float, float]


def bounds_of(polygons: list[Any]) -> Corners:
    """xyxy around the corners of polygons [[x, y, x, y, ...], ...].

    Raises:
        ValueError: there is none, or something else than numbers in pairs.
    """
    values = [value for part in polygons if isinstance(part, list) for value in part]
    even = all(isinstance(part, list) and len(part) % 2 == 0 for part in polygons)
    if not values or not even or not all(type(value) in (int, float) for value in values):
        raise ValueError("no bbox, and no outline of which it could be made")
    xs = [value for part in polygons for value in part[0::2]]
    ys = [value for part in polygons for value in part[1::2]]
    return float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys))


def turned_bounds(box: Corners, degrees: float) -> Corners:
    """xyxy around a rectangle that is turned about its centre."""
    x1, y1, x2, y2 = box
    cosine, sine = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    width, height = x2 - x1, y2 - y1
    half = ((width * cosine + height * sine) / 2, (width * sine + height * cosine) / 2)
    middle = ((x1 + x2) / 2, (y1 + y2) / 2)
    return middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1]
