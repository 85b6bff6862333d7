"""Which anchors stand on which level: a plan that draws the grids of any image size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fpn.ops.anchors import level_anchors
from fpn.shapes import Size
from fpn.structures import Level


@dataclass(frozen=True, kw_only=True)
class AnchorPlan:
    """Anchor shapes and places, level by level.

    Attributes:
        sizes: a tuple of square roots of areas for each level, network pixels.
        ratios: aspect ratios; `ratio` says what they divide.
        offset: centre of the first anchor in strides (0 corner, 0.5 cell centre).
        rounded: corners around the centre are rounded to whole pixels.
        order: which of size and ratio changes slowest within a cell.
        strides: "declared" by the levels, "measured" as padded size // map size, or fixed numbers.
        inclusive_corners: x2 and y2 name the last pixel, so that they are one less.
    """

    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    ratio: Literal["height/width", "width/height"] = "height/width"
    offset: float = 0.0
    rounded: bool = False
    order: Literal["size_major", "ratio_major"] = "size_major"
    strides: tuple[int, ...] | Literal["declared", "measured"] = "declared"
    inclusive_corners: bool = False

    def per_cell(self) -> tuple[int, ...]:
        """A for each level."""
        return tuple(len(sizes) * len(self.ratios) for sizes in self.sizes)

    def grids(
        self, levels: Sequence[Level], map_sizes: Sequence[Size], padded_size: Size, device: torch.device
    ) -> list[Tensor]:
        """The anchors of every level, each (H*W*A, 4) xyxy in network pixels, in the order y, x, anchor."""
        assert len(levels) == len(self.sizes) == len(map_sizes), (
            len(levels),
            len(self.sizes),
            len(map_sizes),
        )
        grids = [
            level_anchors(
                size.height,
                size.width,
                stride=self._stride(index, levels[index], size, padded_size),
                sizes=self.sizes[index],
                ratios=self.ratios,
                ratio=self.ratio,
                rounded=self.rounded,
                order=self.order,
                offset=self.offset,
                device=device,
            )
            for index, size in enumerate(map_sizes)
        ]
        if not self.inclusive_corners:
            return grids
        return [grid - grid.new_tensor([0.0, 0.0, 1.0, 1.0]) for grid in grids]

    def _stride(self, index: int, level: Level, size: Size, padded_size: Size) -> tuple[float, float]:
        if self.strides == "declared":
            return float(level.stride), float(level.stride)
        if self.strides == "measured":
            return float(padded_size.height // size.height), float(padded_size.width // size.width)
        return float(self.strides[index]), float(self.strides[index])
