"""ATSS' head: one anchor a cell, and objects that choose their own threshold.

Source: Zhang et al. 2020, arXiv:1912.02424.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fpn.heads.anchor_towers import AnchorTowerHead
from fpn.heads.anchors import AnchorsConfig
from fpn.heads.box_coder import CoderConfig, CoderWeights
from fpn.heads.dense import DenseConfig
from fpn.heads.dense_losses import Learned, centre_offsets, centreness, sums_by_image
from fpn.heads.dense_selection import Scoring
from fpn.heads.dense_towers import weighted_mean
from fpn.ops.adaptive_matching import match_adaptively
from fpn.ops.losses import binary_cross_entropy, giou_loss
from fpn.ops.matching import Match
from fpn.sections import NotNegative, Positive
from fpn.structures import Level, LossTerms, Targets


class ATSSConfig(DenseConfig):
    """Section `dense` of an ATSS: from maps to detections."""

    weights: CoderWeights = Field(
        default=(10.0, 10.0, 5.0, 5.0), description="Multipliers of (dx, dy, dw, dh): 1 / std."
    )
    nearest: Positive[int] = Field(default=9, description="Anchors of a level nearest to an object that it looks at.")
    padding: Positive[int] | None = Field(
        default=None,
        description="Anchors of cells that begin outside of their image, padded to a multiple of this, take no part in "
        "training (MMDetection: 32); None: all do.",
    )
    box_weight: NotNegative[float] = Field(default=2.0, description="Weight of the boxes' loss beside the others.")


class ATSSHead(AnchorTowerHead):
    """Classes by focal loss, boxes by generalised IoU, each weighing as much as its anchor is centred in its object.

    Args:
        levels, num_classes, anchors, coder: as `AnchorTowerHead`.
        config: everything else.
    """

    scoring: Scoring = "product"

    def __init__(
        self,
        *,
        levels: Sequence[Level],
        num_classes: int,
        anchors: AnchorsConfig,
        coder: CoderConfig,
        config: ATSSConfig,
    ) -> None:
        super().__init__(
            levels=levels,
            num_classes=num_classes,
            anchors=anchors,
            coder=coder,
            weights=config.weights,
            padding=config.padding,
            config=config,
            quality="boxes",
            scaled=True,
        )
        self.config = config

    def assign(self, references: Sequence[Tensor], truth: Targets, size: Tensor) -> Match:
        """By thresholds that objects choose; see `fpn.ops.adaptive_matching.match_adaptively`."""
        usable = self.usable(references, size)
        return match_adaptively(references, truth.boxes, truth.ignore, nearest=self.config.nearest, usable=usable)

    def box_terms(
        self, deltas: Float[Tensor, "p 4"], quality: Tensor | None, references: Float[Tensor, "p 4"], learned: Learned
    ) -> LossTerms:
        """The terms `box` and `centreness`."""
        assert quality is not None, "made above"
        centres = (references[:, :2] + references[:, 2:]) / 2
        wanted = centreness(centre_offsets(centres, learned.boxes))
        values = self.config.box_weight * giou_loss(self.decode(deltas, references), learned.boxes)
        centred = self.term("centreness", sums_by_image(binary_cross_entropy(quality, wanted), learned), learned)
        return centred + weighted_mean("box", values, wanted, floor=1.0)
