"""RetinaNet's head: nine anchors a cell, and the focal loss over all of them.

Source: Lin et al. 2017, arXiv:1708.02002, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from fpn.heads.anchor_towers import AnchorTowerHead
from fpn.heads.anchors import AnchorsConfig
from fpn.heads.box_coder import CoderConfig, CoderWeights
from fpn.heads.dense import DenseConfig
from fpn.heads.dense_losses import Learned, sums_by_image
from fpn.ops.losses import giou_loss, smooth_l1
from fpn.ops.matching import Match, match
from fpn.sections import Fraction, NotNegative, Positive
from fpn.structures import Level, LossTerms, Targets


class RetinaNetConfig(DenseConfig):
    """Section `dense` of a RetinaNet: from maps to detections."""

    weights: CoderWeights = Field(default=(1.0, 1.0, 1.0, 1.0), description="Multipliers of (dx, dy, dw, dh): 1 / std.")
    positive_iou: Fraction = Field(default=0.5, description="An anchor with at least this IoU is positive.")
    negative_iou: Fraction = Field(
        default=0.4, description="An anchor with less is negative; between the two it takes no part."
    )
    keep_best: bool = Field(default=True, description="Each object's best anchors are positive, however low their IoU.")
    best_owns: bool = Field(
        default=False,
        description="Whether they become that object's; else the one's they overlap most (MMDetection: true).",
    )
    padding: Positive[int] | None = Field(
        default=None,
        description="Anchors of cells that begin outside of their image, padded to a multiple of this, take no part in "
        "training (MMDetection: 32); None: all do.",
    )
    box_loss: Literal["smooth_l1", "giou"] = Field(
        default="smooth_l1", description="Of deltas, or 1 - generalised IoU of boxes."
    )
    beta: NotNegative[float] = Field(
        default=0.0, description="Smooth L1 turns from square to line at this error; 0: plain L1."
    )

    @model_validator(mode="after")
    def _ordered(self) -> RetinaNetConfig:
        if self.negative_iou > self.positive_iou:
            raise ValueError(f"negative_iou {self.negative_iou} is above positive_iou {self.positive_iou}")
        return self


class RetinaNetHead(AnchorTowerHead):
    """Classes by focal loss over all anchors, boxes by smooth L1 of the deltas of positive ones.

    Args:
        levels, num_classes, anchors, coder: as `AnchorTowerHead`.
        config: everything else.
    """

    def __init__(
        self,
        *,
        levels: Sequence[Level],
        num_classes: int,
        anchors: AnchorsConfig,
        coder: CoderConfig,
        config: RetinaNetConfig,
    ) -> None:
        super().__init__(
            levels=levels,
            num_classes=num_classes,
            anchors=anchors,
            coder=coder,
            weights=config.weights,
            padding=config.padding,
            config=config,
        )
        self.config = config

    def assign(self, references: Sequence[Tensor], truth: Targets, size: Tensor) -> Match:
        """By IoU; see `fpn.ops.matching.match`."""
        found = match(
            torch.cat(list(references)),
            truth.boxes,
            truth.ignore,
            positive_iou=self.config.positive_iou,
            negative_iou=self.config.negative_iou,
            keep_best=self.config.keep_best,
            best_owns=self.config.best_owns,
            legacy_plus_one=self.coder.legacy_plus_one,
        )
        usable = self.usable(references, size)
        return found if usable is None else Match(found.gt_index, torch.where(usable, found.kind, -1))

    def box_terms(
        self, deltas: Float[Tensor, "p 4"], quality: Tensor | None, references: Float[Tensor, "p 4"], learned: Learned
    ) -> LossTerms:
        """The term `box`."""
        match self.config.box_loss:
            case "smooth_l1":
                wanted = self.coder.encode(learned.boxes, references)
                values = smooth_l1(deltas, wanted, beta=self.config.beta).sum(dim=1)
            case "giou":
                values = giou_loss(self.decode(deltas, references), learned.boxes)
        return self.term("box", sums_by_image(values, learned), learned)
