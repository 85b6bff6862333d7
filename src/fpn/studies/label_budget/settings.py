"""How pilots are trained. Imports no torch, so that `fpn plan --help` stays fast."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fpn.sections import CheckedSettings


class PilotSettings(CheckedSettings):
    """What all pilots have in common. They only have to show what more images are worth, not to be good."""

    backbone: str | None = Field(
        default=None, description="Name of a timm model. None: a light one whose weights are there."
    )
    weights: str | None = Field(
        default=None, description="Backbone weights: offline, imagenet, none, or a file. None: what is there."
    )
    short_side: int | None = Field(
        default=None, ge=32, description="Shorter side of images in the network. None: half of what fpn train takes."
    )
    channels: int = Field(default=64, ge=1, description="Width of the pyramid's maps.")
    head_width: int = Field(default=256, ge=1, description="Width of the box head's two layers.")
    frozen_stages: int | None = Field(
        default=None,
        ge=0,
        le=5,
        description="Stages of the backbone that are not trained. None: as fpn train; 5: fast.",
    )
    proposals: int = Field(default=200, ge=10, description="Proposals an image that the box head looks at.")
    roi_samples: int = Field(default=128, ge=1, description="RoIs an image that the box head learns from.")
    steps: int | None = Field(
        default=None, ge=10, description="Steps of each pilot. None: 200, or what --time-budget allows."
    )
    batch_size: int = Field(default=4, ge=1, description="Images a step.")
    learning_rate: float | None = Field(default=None, gt=0, description="Peak rate. None: as fpn train.")
    workers: int = Field(default=0, ge=0, description="Processes that read images. 0: none, best for short pilots.")
    device: Literal["auto", "cpu"] = Field(default="auto", description="auto: the GPU where there is one.")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of the parts and of the pilots.")

    def given(self) -> dict[str, Any]:
        """What of them a recipe has to keep, by the names of the options of `fpn train`."""
        values = self.model_dump(exclude={"steps", "short_side", "seed", "proposals"}, exclude_none=True)
        kept = self.proposals
        # First in training, then in detection; level by level before NMS.
        return {**values, "accumulate": 1, "rpn_before_nms": (3 * kept, 2 * kept), "rpn_after_nms": (kept, kept)}
