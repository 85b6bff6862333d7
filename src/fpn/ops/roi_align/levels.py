"""Equation 1: which level a RoI is read from."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fpn.ops.boxes import at_least_float32

LevelRule = Literal["floor_log2", "round_log2", "round_ln"]


def choose_levels(
    boxes: Float[Tensor, "n 4"],
    *,
    finest: int,
    coarsest: int,
    rule: LevelRule = "floor_log2",
    canonical_size: float = 224.0,
    canonical_level: int = 4,
    legacy_plus_one: bool = False,
) -> Int[Tensor, " n"]:
    """Pick each box's pyramid level: floor(4 + log2(sqrt(w*h) / 224)), clamped to [finest, coarsest].

    Args:
        boxes: xyxy, network pixels.
        finest: lowest level number there is.
        coarsest: highest level number there is.
        rule: rounding (to nearest: half to even) and logarithm.
        canonical_size: the side in pixels that belongs to `canonical_level`.
        canonical_level: see `canonical_size`.
        legacy_plus_one: sides are x2 - x1 + 1.

    Returns:
        int64 level numbers; a box without an area is on the finest.

    Source: Lin et al. 2017, arXiv:1612.03144, equation 1.
    """
    boxes = at_least_float32(boxes)
    width, height = (boxes[:, 2:] - boxes[:, :2] + (1.0 if legacy_plus_one else 0.0)).clamp(min=0).unbind(1)
    side = (width * height).sqrt()
    if rule == "floor_log2":
        # 1e-6 on the level, as torchvision: a side of exactly 224 must not fall down through rounding.
        level = torch.floor(canonical_level + torch.log2(side / canonical_size) + 1e-6)
    elif rule == "round_log2":
        level = canonical_level + torch.round(torch.log2(side / canonical_size))
    else:
        level = torch.round(torch.log(side / canonical_size) + canonical_level)
    return level.clamp(finest, coarsest).to(torch.int64)
