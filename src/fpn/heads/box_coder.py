"""How a box is written relative to a reference."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fpn.ops import boxes as box_ops
from fpn.ops.box_coding import decode, encode
from fpn.ops.losses import giou_loss, smooth_l1
from fpn.sections import Positive, Section

BoxLoss = Literal["smooth_l1", "giou"]
CoderWeights = tuple[Positive[float], Positive[float], Positive[float], Positive[float]]


class CoderConfig(Section):
    """Section `coder`: what a box's corners mean, and how far deltas may reach; the same for all heads."""

    clamp: Positive[float] | None = Field(
        default=math.log(1000 / 16), description="Upper limit of dw and dh before the exponential; None: no limit."
    )
    clamp_both: bool = Field(default=False, description="True: minus `clamp` is their lower limit, too (MMDetection).")
    legacy_plus_one: bool = Field(
        default=False,
        description="True: a box's width is x2 - x1 + 1, in coding, areas, IoU and clipping (Matlab's inheritance).",
    )
    inclusive_corners: bool = Field(
        default=False,
        description="True: inside the network x2 and y2 name the last pixel, yet a width is x2 - x1: what matterport's "
        "boxes, divided by (side - 1), amount to. Anchors end one pixel earlier and boxes are clipped to side - 1.",
    )


@dataclass(frozen=True, kw_only=True)
class BoxCoder:
    """How a box is written relative to a reference (an anchor or a proposal).

    Attributes:
        config: what corners mean, and limits.
        weights: multipliers of (dx, dy, dw, dh).
    """

    config: CoderConfig = field(default_factory=CoderConfig)
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)

    @property
    def legacy_plus_one(self) -> bool:
        """Whether a width is x2 - x1 + 1."""
        return self.config.legacy_plus_one

    def encode(self, boxes: Float[Tensor, "n 4"], references: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Deltas that lead from `references` to `boxes`."""
        return encode(boxes, references, weights=self.weights, legacy_plus_one=self.legacy_plus_one)

    def decode(self, deltas: Float[Tensor, "... 4"], references: Float[Tensor, "... 4"]) -> Float[Tensor, "... 4"]:
        """Boxes that `deltas` lead to from `references`."""
        clamp = self.config.clamp
        if self.config.clamp_both and clamp is not None:
            lower = [-math.inf, -math.inf, -clamp * self.weights[2], -clamp * self.weights[3]]
            deltas = torch.maximum(deltas, deltas.new_tensor(lower))
        return decode(deltas, references, weights=self.weights, clamp=clamp, legacy_plus_one=self.legacy_plus_one)

    def loss(
        self,
        deltas: Float[Tensor, "n 4"],
        references: Float[Tensor, "n 4"],
        boxes: Float[Tensor, "n 4"],
        *,
        kind: BoxLoss,
        beta: float,
    ) -> Float[Tensor, ""]:
        """What predicted deltas miss, summed over boxes: smooth L1 of the deltas, or 1 - GIoU of the decoded boxes.

        Args:
            deltas: predicted.
            references: what they are relative to.
            boxes: where they should lead.
            kind: which loss.
            beta: of smooth L1.
        """
        match kind:
            case "smooth_l1":
                return smooth_l1(deltas, self.encode(boxes, references), beta=beta).sum()
            case "giou":
                return giou_loss(self.decode(deltas, references), boxes).sum()

    def clip(self, boxes: Float[Tensor, "... 4"], height: Tensor, width: Tensor) -> Float[Tensor, "... 4"]:
        """Boxes cut off at the rim of an image of `height` x `width` pixels."""
        return box_ops.clip(boxes, height, width, legacy_plus_one=self.legacy_plus_one or self.config.inclusive_corners)
