"""Each RoI from the level that fits its size (paper, section 4.2, equation 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fpn.ops.roi_align.levels import choose_levels
from fpn.ops.roi_align.pool import pool_rois
from fpn.shapes import Size
from fpn.structures import Features, ImageBatch, Level


@dataclass(frozen=True, kw_only=True)
class RoiPooler:
    """Reads a fixed grid out of the pyramid for every RoI.

    Attributes:
        levels: the levels RoIs are read from, finest first.
        output_size: side S of the grid, in cells.
        sampler: how a RoI is read from its map; see `fpn.ops.roi_align.pool.pool_rois`.
        aligned: `align` shifts by half a cell.
        sampling_ratio: `align` samples a bin and axis; 0: adaptive.
        max_pool: `crop` reads a grid of twice the side and takes the maximum of 2x2.
        level_rule: rounding and logarithm of equation 1.
        canonical_size: the side in pixels that goes to level `canonical_level`.
        size_relative: sides are divided by (padded side - 1), the canonical size by sqrt(padded area).
        scale: map cells a pixel: "declared" 1 / stride; "measured" the power of two nearest to map / padded size;
            "first_height" map height / height of the first image.
        legacy_plus_one: a RoI's width is x2 - x1 + 1 in equation 1.
    """

    levels: tuple[Level, ...]
    output_size: int = 7
    sampler: Literal["align", "align_avg", "crop", "crop_and_resize", "pool"] = "align"
    aligned: bool = True
    sampling_ratio: int = 2
    max_pool: bool = False
    level_rule: Literal["floor_log2", "round_log2", "round_ln"] = "floor_log2"
    canonical_size: float = 224.0
    canonical_level: int = 4
    size_relative: bool = False
    scale: Literal["declared", "measured", "first_height"] = "declared"
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
            output_size=self.output_size,
            sampler=self.sampler,
            sampling_ratio=self.sampling_ratio,
            aligned=self.aligned,
            max_pool=self.max_pool,
            image_size=images.padded_size,
        )

    def assign(self, rois: Float[Tensor, "r 4"], padded_size: Size | None = None) -> Tensor:
        """Index into `levels` for each RoI: equation 1, clamped to the levels there are."""
        if len(self.levels) == 1:
            return torch.zeros(len(rois), dtype=torch.int64, device=rois.device)
        numbers = [int(level.name[1:]) for level in self.levels]
        chosen = choose_levels(
            rois,
            finest=numbers[0],
            coarsest=numbers[-1],
            rule=self.level_rule,
            canonical_size=self.canonical_size * self._relative(padded_size),
            canonical_level=self.canonical_level,
            legacy_plus_one=self.legacy_plus_one,
        )
        return chosen - numbers[0]

    def _relative(self, padded_size: Size | None) -> float:
        if not self.size_relative or padded_size is None:
            return 1.0
        height, width = padded_size
        return math.sqrt((height - 1) * (width - 1) / (height * width))

    def _scale(self, level: Level, feature: Tensor, images: ImageBatch) -> tuple[float, float]:
        if self.scale == "declared":
            return 1 / level.stride, 1 / level.stride
        if self.scale == "measured":
            padded = images.padded_size
            return _nearest_power(feature.shape[2], padded.height), _nearest_power(feature.shape[3], padded.width)
        first = feature.shape[2] / float(images.sizes[0, 0])
        return first, first


def _nearest_power(cells: int, pixels: int) -> float:
    return float(2.0 ** round(math.log2(cells / pixels)))
