"""Outlines as annotation files write them: checked in form, kept as bytes, made to masks when asked."""

from __future__ import annotations

import json
from array import array
from typing import Any

import numpy as np

from fpn.shapes import Size
from fpn.structures.masks import Outline, Segmentation, polygons_of, runs_of_code

# The first byte says which: polygons are stored as their numbers, six times faster to write than as text; run-length
# codes, of which a dataset has few, as JSON.
_POLYGONS, _RUNS = b"P", b"R"


def pack(segmentation: Any) -> bytes:
    """A COCO segmentation as bytes; none for an absent or empty one.

    Raises:
        ValueError: it is neither polygons nor a run-length code. The caller knows where it stands.
    """
    if not segmentation:
        return b""
    if isinstance(segmentation, dict):
        if not {"size", "counts"} <= segmentation.keys():
            raise ValueError("segmentation is an object without 'size' and 'counts'")
        return _pack_runs(segmentation["size"], segmentation["counts"])
    if not isinstance(segmentation, list) or not all(isinstance(part, list) for part in segmentation):
        raise ValueError("segmentation is neither a list of polygons nor a run-length code")
    return _pack_polygons(segmentation)


def _pack_runs(size: Any, counts: Any) -> bytes:
    for numbers in (size, counts):
        if not isinstance(numbers, list | str) or not all(isinstance(each, int | str) for each in numbers):
            raise ValueError("segmentation is a run-length code whose 'size' or 'counts' are no whole numbers")
    return _RUNS + json.dumps({"size": size, "counts": counts}, separators=(",", ":")).encode("ascii")


def _pack_polygons(parts: list[list[Any]]) -> bytes:
    try:
        lengths = array("q", [len(parts), *map(len, parts)])
        return b"".join((_POLYGONS, lengths.tobytes(), *(array("d", part).tobytes() for part in parts)))
    except (TypeError, OverflowError):
        raise ValueError("segmentation holds a polygon that is not a list of numbers") from None


def unpack(packed: bytes, *, scale: tuple[int, int] | None = None) -> Segmentation | None:
    """The reverse of `pack`; `scale` (x, y) multiplies polygons that were written as fractions of the image."""
    if not packed:
        return None
    if packed[:1] == _RUNS:
        code: dict[str, Any] = json.loads(packed[1:])
        return code
    parts = [part.tolist() for part in polygon_arrays(packed)]
    if scale is None:
        return parts
    return [[value * scale[k % 2] for k, value in enumerate(part)] for part in parts]


def is_polygons(packed: bytes) -> bool:
    """Whether these are packed polygons, neither a run-length code nor nothing."""
    return packed[:1] == _POLYGONS


def polygon_arrays(packed: bytes) -> list[np.ndarray]:
    """The numbers of each of the packed polygons, without a copy."""
    (count,) = np.frombuffer(packed, np.int64, 1, offset=1).tolist()
    ends = np.frombuffer(packed, np.int64, count, offset=9).cumsum().tolist()
    numbers = np.frombuffer(packed, np.float64, offset=9 + 8 * count)
    return [numbers[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def outline_of(packed: bytes, box: list[float], size: Size, scale: tuple[int, int] | None) -> Outline:
    """Packed polygons or a run-length code as `Masks` takes them; the box for an object without an outline.

    Args:
        packed: by `pack`.
        box: xyxy, pixels.
        size: of the image.
        scale: as in `unpack`.

    Raises:
        ValueError, TypeError, OverflowError: the outline is broken or of another size than the image.
    """
    if not packed:
        x1, y1, x2, y2 = box
        return [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], dtype=np.float64)]
    if packed[:1] == _RUNS:
        return runs_of_code(json.loads(packed[1:]), size)
    polygons = polygon_arrays(packed)
    if scale is not None:
        polygons = [part * np.resize(scale, len(part)) for part in polygons]
    return polygons_of(polygons, size)
