"""Boxes written relative to references (anchors or proposals): four numbers that a layer can learn.

dx, dy are the shift of the centre in the reference's widths and heights, dw, dh the logarithms of the growth; each is
multiplied by its weight. Source: Girshick et al. 2014, arXiv:1311.2524, appendix C.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Num
from torch import Tensor

from fpn.ops.boxes import at_least_float32

Weights = tuple[float, float, float, float]

# A reference narrower than this many pixels counts as this wide: deltas stay finite. Real ones are never so thin: the
# next number after 1000 in float32 is 6e-5 away.
_THINNEST = 1e-6
# Without a clamp, dw and dh still end here, where any image has long been left: exp(60) = 1e26 pixels times any
# reference's width is finite in float32, so that no box becomes inf - inf.
_LARGEST_LOG = 60.0


def encode(
    boxes: Num[Tensor, "*n 4"],
    references: Num[Tensor, "*n 4"],
    *,
    weights: Weights = (1.0, 1.0, 1.0, 1.0),
    legacy_plus_one: bool = False,
) -> Float[Tensor, "*n 4"]:
    """Deltas that lead from `references` to `boxes`.

    Args:
        boxes: xyxy, in the pixels of `references`.
        references: xyxy.
        weights: multipliers of (dx, dy, dw, dh): 1 / standard deviation.
        legacy_plus_one: widths are x2 - x1 + 1, of both.

    Returns:
        (dx, dy, dw, dh), finite even for boxes and references without an area.
    """
    box_centre, box_size = _centre_and_size(boxes, legacy_plus_one)
    centre, size = _centre_and_size(references, legacy_plus_one)
    size, box_size = size.clamp(min=_THINNEST), box_size.clamp(min=_THINNEST)
    deltas = torch.cat([(box_centre - centre) / size, torch.log(box_size / size)], dim=-1)
    return _weighted(deltas, weights)


def decode(
    deltas: Num[Tensor, "*n 4"],
    references: Num[Tensor, "*n 4"],
    *,
    weights: Weights = (1.0, 1.0, 1.0, 1.0),
    clamp: float | None = math.log(1000 / 16),
    legacy_plus_one: bool = False,
) -> Float[Tensor, "*n 4"]:
    """Boxes that `deltas` lead to from `references`.

    Args:
        deltas: (dx, dy, dw, dh).
        references: xyxy.
        weights: what `encode` multiplied by.
        clamp: upper limit of dw and dh before the exponential; the default lets 16 pixels grow to 1000. None: no limit.
        legacy_plus_one: a reference's width is x2 - x1 + 1, yet x2 = centre + width / 2 without -1, as the originals
            have it: deltas of 0 make a box one pixel larger.
    """
    deltas = _unweighted(at_least_float32(deltas), weights)
    dx_dy, dw_dh = deltas[..., :2], deltas[..., 2:]
    centre, size = _centre_and_size(references, legacy_plus_one)
    new_centre = centre + dx_dy * size
    half = size * torch.exp(dw_dh.clamp(max=_LARGEST_LOG if clamp is None else clamp)) / 2
    return torch.cat([new_centre - half, new_centre + half], dim=-1)


def _centre_and_size(boxes: Tensor, legacy_plus_one: bool) -> tuple[Tensor, Tensor]:
    boxes = at_least_float32(boxes)
    low = boxes[..., :2]
    size = boxes[..., 2:] - low + float(legacy_plus_one)
    return low + size / 2, size


# Column by column: a tensor of four weights would have to be sent to a GPU, and waited for, each time.
def _weighted(deltas: Tensor, weights: Weights) -> Tensor:
    return torch.stack([d * w for d, w in zip(deltas.unbind(-1), weights, strict=True)], dim=-1)


def _unweighted(deltas: Tensor, weights: Weights) -> Tensor:
    return torch.stack([d / w for d, w in zip(deltas.unbind(-1), weights, strict=True)], dim=-1)
