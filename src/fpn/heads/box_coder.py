"""How a box is written relative to a reference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fpn.ops import boxes as box_ops
from fpn.ops.box_coding import decode, encode


@dataclass(frozen=True, kw_only=True)
class BoxCoding:
    """How a box is written relative to a reference (an anchor or a proposal).

    Attributes:
        weights: multipliers of (dx, dy, dw, dh).
        clamp: upper limit of dw and dh before the exponential; None: no limit.
        clamp_both: minus `clamp` is their lower limit, too.
        legacy_plus_one: width is x2 - x1 + 1.
        inclusive_corners: x2 and y2 name the last pixel, though width is x2 - x1.
    """

    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    clamp: float | None = math.log(1000 / 16)
    clamp_both: bool = False
    legacy_plus_one: bool = False
    inclusive_corners: bool = False

    def encode(self, boxes: Float[Tensor, "n 4"], references: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Deltas that lead from `references` to `boxes`."""
        return encode(boxes, references, weights=self.weights, legacy_plus_one=self.legacy_plus_one)

    def decode(self, deltas: Float[Tensor, "... 4"], references: Float[Tensor, "... 4"]) -> Float[Tensor, "... 4"]:
        """Boxes that `deltas` lead to from `references`."""
        if self.clamp_both and self.clamp is not None:
            lower = [-math.inf, -math.inf, -self.clamp * self.weights[2], -self.clamp * self.weights[3]]
            deltas = torch.maximum(deltas, deltas.new_tensor(lower))
        return decode(deltas, references, weights=self.weights, clamp=self.clamp, legacy_plus_one=self.legacy_plus_one)

    def clip(self, boxes: Float[Tensor, "... 4"], height: Tensor, width: Tensor) -> Float[Tensor, "... 4"]:
        """Boxes cut off at the rim of an image of `height` x `width` pixels."""
        return box_ops.clip(boxes, height, width, legacy_plus_one=self.legacy_plus_one or self.inclusive_corners)
