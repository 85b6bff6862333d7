"""What an ablation is asked to do. Imports no torch, so that `fpn ablate --help` stays fast."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fpn.sections import CheckedSettings
from fpn.training.config import DetectorName, TrainConfig

# The paper's, for images whose shorter side is 800; they are scaled with the side, as objects are.
_PAPER_SIDE, _PAPER_ANCHORS, _PAPER_CANONICAL = 800, (32.0, 64.0, 128.0, 256.0, 512.0), 224.0


class DetectorSettings(CheckedSettings):
    """All that the rows have in common. The defaults suit drawn scenes and a CPU."""

    detector: DetectorName = Field(
        default="faster_rcnn",
        description="Only faster_rcnn is compared: the paper's designs are of it, and its proposals are measured, too.",
    )
    backbone: str = Field(default="tf_efficientnet_lite0", description="Name of a timm model. The paper has resnet50.")
    weights: str = Field(
        default="offline",
        description="Backbone weights: offline (from the extra of that name), imagenet (timm's hub), none, or a file.",
    )
    short_side: int = Field(
        default=336, ge=16, description="Shorter side of images in the network, in pixels. The paper has 800."
    )
    long_side: int | None = Field(
        default=None, ge=16, description="Limit of the longer side, in pixels. None: in the paper's proportion (5/3)."
    )
    frozen_stages: int = Field(
        default=2, ge=0, le=5, description="Stages of the backbone that are not trained, stem included."
    )
    channels: int = Field(default=64, ge=1, description="Width of the maps that all heads read. The paper has 256.")
    head_width: int = Field(default=256, ge=1, description="Width of the box head's two layers. The paper has 1024.")
    anchor_sizes: tuple[float, ...] | None = Field(
        default=None,
        description="Five anchor sides in network pixels: one a level of a pyramid, all five in each cell of a single "
        "map. None: the paper's 32 64 128 256 512 times SHORT-SIDE / 800.",
    )
    roi_samples: int = Field(
        default=128, ge=1, description="RoIs an image that the box head learns from. The paper has 512."
    )

    def options(self) -> dict[str, Any]:
        """Arguments of `fpn.faster_rcnn` but `classes`, `weights` and `features`."""
        scale = self.short_side / _PAPER_SIDE
        sizes = self.anchor_sizes or tuple(round(size * scale, 1) for size in _PAPER_ANCHORS)
        return {
            "backbone": self.backbone,
            "short_side": self.short_side,
            "long_side": self.long_side or round(self.short_side * 1333 / _PAPER_SIDE),
            "frozen_stages": self.frozen_stages,
            "channels": self.channels,
            "head_width": self.head_width,
            "anchors_sizes": tuple((size,) for size in sizes),
            "roi_canonical_size": round(_PAPER_CANONICAL * scale, 1),
            "box_sampling_count": self.roi_samples,
            # AR1k needs a thousand proposals to look at; training does with fewer.
            "rpn_before_nms": (1000, 1000),
            "rpn_after_nms": (500, 1000),
        }


class BudgetSettings(CheckedSettings):
    """What each row may spend: the same for all."""

    epochs: int = Field(
        default=1, ge=1, description="Passes over the training images. Small datasets need more than 1."
    )
    steps: int | None = Field(default=None, ge=1, description="Train this many steps instead of whole epochs.")
    batch_size: int = Field(default=2, ge=1, description="Images a step.")
    learning_rate: float = Field(default=0.0004, gt=0, description="Peak rate of AdamW. Lower it for long runs.")
    seed: int = Field(default=0, ge=0, description="The first seed; the others follow it.")
    precision: Literal["auto", "float32", "bf16"] = Field(
        default="auto", description="Of the network's arithmetic in training. auto: bf16 where the chip has it."
    )
    device: Literal["auto", "cpu"] = Field(default="auto", description="auto: the GPU where there is one.")
    workers: int | None = Field(
        default=None, ge=0, description="Processes that read images. None: half of the CPU's cores, 1 to 8. 0: none."
    )

    def training(self, seed: int) -> TrainConfig:
        """The run of one row with one seed; the last weights count, since there is nothing to choose them by."""
        return TrainConfig(**{**self.model_dump(), "seed": seed, "validate_every": 0})
