"""Which anchors stand on which level: a plan that draws the grids of any image size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor

from fpn.ops.anchors import level_anchors
from fpn.sections import Number, Positive, Section
from fpn.shapes import Size
from fpn.structures import Level

_MAX_ANCHORS = 1000


class AnchorsConfig(Section):
    """Section `anchors`: their shapes and places."""

    sizes: tuple[Annotated[tuple[Positive[float], ...], Field(min_length=1)], ...] = Field(
        default=((32.0,), (64.0,), (128.0,), (256.0,), (512.0,)),
        min_length=1,
        description="Square roots of anchor areas, one tuple a level, network pixels.",
    )
    ratios: tuple[Positive[float], ...] = Field(
        default=(0.5, 1.0, 2.0), min_length=1, description="Aspect ratios, in the order of the channels."
    )
    ratio: Literal["height/width", "width/height"] = Field(
        default="height/width", description="What a ratio means: with width/height, 0.5 is tall."
    )
    offset: Number = Field(
        default=0.0, description="Centre of the first anchor, as a fraction of the stride: 0 corner, 0.5 cell centre."
    )
    rounded: bool = Field(
        default=False, description="True: corners relative to the centre are rounded to whole pixels."
    )
    digits: Annotated[int, Field(ge=1, le=9)] | None = Field(
        default=None,
        description="Decimals to which what a ratio makes of a side is rounded: with 1, a ratio of 0.5 is 1.4 sizes "
        "wide and 0.7 high (EfficientDet); None: it is not.",
    )
    order: Literal["size_major", "ratio_major"] = Field(
        default="size_major", description="Order of the anchors of one cell: which of size and ratio changes slowest."
    )
    strides: tuple[Positive[int], ...] | Literal["declared", "measured"] = Field(
        default="declared",
        description="Step of the grid: what the level declares; padded size // map size (torchvision); or fixed pixels "
        "(fpn.pytorch).",
    )

    @model_validator(mode="after")
    def _bounded(self) -> AnchorsConfig:
        # An anchor is at least a channel of a layer.
        count = sum(map(len, self.sizes)) * len(self.ratios)
        if count > _MAX_ANCHORS:
            raise ValueError(f"sizes and ratios make {count} anchors, more than {_MAX_ANCHORS}")
        return self


@dataclass(frozen=True, kw_only=True)
class AnchorGenerator:
    """Draws the anchor grids of any image size.

    Attributes:
        config: shapes and places, level by level.
        inclusive_corners: x2 and y2 name the last pixel, so that they are one less.
    """

    config: AnchorsConfig
    inclusive_corners: bool = False

    def per_cell(self) -> tuple[int, ...]:
        """A for each level."""
        return tuple(len(sizes) * len(self.config.ratios) for sizes in self.config.sizes)

    def grids(
        self, levels: Sequence[Level], map_sizes: Sequence[Size], padded_size: Size, device: torch.device
    ) -> list[Tensor]:
        """The anchors of every level, each (H*W*A, 4) xyxy in network pixels, in the order y, x, anchor."""
        assert len(levels) == len(self.config.sizes) == len(map_sizes), (
            len(levels),
            len(self.config.sizes),
            len(map_sizes),
        )
        grids = [
            level_anchors(
                size.height,
                size.width,
                stride=self._stride(index, levels[index], size, padded_size),
                sizes=self.config.sizes[index],
                ratios=self.config.ratios,
                ratio=self.config.ratio,
                rounded=self.config.rounded,
                digits=self.config.digits,
                order=self.config.order,
                offset=self.config.offset,
                device=device,
            )
            for index, size in enumerate(map_sizes)
        ]
        if not self.inclusive_corners:
            return grids
        return [grid - grid.new_tensor([0.0, 0.0, 1.0, 1.0]) for grid in grids]

    def _stride(self, index: int, level: Level, size: Size, padded_size: Size) -> tuple[float, float]:
        if self.config.strides == "declared":
            return float(level.stride), float(level.stride)
        if self.config.strides == "measured":
            # Sides that an export leaves open are no numbers yet.
            sides = (padded_size.height // size.height, padded_size.width // size.width)
            return cast(tuple[float, float], tuple(torch.sym_float(side) for side in sides))
        return float(self.config.strides[index]), float(self.config.strides[index])
