"""Outlines as annotation files write them: checked in form, kept as bytes, decoded to masks when asked."""

from __future__ import annotations

import json
import math
from array import array
from typing import Any, TypeAlias

import numpy as np
import torch
from hotcoco import mask as coco_mask
from torch import Tensor

from fpn.errors import DataError
from fpn.shapes import Size

# COCO's three ways: polygons [[x, y, x, y, ...], ...], or a run-length code {"size": [h, w], "counts": [...] or "..."}.
Segmentation: TypeAlias = list[list[float]] | dict[str, Any]

# The first byte says which: polygons are stored as their numbers, six times faster to write than as text; run-length
# codes, of which a dataset has few, as JSON.
_POLYGONS, _RUNS = b"P", b"R"
# How far out of its image a polygon may reach, in times of the image's longer side.
MAX_REACH = 10


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


def to_mask(segmentation: Segmentation | None, box: Tensor, size: Size, where: str) -> Tensor:
    """The (H, W) bool mask of one object; the filled box when it has no outline.

    Raises:
        DataError: the outline is broken or of another size than the image.
    """
    try:
        if segmentation is None:
            return _filled_box(box, size)
        if isinstance(segmentation, dict):
            return _from_runs(segmentation, size)
        return _from_polygons(segmentation, size)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{where}: broken segmentation ({error})") from error


def _filled_box(box: Tensor, size: Size) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    left, top, right, bottom = box.round().long().tolist()
    mask[top:bottom, left:right] = True
    return mask


def _from_polygons(parts: list[list[float]], size: Size) -> Tensor:
    polygons = [[float(value) for value in part] for part in parts if len(part) >= 6]
    for polygon in polygons:
        if len(polygon) % 2:
            raise ValueError(f"a polygon has {len(polygon)} numbers, an odd count")
        _check_reach(polygon, size)
    if not polygons:
        return torch.zeros(size, dtype=torch.bool)
    return _decode(coco_mask.merge(coco_mask.frPyObjects(polygons, size.height, size.width)))


def _check_reach(polygon: list[float], size: Size) -> None:
    """Rasterising walks along the edges, so its time grows with their length: refuse outlines far outside."""
    reach = MAX_REACH * max(size)
    if not all(math.isfinite(value) and abs(value) <= reach for value in polygon):
        raise ValueError(f"a polygon reaches far out of the {size.width} x {size.height} image")


def _from_runs(code: dict[str, Any], size: Size) -> Tensor:
    runs = parse_runs(code, size)
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    # Runs go down the columns: (W * H) -> (W, H) -> (H, W)
    return torch.from_numpy(values.reshape(size.width, size.height).T.copy())


def parse_runs(code: dict[str, Any], size: Size) -> list[int]:
    """Lengths of the runs of a code, outside and inside by turns.

    Raises:
        ValueError, TypeError, OverflowError: it is broken or of another size.
    """
    if code["size"] != [size.height, size.width]:
        raise ValueError(f"run-length code for height, width {code['size']}, the image has {list(size)}")
    counts = code["counts"]
    runs = [int(run) for run in counts] if isinstance(counts, list) else _parse_counts(counts)
    if any(run < 0 for run in runs) or sum(runs) != size.height * size.width:
        raise ValueError("the runs do not add up to the image")
    return runs


def _parse_counts(text: Any) -> list[int]:
    """COCO's compressed counts: 5 bits a character, each run from the third as a difference to the one two before."""
    if not isinstance(text, str):
        raise ValueError(f"counts of type {type(text).__name__}")
    runs: list[int] = []
    value, shift = 0, 0
    for code in (ord(character) - 48 for character in text):
        if not 0 <= code < 64 or shift > 60:
            raise ValueError("counts hold a character that is none of COCO's code")
        value |= (code & 0x1F) << shift
        shift += 5
        if not code & 0x20:
            if code & 0x10:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value, shift = 0, 0
    return runs


def _decode(code: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(coco_mask.decode(code))).bool()
