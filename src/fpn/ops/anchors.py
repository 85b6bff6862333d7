"""Anchors: the boxes that an RPN or a dense head refines, a few at each cell of a level.

Source: Ren et al. 2015, arXiv:1506.01497, section 3.1; one size a level: Lin et al. 2017, arXiv:1612.03144, section
4.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Ratio = Literal["height/width", "width/height"]
AnchorOrder = Literal["size_major", "ratio_major"]
Stride = tuple[float | int, float | int]


def cell_anchors(
    sizes: Sequence[float | int],
    ratios: Sequence[float | int],
    *,
    ratio: Ratio = "height/width",
    rounded: bool = False,
    digits: int | None = None,
    order: AnchorOrder = "size_major",
) -> Float[Tensor, "a 4"]:
    """The anchors of one cell around (0, 0), xyxy in pixels.

    Args:
        sizes: square roots of the anchors' areas, pixels.
        ratios: aspect ratios.
        ratio: what they divide; 0.5 is wide with height/width and tall with width/height.
        rounded: corners are rounded to whole pixels, half to even.
        digits: decimals to which a side's part of the size is rounded; None: it is not.
        order: size_major has all ratios of the first size first; ratio_major all sizes of the first ratio.
    """
    if order == "size_major":
        pairs = [(size, r) for size in sizes for r in ratios]
    else:
        pairs = [(size, r) for r in ratios for size in sizes]
    corners = [_corner(float(size), r if ratio == "height/width" else 1 / r, digits) for size, r in pairs]
    anchors = torch.tensor([(-x, -y, x, y) for x, y in corners], dtype=torch.float64).reshape(-1, 4)
    return (anchors.round() if rounded else anchors).float()


def _corner(size: float, height_by_width: float | int, digits: int | None) -> tuple[float, float]:
    """Half the width and height of an anchor of area size ** 2."""
    root = math.sqrt(height_by_width)
    if digits is not None:
        return size * round(1 / root, digits) / 2, size * round(root, digits) / 2
    return size / root / 2, size * root / 2


def anchor_grid(
    height: int, width: int, *, stride: Stride, cell: Float[Tensor, "a 4"], offset: float = 0.0
) -> Float[Tensor, "n 4"]:
    """The anchors of a map of `height` x `width` cells: (H*W*A, 4) xyxy, in the order y, x, anchor.

    Args:
        height: of the map, in cells.
        width: see `height`.
        stride: pixels from one cell to the next, (y, x).
        cell: the anchors of one cell; the grid is on its device.
        offset: centre of the first cell as a fraction of the stride: 0 its corner, 0.5 its middle.
    """
    y = (torch.arange(height, dtype=cell.dtype, device=cell.device) + offset) * stride[0]
    x = (torch.arange(width, dtype=cell.dtype, device=cell.device) + offset) * stride[1]
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack([x, y, x, y], dim=-1)  # (H, W, 4)
    return (shifts[:, :, None] + cell).reshape(-1, 4)  # (H, W, A, 4) -> (H*W*A, 4)


def level_anchors(
    height: int,
    width: int,
    stride: Stride,
    sizes: Sequence[float | int],
    ratios: Sequence[float | int],
    *,
    ratio: Ratio = "height/width",
    rounded: bool = False,
    digits: int | None = None,
    order: AnchorOrder = "size_major",
    offset: float = 0.0,
    device: torch.device | str | None = None,
) -> Float[Tensor, "n 4"]:
    """`anchor_grid` of `cell_anchors`, remembered by shape: the answer is shared, never write into it."""
    sy, sx = stride
    make = _draw if torch.compiler.is_compiling() else _remembered  # a trace's tensor must not outlive the trace
    return make(
        height,
        width,
        (sy, sx),
        tuple(sizes),
        tuple(ratios),
        ratio,
        rounded,
        digits,
        order,
        offset,
        torch.device("cpu" if device is None else device),
    )


def _draw(
    height: int,
    width: int,
    stride: Stride,
    sizes: tuple[float | int, ...],
    ratios: tuple[float | int, ...],
    ratio: Ratio,
    rounded: bool,
    digits: int | None,
    order: AnchorOrder,
    offset: float,
    device: torch.device,
) -> Tensor:
    with torch.inference_mode(False):  # a tensor made in inference mode could not take part in training later
        cell = cell_anchors(sizes, ratios, ratio=ratio, rounded=rounded, digits=digits, order=order).to(device)
        return anchor_grid(height, width, stride=stride, cell=cell, offset=offset)


# P2 of 800 x 1344 pixels takes 3.2 MB, the five levels 4.3 MB: 64 grids are a dozen image shapes and at most 0.2 GB.
_remembered = lru_cache(maxsize=64)(_draw)
