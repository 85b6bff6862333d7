"""One LabelMe JSON file: what it says about its image and the objects there.

Shapes are polygons, rectangles, circles, turned rectangles and bitmaps; shapes of one label with the same `group_id`
are one object. Points and lines enclose nothing and are left aside. AnyLabeling and X-AnyLabeling write the same files.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fpn.data.formats.files import read_json, shorten
from fpn.data.formats.geometry import Corners, bounds_of, bounds_of_code
from fpn.errors import DataError
from fpn.ops.run_lengths import runs_of_columns
from fpn.shapes import Size
from fpn.structures.masks import code_of_runs

# Labels with which LabelMe's own label lists begin: they are no classes.
NO_CLASSES = frozenset({"__ignore__", "_background_"})
_NO_AREA = frozenset({"point", "points", "line", "linestrip"})
_CIRCLE_CORNERS = 64
_IMAGE_KEYS = frozenset({"shapes", "imagePath", "imageData", "imageHeight", "imageWidth", "version"})
_OBJECT_KEYS = frozenset({"label", "points", "shape_type", "mask", "difficult"})


class LabelmeObject(NamedTuple):
    """A class name, its box and outline (None: the box is all), whether it is `difficult`, its first shape's number."""

    name: str
    box: Corners
    segmentation: Any
    difficult: bool
    number: int
    extra: Mapping[str, Any]


class LabelmeFile(NamedTuple):
    """What is kept of one file; `aside`: shapes that are no objects, number -> why."""

    image_name: str
    size: Size | None
    objects: tuple[LabelmeObject, ...]
    aside: Mapping[int, str]
    extra: Mapping[str, Any]


def read_labelme(
    path: Path, where: str, limit: int, fault: Callable[[str, DataError], None], *, everything: bool = False
) -> LabelmeFile:
    """Read one file.

    Args:
        path: the JSON file, of at most `limit` bytes.
        where: what messages call it.
        limit: bytes that are accepted.
        fault: is told (a key of `KINDS`, error) of a shape that is none, which is then left out.
        everything: keep also what a `Dataset` has no place for, in `extra`.

    Raises:
        DataError: it is broken.
    """
    data = read_json(path, limit)
    if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
        raise DataError(f"{where}: no list 'shapes' in it, as LabelMe's files have. Save the image's labels again.")
    size = _size(data, where, fault)
    parts: dict[object, list[_Part]] = {}
    aside: dict[int, str] = {}
    for number, shape in enumerate(data["shapes"], start=1):
        try:
            part = _part(shape, number, size, f"{where}: shape {number}")
        except DataError as error:
            fault("entry-broken", error)
            continue
        if part is None:
            aside[number] = f"{where}: shape {number} ({shorten(shape['label'])}) is a {shape.get('shape_type')}"
        elif part.name in NO_CLASSES:
            aside[number] = f"{where}: shape {number} is labelled {part.name}"
        else:
            parts.setdefault(part.group, []).append(part)
    objects = tuple(_joined(each, everything=everything) for each in parts.values())
    name = data.get("imagePath")
    extra = {key: value for key, value in data.items() if everything and key not in _IMAGE_KEYS and value}
    return LabelmeFile(name if isinstance(name, str) else "", size, objects, aside, extra)


class _Part(NamedTuple):
    """One shape: the outline of an object or of a part of it."""

    group: object
    name: str
    number: int
    box: Corners
    outline: list[float] | dict[str, Any]
    is_box: bool
    shape: Mapping[str, Any]


def _size(data: Mapping[str, Any], where: str, fault: Callable[[str, DataError], None]) -> Size | None:
    height, width = data.get("imageHeight"), data.get("imageWidth")
    if height is None or width is None:
        return None
    if not all(_is_number(value) and 0 < value < 2**31 and value == int(value) for value in (height, width)):
        message = f"{where}: imageWidth {shorten(width)} and imageHeight {shorten(height)}; both must be whole numbers "
        fault("size-unusable", DataError(message + "of pixels"))
        return None
    return Size(int(height), int(width))


def _part(shape: Any, number: int, size: Size | None, where: str) -> _Part | None:
    """A shape with its outline; None for one that encloses nothing."""
    if not isinstance(shape, dict):
        raise DataError(f"{where} is {shorten(shape)}, no shape. Label it again.")
    kind = shape.get("shape_type") or "polygon"
    name = shape.get("label")
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{where} has no label. Label it again.")
    if not isinstance(kind, str):
        raise DataError(f"{where} ({name}) has shape_type {shorten(kind)}, no word. Draw it again.")
    if kind in _NO_AREA:
        return None
    points = _points(shape, f"{where} ({name})")
    outline = _outline(kind, points, shape, size, f"{where} ({name})")
    box = bounds_of([outline]) if isinstance(outline, list) else _pixel_bounds(outline, f"{where} ({name})")
    group = shape.get("group_id")
    alone = group is None or isinstance(outline, dict) or not isinstance(group, int | str)
    key = (number,) if alone else (name.strip(), group)
    return _Part(key, name.strip(), number, box, outline, kind == "rectangle" and len(points) == 2, shape)


def _points(shape: Mapping[str, Any], where: str) -> list[tuple[float, float]]:
    points = shape.get("points")
    if not isinstance(points, list) or not all(_is_point(point) for point in points):
        raise DataError(f"{where} has no points, or some that are not two numbers. Draw it again.")
    return [(float(x), float(y)) for x, y in points]


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(_is_number(value) for value in point)


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**53)


def _outline(
    kind: str, points: list[tuple[float, float]], shape: Mapping[str, Any], size: Size | None, where: str
) -> list[float] | dict[str, Any]:
    needed = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2, "oriented_rectangle": 4, "rotation": 4}
    if kind not in needed:
        raise DataError(f"{where} is a {shorten(kind)}, no shape that is known. Draw it as a polygon.")
    if len(points) < needed[kind]:
        raise DataError(f"{where}: a {kind} of {len(points)} points; it takes at least {needed[kind]}. Draw it again.")
    if kind == "rectangle" and len(points) == 2:
        x1, y1, x2, y2 = _bounds(points)
        return [x1, y1, x2, y1, x2, y2, x1, y2]
    if kind == "circle":
        return _circle(points[0], math.dist(points[0], points[1]))
    if kind == "mask":
        return _bitmap(points, shape.get("mask"), size, where)
    return [value for point in points for value in point]


def _bounds(points: list[tuple[float, float]]) -> Corners:
    return bounds_of([[value for point in points for value in point]])


def _pixel_bounds(code: dict[str, Any], where: str) -> Corners:
    try:
        return bounds_of_code(code)
    except ValueError as error:
        raise DataError(f"{where}: its bitmap has no pixel. Draw it again.") from error


def _circle(centre: tuple[float, float], radius: float) -> list[float]:
    angles = np.arange(_CIRCLE_CORNERS) * (2 * math.pi / _CIRCLE_CORNERS)
    corners = np.stack((centre[0] + radius * np.cos(angles), centre[1] + radius * np.sin(angles)), axis=1)
    return [float(value) for value in corners.ravel()]


def _bitmap(points: list[tuple[float, float]], encoded: Any, size: Size | None, where: str) -> dict[str, Any]:
    """The run-length code of a bitmap that stands at its first point."""
    if size is None:
        raise DataError(f"{where}: a bitmap, in a file without imageHeight and imageWidth. Save the labels again.")
    left, top = (int(min(values)) for values in zip(*points, strict=True))
    try:
        mask = _decoded(encoded, size)
    except (binascii.Error, TypeError, ValueError, OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: its bitmap can't be read ({error}). Draw it again.") from error
    if left < 0 or top < 0 or top + mask.shape[0] > size.height or left + mask.shape[1] > size.width:
        raise DataError(
            f"{where}: a bitmap of {mask.shape[1]} x {mask.shape[0]} at ({left}, {top}) reaches out of the image of "
            f"{size.width} x {size.height}. Draw it again."
        )
    return code_of_runs(runs_of_columns(mask.T, top=top, left=left, height=size.height), size)


def _decoded(encoded: Any, size: Size) -> np.ndarray:
    """(h, w) bool out of base64 of a PNG no larger than the image."""
    if not isinstance(encoded, str):
        raise TypeError("there is none")
    with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)), formats=("PNG",)) as opened:
        if opened.height > size.height or opened.width > size.width:
            raise ValueError(f"{opened.width} x {opened.height} pixels, more than the image has")
        return np.asarray(opened.convert("L")) > 0


def _joined(parts: list[_Part], *, everything: bool) -> LabelmeObject:
    """The object that shapes of one group are."""
    first = parts[0]
    boxes = np.array([part.box for part in parts])
    x1, y1 = boxes[:, :2].min(axis=0).tolist()
    x2, y2 = boxes[:, 2:].max(axis=0).tolist()
    outline: Any = [part.outline for part in parts]
    if isinstance(first.outline, dict):
        outline = first.outline
    elif len(parts) == 1 and first.is_box:
        outline = None
    difficult = any(part.shape.get("difficult") is True for part in parts)
    extra = {key: value for key, value in first.shape.items() if everything and key not in _OBJECT_KEYS and value}
    return LabelmeObject(first.name, (x1, y1, x2, y2), outline, difficult, first.number, extra)
