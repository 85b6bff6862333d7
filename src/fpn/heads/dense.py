"""What a one-stage detector's head has to give: predictions in every cell, their losses, and what is detected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from fpn.heads.class_rows import ClassRows
from fpn.heads.sampling import Randomness
from fpn.sections import Fraction, Number, Positive, Section
from fpn.structures import Detections, Features, ImageBatch, LossTerms, Targets


class DenseConfig(Section):
    """What the sections `dense` of all kinds have in common: towers, focal loss, and how detections are chosen."""

    convolutions: Annotated[int, Field(ge=0, le=64)] = Field(
        default=4, description="3x3 convolutions in front of each output, the same on all levels."
    )
    norm: Literal["none", "group"] = Field(
        default="none", description="Norm behind each of them; `group`: of 32 groups, or as many as divide the width."
    )
    norm_bias: bool = Field(default=True, description="Whether a convolution in front of a norm has a bias.")
    prior: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.01, description="Score of every class everywhere when training begins (arXiv:1708.02002, 4.1)."
    )
    alpha: Number = Field(default=0.25, description="Focal loss: weight of objects, 1 - alpha of background.")
    gamma: Annotated[float, Field(ge=0, le=100)] = Field(
        default=2.0, description="Focal loss: how little what is right already weighs."
    )
    normalizer: Literal["batch", "image", "images", "ema"] = Field(
        default="batch",
        description="What sums of losses are divided by: the positives of the `batch`; of each `image` its own, then "
        "the mean (torchvision's RetinaNet); those of all `images`, each counted as 1 at least (MMDetection); `ema`: "
        "0.9 of the step before and 0.1 of the batch's (Detectron2).",
    )
    normalizer_start: Positive[float] = Field(default=100.0, description="Where `ema` begins.")
    score_limit: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.05, description="Detections must score more than this."
    )
    before_nms: Positive[int] = Field(
        default=1000, description="Top-k by score of a level's pairs of place and class, before boxes are decoded."
    )
    nms: Fraction = Field(default=0.5, description="IoU within a class above which a worse detection is dropped.")
    clipped: Literal["before_nms", "last"] = Field(
        default="before_nms",
        description="When boxes are cut off at the image's rim; `last`: behind the limit (Detectron2).",
    )
    drop_empty: bool = Field(default=True, description="Whether boxes without an area are then dropped.")
    limit: Positive[int] = Field(default=100, description="Detections an image.")


class DenseHead(nn.Module):
    """Levels -> raw predictions of every cell. A head fills in three verbs, `class_rows`, and `rewrite` if it has a
    faster form."""

    def forward(self, features: Features) -> tuple[Tensor, ...]:
        """Raw predictions: as many tensors for every image, of shapes that no value decides."""
        raise NotImplementedError

    def losses(
        self,
        raw: tuple[Tensor, ...],
        images: ImageBatch,
        targets: Sequence[Targets],
        *,
        generator: Randomness = None,
    ) -> LossTerms:
        """Loss terms of what `forward` gave for a batch; see `Detector.losses`."""
        raise NotImplementedError

    def detect(self, raw: tuple[Tensor, ...], images: ImageBatch) -> list[Detections]:
        """Each image's detections, best first, clipped to the image, network pixels."""
        raise NotImplementedError

    def class_rows(self) -> list[ClassRows]:
        """The layers with rows by class."""
        raise NotImplementedError

    def rewrite(self, fuse: Callable[[nn.Conv2d, nn.Module], nn.Module]) -> None:
        """Put convolutions with the activations behind them into one, where there are such; `fuse` makes it."""
