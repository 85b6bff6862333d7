"""What dense heads with anchors share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fpn.heads.anchors import AnchorGenerator, AnchorsConfig
from fpn.heads.box_coder import BoxCoder, CoderConfig
from fpn.heads.dense import DenseConfig
from fpn.heads.dense_selection import DenseMaps
from fpn.heads.dense_towers import QualityBranch, TowerHead
from fpn.shapes import Size
from fpn.structures import ImageBatch, Level

# Half of two corners is not exactly the place that they stand around, pixels.
_ROUNDING = 0.01


class AnchorTowerHead(TowerHead):
    """Boxes relative to anchors.

    Args:
        levels, num_classes, quality, scaled: as `TowerHead`.
        anchors: shapes and places; the same number a cell on every level.
        coder: what corners mean.
        weights: multipliers of (dx, dy, dw, dh).
        padding: anchors of cells that begin outside of an image that is padded to a multiple of this take no part in
            training; None: all do.
        config: everything else.
    """

    def __init__(
        self,
        *,
        levels: Sequence[Level],
        num_classes: int,
        anchors: AnchorsConfig,
        coder: CoderConfig,
        weights: tuple[float, float, float, float],
        padding: int | None,
        config: DenseConfig,
        quality: QualityBranch = "none",
        scaled: bool = False,
    ) -> None:
        generator = AnchorGenerator(config=anchors, inclusive_corners=coder.inclusive_corners)
        (per_cell,) = set(generator.per_cell())
        super().__init__(
            levels=levels, num_classes=num_classes, per_cell=per_cell, config=config, quality=quality, scaled=scaled
        )
        self.anchors, self.padding = generator, padding
        self.coder = BoxCoder(config=coder, weights=weights)

    def references(self, maps: DenseMaps, images: ImageBatch) -> list[Tensor]:
        """The anchors of each level, (H*W*A, 4)."""
        sizes = [Size(*x.shape[-2:]) for x in maps.deltas]
        return self.anchors.grids(self.levels, sizes, images.padded_size, images.pixels.device)

    def decode(self, deltas: Float[Tensor, "n 4"], references: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """See `TowerHead.decode`."""
        return self.coder.decode(deltas, references)

    def usable(self, references: Sequence[Tensor], size: Tensor) -> Bool[Tensor, " n"] | None:
        """Which anchors of all levels take part in training, in an image of `size`; None: all."""
        if self.padding is None:
            return None
        padded = (size + self.padding - 1) // self.padding * self.padding
        parts = []
        for level, grid in zip(self.levels, references, strict=True):
            # An anchor's cell begins where its centre would be without an offset.
            centres = (grid[:, :2] + grid[:, 2:]) / 2 - self.anchors.config.offset * level.stride
            parts.append((centres[:, 1] < padded[0] - _ROUNDING) & (centres[:, 0] < padded[1] - _ROUNDING))
        return torch.cat(parts)
