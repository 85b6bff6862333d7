"""Section `neck`: how bottom-up maps become the pyramid."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fpn.sections import Positive, Section


class NeckConfig(Section):
    """The conventions in which feature pyramids differ."""

    channels: Positive[int] = Field(default=256, description="Channels of the laterals and sums.")
    output_channels: Positive[int] = Field(
        default=256, description="Channels of P2..P6 (differs from `channels` in matterport's 128-filter variant)."
    )
    top_down: Literal["nearest", "bilinear", "bilinear_corners"] = Field(
        default="nearest",
        description="How the coarser map is brought to the lateral's size; `_corners` means align_corners=True.",
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
    extra_levels: Literal["none", "subsample", "convolutions_on_c5", "convolutions_on_p5"] = Field(
        default="subsample", description="How P6 (and P7) are made: every second cell of P5, or stride-2 convolutions."
    )
    finest_level: Literal[1, 2, 3] = Field(
        default=2,
        description="The finest level that heads use: 2 for Faster R-CNN, 3 for RetinaNet and FCOS, 1 where "
        "three levels "
        "are named by their stride.",
    )
