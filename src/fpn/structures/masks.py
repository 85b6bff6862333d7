"""Masks of objects, small at rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import hotcoco.mask
import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor


class Rle(TypedDict):
    """COCO's run-length encoding: runs of 0 and 1 in turn, beginning with 0, down the columns."""

    size: list[int]
    """Height, width."""
    counts: str | list[int]
    """Compressed (a string), or not (the lengths)."""


def encode_rle(mask: Bool[Tensor, "h w"], *, compressed: bool = True) -> Rle:
    """Write a mask as COCO's run lengths, ready for JSON."""
    size = [int(side) for side in mask.shape]
    if compressed:
        encoded = hotcoco.mask.encode(mask.cpu().numpy().astype(np.uint8))
        return {"size": size, "counts": encoded["counts"].decode("ascii")}
    pixels = mask.cpu().numpy().ravel(order="F")
    ends = np.flatnonzero(np.diff(pixels)) + 1
    counts = np.diff(np.concatenate([[0], ends, [pixels.size]])).tolist()
    return {"size": size, "counts": [0, *counts] if pixels[:1].any() else counts}


def decode_rle(rle: Rle) -> Bool[Tensor, "h w"]:
    """Read a mask from COCO's run lengths, compressed or not."""
    height, width = rle["size"]
    compressed = rle if isinstance(rle["counts"], str) else hotcoco.mask.fr_py_objects(dict(rle), height, width)
    return torch.from_numpy(np.ascontiguousarray(hotcoco.mask.decode(dict(compressed)))).to(torch.bool)


def polygons_to_mask(polygons: Sequence[Sequence[float | int]], height: int, width: int) -> Bool[Tensor, "h w"]:
    """Fill polygons [x1, y1, x2, y2, ...] and unite them, by COCO's rule for pixels on the edge."""
    # An outline needs three corners; four numbers would be taken for a box.
    outlines = [[float(number) for number in polygon] for polygon in polygons if len(polygon) >= 6]
    if not outlines:
        return torch.zeros((height, width), dtype=torch.bool)
    rle = hotcoco.mask.merge(hotcoco.mask.fr_py_objects(outlines, height, width))
    return decode_rle({"size": [height, width], "counts": _text(rle["counts"])})


def _text(counts: str | bytes) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts
