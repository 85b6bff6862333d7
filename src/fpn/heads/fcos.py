"""FCOS' head: a box from every cell's own place, without anchors.

Source: Tian et al. 2019, arXiv:1904.01355, and its second form, arXiv:2006.09214.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fpn.heads.dense import DenseConfig
from fpn.heads.dense_losses import Learned, centre_offsets, centreness, sums_by_image
from fpn.heads.dense_selection import DenseMaps
from fpn.heads.dense_towers import TowerHead, weighted_mean
from fpn.ops.losses import binary_cross_entropy, giou_loss, iou_loss
from fpn.ops.matching import Match
from fpn.ops.point_matching import match_points
from fpn.sections import Number, Positive
from fpn.structures import ImageBatch, Level, LossTerms, Targets

# Without this end, a side could be infinite: exp(60) is 1e26 pixels.
_LARGEST_LOG = 60.0


class FCOSConfig(DenseConfig):
    """Section `dense` of an FCOS: from maps to detections."""

    offset: Number = Field(
        default=0.5, description="Place of the first cell, as a fraction of the stride: 0 its corner, 0.5 its middle."
    )
    strides: Literal["declared", "measured"] = Field(
        default="declared",
        description="Step from cell to cell: what the level declares, or padded size // map size (torchvision). Sides "
        "and ranges always count in what it declares.",
    )
    sides: Literal["relu", "exp"] = Field(
        default="relu",
        description="From a number to the distance of a side: ReLU, in strides; or exponential, in pixels.",
    )
    scaled: bool = Field(default=False, description="Whether each level has a factor of its own, which is learned.")
    radius: Positive[float] | None = Field(
        default=1.5,
        description="A place learns an object whose centre is so many strides away; None: anywhere inside.",
    )
    range_ends: Literal["open", "closed"] = Field(
        default="open",
        description="Whether an object whose farthest side is exactly 4 or 8 strides away is in a level's range.",
    )
    quality: Literal["boxes", "classes"] = Field(
        default="boxes", description="Behind which tower centre-ness is asked for."
    )
    scoring: Literal["root", "product"] = Field(
        default="root",
        description="A detection's score from its class's and its centre-ness: the `root` of the product, which is "
        "what the limit and top-k see; or the `product`, while they see the class's alone.",
    )
    box_loss: Literal["giou", "iou"] = Field(
        default="giou", description="1 - generalised IoU, or -log of the IoU (arXiv:1608.01471)."
    )
    box_weighted: bool = Field(default=False, description="Whether boxes weigh as much as they should be centred.")


class FCOSHead(TowerHead):
    """Classes by focal loss, four distances, and how near to the middle of its object a place is.

    References are (x, y, stride): (N, 3).

    Args:
        levels, num_classes: as `TowerHead`.
        config: everything else.
    """

    def __init__(self, *, levels: Sequence[Level], num_classes: int, config: FCOSConfig) -> None:
        super().__init__(
            levels=levels,
            num_classes=num_classes,
            per_cell=1,
            config=config,
            quality=config.quality,
            scaled=config.scaled,
        )
        self.config = config
        self.scoring = config.scoring

    def references(self, maps: DenseMaps, images: ImageBatch) -> list[Tensor]:
        """The places of each level, (H*W, 3): x, y and stride."""
        found = []
        for level, x in zip(self.levels, maps.deltas, strict=True):
            height, width = x.shape[-2:]
            step = self._step(level, height, width, images)
            ys, xs = (
                (torch.arange(count, device=x.device, dtype=torch.float32) + self.config.offset) * side
                for count, side in zip((height, width), step, strict=True)
            )
            y, x_ = torch.meshgrid(ys, xs, indexing="ij")
            found.append(torch.stack([x_, y, torch.full_like(y, float(level.stride))], dim=2).flatten(0, 1))
        return found

    def _step(self, level: Level, height: int, width: int, images: ImageBatch) -> tuple[float, float]:
        if self.config.strides == "declared":
            return float(level.stride), float(level.stride)
        padded = images.padded_size
        sides = (padded.height // height, padded.width // width)
        return cast(tuple[float, float], tuple(torch.sym_float(side) for side in sides))

    def decode(self, deltas: Float[Tensor, "n 4"], references: Float[Tensor, "n 3"]) -> Float[Tensor, "n 4"]:
        """See `TowerHead.decode`."""
        match self.config.sides:
            case "relu":
                sides = deltas.relu() * references[:, 2:]
            case "exp":
                sides = deltas.clamp(max=_LARGEST_LOG).exp()
        points = references[:, :2]
        return torch.cat([points - sides[:, :2], points + sides[:, 2:]], dim=1)

    def assign(self, references: Sequence[Tensor], truth: Targets, size: Tensor) -> Match:
        """By place and distance; see `fpn.ops.point_matching.match_points`."""
        places = torch.cat(list(references))
        ranges = torch.cat([places[:, 2:] * 4, places[:, 2:] * 8], dim=1)
        ranges[: len(references[0]), 0] = 0 if self.config.range_ends == "open" else -1
        ranges[len(places) - len(references[-1]) :, 1] = torch.inf
        return match_points(
            places[:, :2],
            places[:, 2],
            ranges,
            truth.boxes,
            truth.ignore,
            radius=self.config.radius,
            closed=self.config.range_ends == "closed",
        )

    def box_terms(
        self, deltas: Float[Tensor, "p 4"], quality: Tensor | None, references: Float[Tensor, "p 3"], learned: Learned
    ) -> LossTerms:
        """The terms `box` and `centreness`."""
        assert quality is not None, "an FCOS always has it"
        wanted = centreness(centre_offsets(references[:, :2], learned.boxes))
        boxes = self.decode(deltas, references)
        match self.config.box_loss:
            case "giou":
                values = giou_loss(boxes, learned.boxes)
            case "iou":
                values = iou_loss(boxes, learned.boxes)
        centred = self.term("centreness", sums_by_image(binary_cross_entropy(quality, wanted), learned), learned)
        if self.config.box_weighted:
            return centred + weighted_mean("box", values, wanted, floor=1e-6)
        return centred + self.term("box", sums_by_image(values, learned), learned)
