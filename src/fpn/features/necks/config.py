"""Section `neck`: how bottom-up maps become the pyramid."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from fpn.features.blocks import Norm
from fpn.sections import Positive, Section

Fusion: TypeAlias = Literal["fast", "softmax", "sum"]
TopDown: TypeAlias = Literal["nearest", "bilinear", "bilinear_corners", "none"]


class NeckConfig(Section):
    """The conventions in which feature pyramids differ, and what the paper's tables take away from one.

    Raises:
        ConfigError: settings that contradict each other.
    """

    channels: Positive[int] = Field(default=256, description="Channels of the laterals and sums.")
    output_channels: Positive[int] = Field(
        default=256, description="Channels of P2..P6 (differs from `channels` in matterport's 128-filter variant)."
    )
    top_down: TopDown = Field(
        default="nearest",
        description="How the coarser map is brought to the lateral's size, which need not be the double; `_corners` "
        "means align_corners=True; none: it is not added, so each level stands alone.",
    )
    lateral: Literal["all", "top"] = Field(
        default="all",
        description="Which bottom-up maps enter; top: the coarsest only, and the rest is upsampled from it.",
    )
    smoothed: Literal["all", "all_but_top", "none"] = Field(
        default="all", description="Which merged maps get a 3x3 convolution."
    )
    smooth_before_merge: bool = Field(
        default=False, description="True: the smoothed map, not the plain sum, is what goes further down (fpn.pytorch)."
    )
    top_kernel: Literal[1, 3] = Field(
        default=1, description="Kernel of the top-most lateral (3 in the three-level teaching FPN)."
    )
    bias: bool = Field(default=True, description="Whether the pyramid's convolutions have biases.")
    norm: Norm | None = Field(
        default=None,
        description="What follows each convolution, which then has no bias; None: as the neck's paper has it: batch in "
        "bifpn, layer in simple_pyramid, none in all others.",
    )
    norm_epsilon: Positive[float] | None = Field(
        default=None,
        description="Added to the variance there; None: 1e-3 in bifpn, else 1e-5, and 1e-6 of layer norms.",
    )
    norm_on_lateral: bool = Field(default=True, description="False: laterals have a bias instead of that norm.")
    relu: bool = Field(
        default=False, description="True: a ReLU ends each lateral and 3x3 convolution (fpn and pafpn; MMDetection)."
    )
    extra_levels: Literal[
        "none", "subsample", "convolutions_on_c5", "convolutions_on_lateral", "convolutions_on_p5"
    ] = Field(
        default="subsample",
        description="How P6 (and P7) are made: every second cell of P5, or stride-2 convolutions on one of three maps. "
        "bifpn and simple_pyramid only take how many, and make them by pooling.",
    )
    num_extra: Positive[int] | None = Field(
        default=None, description="How many such levels; None: 1 by subsampling, 2 (P6 and P7) by convolutions."
    )
    extra_relu: bool = Field(
        default=True, description="Whether a ReLU stands before P7's convolution (MMDetection's RetinaNet has none)."
    )
    emitted: Literal["all", "finest"] = Field(
        default="all", description="finest: only the finest level comes out, and only it is smoothed."
    )
    finest_level: Literal[1, 2, 3, 4] = Field(
        default=2,
        description="The finest level that heads use: 2 for Faster R-CNN, 3 for RetinaNet and FCOS, 1 where three "
        "levels are named by their stride, 4 in torchvision's detectors on MobileNetV3.",
    )
    repeats: Annotated[int, Field(ge=1, le=20)] = Field(
        default=3, description="bifpn: how often its cell is repeated (3 in EfficientDet-D0, 8 in D7)."
    )
    fusion: Fusion = Field(
        default="fast",
        description="bifpn: how maps are added: with weights that are not negative and divided by their sum, with "
        "weights after a softmax, or plainly.",
    )

    @model_validator(mode="after")
    def _agree(self) -> NeckConfig:
        if self.top_down == "none" and self.lateral == "top":
            raise ValueError("top_down 'none' and lateral 'top' leave the finer levels without a source. Change one.")
        if self.emitted == "finest" and self.extra_levels != "none":
            raise ValueError(f"emitted 'finest' leaves no place for extra_levels {self.extra_levels!r}. Use 'none'.")
        if self.num_extra and self.extra_levels == "none":
            raise ValueError(f"num_extra is {self.num_extra}, but extra_levels is 'none'. Say how they are made.")
        return self

    @property
    def extra_count(self) -> int:
        """Levels above the coarsest merged one."""
        if self.extra_levels == "none":
            return 0
        return self.num_extra or (1 if self.extra_levels == "subsample" else 2)
