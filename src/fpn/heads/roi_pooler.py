"""Each RoI from the level that fits its size (paper, section 4.2, equation 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fpn.ops.roi_align.levels import LevelRule, choose_levels
from fpn.ops.roi_align.pool import RoISampler, pool_rois
from fpn.sections import Positive, Section
from fpn.shapes import Size
from fpn.structures import Features, ImageBatch, Level

# No box of any image is of a level so far from the others.
_FARTHEST = 64


class RoIConfig(Section):
    """Section `roi`: how a RoI is read from the pyramid."""

    output_size: Annotated[int, Field(ge=1, le=64)] = Field(default=7, description="Side S of a pooled RoI, in cells.")
    sampler: RoISampler = Field(
        default="align",
        description="How a RoI is read from its map: RoIAlign; fpn.pytorch's RoIAlignAvg; crops by bilinear "
        "sampling as "
        "fpn.pytorch or TensorFlow cut them; or RoI pooling.",
    )
    aligned: bool = Field(
        default=True,
        description="`align`: True shifts by half a cell (Detectron2 V2); False is the legacy grid with sides of "
        "at least 1 "
        "cell.",
    )
    sampling_ratio: Annotated[int, Field(ge=0, le=64)] = Field(
        default=2, description="`align`: samples a bin and axis; 0: adaptive, ceil(side / bins)."
    )
    max_pool: bool = Field(
        default=False,
        description="`crop`: True reads a grid of twice the side and keeps the largest of each 2x2 "
        "(CROP_RESIZE_WITH_MAX_POOL).",
    )
    scale: Literal["declared", "measured", "first_height"] = Field(
        default="declared",
        description="Map cells a pixel: 1 / stride; 2 ** round(log2(map / padded size)); or map height / first image's "
        "height.",
    )
    level_rule: LevelRule = Field(
        default="floor_log2",
        description="Equation 1: floor(k0 + log2(sqrt(wh) / 224)), or round, or round with the natural logarithm "
        "(fpn.pytorch).",
    )
    canonical_size: Positive[float] = Field(
        default=224.0, description="The size in network pixels that goes to `canonical_level`."
    )
    canonical_level: Annotated[int, Field(ge=0, le=20)] = Field(default=4, description="k0 of equation 1.")
    coarsest_level: Annotated[int, Field(ge=1, le=20)] = Field(
        default=5,
        description="RoIs are read from the levels up to this one; 4 in torchvision's detectors on MobileNetV3.",
    )
    size_relative: bool = Field(
        default=False,
        description="True: sizes are counted with sides divided by (padded side - 1) and the canonical size by "
        "sqrt(padded area), as matterport does; off by a thousandth from plain pixels.",
    )


@dataclass(frozen=True, kw_only=True)
class RoIPooler:
    """Reads a fixed grid out of the pyramid for every RoI.

    Attributes:
        levels: the levels RoIs are read from, finest first.
        config: how.
        legacy_plus_one: a RoI's width is x2 - x1 + 1 in equation 1.
    """

    levels: tuple[Level, ...]
    config: RoIConfig
    legacy_plus_one: bool = False

    def __call__(
        self, features: Features, images: ImageBatch, boxes: Sequence[Float[Tensor, "_ 4"]]
    ) -> Float[Tensor, "r c s s"]:
        """Pool all RoIs of all images.

        Args:
            features: maps of at least `levels`.
            images: the batch the maps come from.
            boxes: one (N, 4) xyxy tensor an image, network pixels.

        Returns:
            (R, C, S, S), image by image in the order of `boxes`.
        """
        rois = torch.cat(list(boxes))
        counts = torch.tensor([len(b) for b in boxes], device=rois.device)
        image_index = torch.arange(len(boxes), device=rois.device).repeat_interleave(counts)
        maps = [features[level.name] for level in self.levels]
        return pool_rois(
            maps,
            [self._scale(level, m, images) for level, m in zip(self.levels, maps, strict=True)],
            rois,
            image_index,
            self.assign(rois, images.padded_size),
            output_size=self.config.output_size,
            sampler=self.config.sampler,
            sampling_ratio=self.config.sampling_ratio,
            aligned=self.config.aligned,
            max_pool=self.config.max_pool,
            image_size=images.padded_size,
        )

    def assign(self, rois: Float[Tensor, "r 4"], padded_size: Size | None = None) -> Tensor:
        """Index into `levels` for each RoI: equation 1, clamped to the levels there are."""
        if len(self.levels) == 1:
            return torch.zeros(len(rois), dtype=torch.int64, device=rois.device)
        numbers = [level.number for level in self.levels]
        return self._choose(rois, padded_size, numbers[0], numbers[-1]) - numbers[0]

    def unclamped(self, rois: Float[Tensor, "r 4"], padded_size: Size | None = None) -> Tensor:
        """The level's number for each RoI by equation 1 alone, as if there were a level for every size."""
        return self._choose(rois, padded_size, -_FARTHEST, _FARTHEST)

    def canonical_size(self, padded_size: Size | None = None) -> float:
        """The size in network pixels that goes to the canonical level, of images padded to that size."""
        return self.config.canonical_size * self._relative(padded_size)

    def _choose(self, rois: Tensor, padded_size: Size | None, finest: int, coarsest: int) -> Tensor:
        return choose_levels(
            rois,
            finest=finest,
            coarsest=coarsest,
            rule=self.config.level_rule,
            canonical_size=self.canonical_size(padded_size),
            canonical_level=self.config.canonical_level,
            legacy_plus_one=self.legacy_plus_one,
        )

    def _relative(self, padded_size: Size | None) -> float:
        if not self.config.size_relative or padded_size is None:
            return 1.0
        height, width = padded_size
        return math.sqrt((height - 1) * (width - 1) / (height * width))

    def _scale(self, level: Level, feature: Tensor, images: ImageBatch) -> tuple[float, float]:
        if self.config.scale == "declared":
            return 1 / level.stride, 1 / level.stride
        if self.config.scale == "measured":
            padded = images.padded_size
            return _nearest_power(feature.shape[2], padded.height), _nearest_power(feature.shape[3], padded.width)
        assert self.config.scale == "first_height", self.config.scale
        first = feature.shape[2] / float(images.sizes[0, 0])
        return first, first


def _nearest_power(cells: int, pixels: int) -> float:
    return float(2.0 ** round(math.log2(cells / pixels)))
