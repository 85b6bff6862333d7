"""Equation 1 with the numbers of single RoIs."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from fpn.heads.roi_pooler import RoIPooler
from fpn.serving.inside_figures import RoIReading
from fpn.shapes import Size


def readings_of(head: str, pooler: RoIPooler, rois: Float[Tensor, "n 4"], padded: Size) -> list[RoIReading]:
    """From which level a head reads each RoI, and why.

    Args:
        head: what it is called.
        pooler: its own.
        rois: network pixels.
        padded: size of the batch's images with padding.
    """
    plus = 1.0 if pooler.legacy_plus_one else 0.0
    sides = (rois[:, 2:] - rois[:, :2] + plus).clamp(min=0).tolist()
    chosen, numbers = pooler.assign(rois, padded).tolist(), pooler.unclamped(rois, padded).tolist()
    return [
        _reading(head, pooler, pooler.canonical_size(padded), width, height, place, number)
        for (width, height), place, number in zip(sides, chosen, numbers, strict=True)
    ]


def _reading(
    head: str, pooler: RoIPooler, canonical: float, width: float, height: float, place: int, number: int
) -> RoIReading:
    level, side = pooler.levels[place], math.sqrt(width * height)
    told = f"{head}: s = √({width:.1f} x {height:.1f}) = {side:.1f} network pixels"
    if len(pooler.levels) == 1:
        only = f"{head}: it reads one level only, {level.name}"
        return RoIReading(head, level.name, round(side, 2), None, None, False, only)
    if side == 0:
        return RoIReading(head, level.name, 0.0, None, None, False, f"{told}, so the finest level, {level.name}")
    rounding, logarithm = pooler.config.level_rule.split("_")
    k0 = pooler.config.canonical_level
    value = k0 + (math.log2 if logarithm == "log2" else math.log)(side / canonical)
    rule = f"k = {rounding}({k0} + {logarithm}({side:.1f} / {canonical:.5g})) = {rounding}({value:.2f}) = {number}"
    clamped = number != level.number
    end = "finest" if number < level.number else "coarsest"
    so = f"which this head does not have: the {end} that it has is {level.name}" if clamped else f"so {level.name}"
    return RoIReading(head, level.name, round(side, 2), round(value, 4), number, clamped, f"{told}; {rule}, {so}")
