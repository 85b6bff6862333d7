"""The keypoint head: where in a box each keypoint of its object is (He et al. 2017, arXiv:1703.06870, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fpn.errors import DataError
from fpn.heads.box import SampledRoIs
from fpn.heads.mask import Fuse, fuse_tower
from fpn.heads.roi_pooler import RoIPooler
from fpn.ops.heatmaps import KeypointScore, cells_of_keypoints, keypoints_of_heatmaps
from fpn.sections import Positive, Section
from fpn.structures import Detections, Features, ImageBatch, LossTerms, Targets

# RoIs that go through the layers together where nothing is remembered for gradients.
_CHUNK = 64


class KeypointConfig(Section):
    """Section `keypoint`: where in a box the keypoints of its object are, for detectors with keypoints."""

    roi_size: Annotated[int, Field(ge=1, le=64)] = Field(
        default=14, description="Side of a RoI as the head reads it, in cells; heatmaps have four times as many."
    )
    convolutions: Annotated[int, Field(ge=0, le=16)] = Field(
        default=8, description="3x3 convolutions before the transposed one."
    )
    channels: Positive[int] = Field(default=512, description="Width of the convolutions.")
    normaliser: Literal["visible", "sampled"] = Field(
        default="visible",
        description="What the sum of the loss is divided by: visible keypoints, or as many as there would be if all "
        "positive RoIs that may be sampled had all keypoints (Detectron2 without "
        "NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS).",
    )
    score: KeypointScore = Field(
        default="probability",
        description="Third number of a keypoint: its place's probability among the cells of its heatmap, or the "
        "heatmap's logit there (torchvision).",
    )


class KeypointHead(nn.Module):
    """Reads each RoI on a finer grid and says for each keypoint in which cell it is.

    Args:
        pooler: reads RoIs from the levels as `config.roi_size` cells.
        num_keypoints: J.
        config: everything else.
        most_positive: positive RoIs of an image that may be sampled, for the normaliser of that name.
    """

    def __init__(
        self, *, pooler: RoIPooler, num_keypoints: int, config: KeypointConfig, most_positive: float = 128.0
    ) -> None:
        super().__init__()
        self.pooler, self.config = pooler, config
        self.num_keypoints, self.most_positive = num_keypoints, most_positive
        incoming = pooler.levels[0].channels
        self.tower = nn.Sequential()
        for _ in range(config.convolutions):
            self.tower.append(nn.Sequential(nn.Conv2d(incoming, config.channels, 3, padding=1), nn.ReLU()))
            incoming = config.channels
        self.upsample = nn.ConvTranspose2d(incoming, num_keypoints, 4, stride=2, padding=1)
        for name, weight in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(weight)
            else:
                nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Features, images: ImageBatch, boxes: Sequence[Tensor]) -> Float[Tensor, "r j s s"]:
        """Logits on the grid of each RoI, a map for each keypoint; `boxes` are one (N, 4) tensor an image."""
        return self.judge(self.pooler(features, images, boxes))

    def judge(self, pooled: Float[Tensor, "r c t t"]) -> Float[Tensor, "r j s s"]:
        """As `forward`, of RoIs that are already read from the levels."""
        coarse = self.upsample(self.tower(pooled))
        finer: Tensor = functional.interpolate(coarse.float(), scale_factor=2, mode="bilinear", align_corners=False)
        return finer

    def losses(
        self, features: Features, images: ImageBatch, drawn: Sequence[SampledRoIs], targets: Sequence[Targets]
    ) -> LossTerms:
        """Cross-entropy over the cells of a map, for visible keypoints in positive RoIs.

        Args:
            features, images: as `forward` takes them.
            drawn: the box head's samples.
            targets: each image's objects with keypoints in network pixels.

        Raises:
            DataError: an object that a RoI was matched to comes without keypoints, or with another number of them.
        """
        aims = [self._aim(each, truth) for each, truth in zip(drawn, targets, strict=True)]
        # A RoI without a visible keypoint adds nothing: it need not be read.
        useful = [valid.any(dim=1) for _, valid in aims]
        boxes = [each.boxes[: len(each.gt_index)][keep] for each, keep in zip(drawn, useful, strict=True)]
        logits = self(features, images, boxes)
        cells, valid = (
            torch.cat([part[keep] for part, keep in zip(parts, useful, strict=True)])
            for parts in zip(*aims, strict=True)
        )
        maps = logits[valid].flatten(1)  # (visible, S * S)
        count = len(maps)
        loss = functional.cross_entropy(maps, cells[valid], reduction="sum") if count else logits.sum() * 0
        right = (maps.detach().argmax(dim=1) == cells[valid]).float().mean() if count else loss.detach().new_ones(())
        visible = self.config.normaliser == "visible"
        whole = max(count, 1) if visible else self.most_positive * len(drawn) * self.num_keypoints
        return LossTerms(
            {"keypoint": loss / whole},
            {"keypoint_accuracy": right},
            {"keypoint": float(count)} if visible else {},
        )

    @torch.no_grad()
    def complete(self, features: Features, images: ImageBatch, found: Sequence[Detections]) -> list[Detections]:
        """The same detections with keypoints, network pixels: only what was found is looked at."""
        pooled = self.pooler(features, images, [each.boxes for each in found])
        boxes = torch.cat([each.boxes for each in found])
        parts = [
            keypoints_of_heatmaps(self.judge(pooled[k : k + _CHUNK]), boxes[k : k + _CHUNK], score=self.config.score)
            for k in range(0, len(boxes), _CHUNK)
        ]
        points = torch.cat(parts) if parts else boxes.new_zeros(0, self.num_keypoints, 3)
        each_image = torch.split(points, [len(each) for each in found])
        return [replace(each, keypoints=own) for each, own in zip(found, each_image, strict=True)]

    def rewrite(self, fuse: Fuse) -> None:
        """Put activations into the convolutions before them; `fuse` makes one of both."""
        fuse_tower(self.tower, fuse)

    def _aim(self, drawn: SampledRoIs, truth: Targets) -> tuple[Tensor, Tensor]:
        """Cell (P, J) of each keypoint in its positive RoI, and whether (P, J) there is one."""
        boxes = drawn.boxes[: len(drawn.gt_index)]
        if not len(boxes):
            none = boxes.new_zeros(0, self.num_keypoints)
            return none.long(), none.bool()
        if truth.keypoints is None:
            raise DataError("a detector with keypoints can't learn from objects without them: label keypoints")
        if truth.keypoints.shape[1] != self.num_keypoints:
            raise DataError(f"objects with {truth.keypoints.shape[1]} keypoints, the detector has {self.num_keypoints}")
        return cells_of_keypoints(truth.keypoints[drawn.gt_index], boxes, size=4 * self.config.roi_size)
