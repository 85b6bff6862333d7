"""The mask head: which pixels of a box belong to its object (He et al. 2017, arXiv:1703.06870)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Literal, TypeAlias, TypeVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from fpn.errors import DataError
from fpn.features.blocks import Norm, make_norm
from fpn.features.frozen import FrozenNorm
from fpn.heads.box import SampledRoIs
from fpn.heads.class_rows import ClassRows
from fpn.heads.roi_pooler import RoIPooler
from fpn.ops.losses import binary_cross_entropy
from fpn.sections import Fraction, Positive, Section
from fpn.structures import Detections, Features, ImageBatch, LossTerms, Targets

Fuse: TypeAlias = Callable[[nn.Conv2d, nn.Module], nn.Module]
_Convolution = TypeVar("_Convolution", nn.Conv2d, nn.ConvTranspose2d)
# RoIs that go through the layers together where nothing is remembered for gradients: 256 channels of 28 x 28 cells are
# 51 MB then.
_CHUNK = 64


class MaskConfig(Section):
    """Section `mask`: which pixels of a box belong to its object, for detectors with masks."""

    roi_size: Annotated[int, Field(ge=1, le=64)] = Field(
        default=14, description="Side of a RoI as the head reads it, in cells; masks have twice as many."
    )
    convolutions: Annotated[int, Field(ge=0, le=16)] = Field(
        default=4, description="3x3 convolutions before the transposed one."
    )
    channels: Positive[int] = Field(default=256, description="Width of the convolutions.")
    norm: Norm | Literal["frozen"] = Field(
        default="none",
        description="Behind each 3x3 convolution, before its ReLU: no norm, one over the batch (torchvision's v2, "
        "Detectron2's new baselines), groups of channels, or a cell's channels, or one over the batch whose "
        "statistics stay as they are loaded (matterport).",
    )
    class_agnostic: bool = Field(default=False, description="True: one mask a RoI, whatever its class.")
    sampling: Literal["outline", "pixels"] = Field(
        default="outline",
        description="How a loss's target is cut out: polygons filled on the grid of the box (Detectron2), or their "
        "pixels read by RoIAlign (torchvision, MMDetection). Run-length codes are read by RoIAlign in any case.",
    )
    aligned: bool = Field(default=True, description="That RoIAlign's, as `roi.aligned`.")
    threshold: Fraction | None = Field(
        default=0.5, description="What it reads becomes 1 from this on, else 0; None: a part stays one (torchvision)."
    )


class MaskHead(nn.Module):
    """Reads each RoI on a finer grid and says of each cell whether it shows the RoI's object.

    Args:
        pooler: reads RoIs from the levels as `config.roi_size` cells.
        num_classes: K.
        config: everything else.
        norm_epsilon: of norms over the batch.
        bias: whether the convolutions before norms have one; without norms all have.
    """

    def __init__(
        self,
        *,
        pooler: RoIPooler,
        num_classes: int,
        config: MaskConfig,
        norm_epsilon: float = 1e-5,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.pooler, self.config = pooler, config
        incoming, width = pooler.levels[0].channels, config.channels
        self.tower = nn.Sequential()
        for _ in range(config.convolutions):
            convolution = nn.Conv2d(incoming, width, 3, padding=1, bias=bias or config.norm == "none")
            self.tower.append(nn.Sequential(_filled(convolution), *_norm(config, norm_epsilon), nn.ReLU()))
            incoming = width
        self.upsample = _filled(nn.ConvTranspose2d(incoming, width, 2, stride=2))
        self.logits = nn.Conv2d(width, 1 if config.class_agnostic else num_classes, 1)
        nn.init.normal_(self.logits.weight, std=0.001)
        assert self.logits.bias is not None, "made with one"
        nn.init.zeros_(self.logits.bias)

    def forward(
        self, features: Features, images: ImageBatch, boxes: Sequence[Tensor], labels: Int[Tensor, " r"]
    ) -> Float[Tensor, "r s s"]:
        """Logits on the grid of each RoI, of its own class.

        Args:
            features: maps of at least the pooler's levels.
            images: the batch the maps come from.
            boxes: one (N, 4) xyxy tensor an image, network pixels.
            labels: class of each RoI, in the order of `boxes`.
        """
        return self.judge(self.pooler(features, images, boxes), labels)

    def judge(self, pooled: Float[Tensor, "r c t t"], labels: Int[Tensor, " r"]) -> Float[Tensor, "r s s"]:
        """As `forward`, of RoIs that are already read from the levels.

        The last layer's other classes are not computed: at 80 they would take 80 times the memory of what is needed.
        """
        hidden = self.upsample(self.tower(pooled)).relu()
        channel = torch.zeros_like(labels) if self.config.class_agnostic else labels
        assert self.logits.bias is not None, "made with one"
        weight, bias = self.logits.weight.flatten(1)[channel], self.logits.bias[channel]
        logits = torch.bmm(weight[:, None], hidden.flatten(2)) + bias[:, None, None]
        return logits.view(-1, *hidden.shape[2:])

    def losses(
        self, features: Features, images: ImageBatch, drawn: Sequence[SampledRoIs], targets: Sequence[Targets]
    ) -> LossTerms:
        """Binary cross-entropy, the mean over all cells of positive RoIs.

        Args:
            features, images: as `forward` takes them.
            drawn: the box head's samples.
            targets: each image's objects with masks in the frame of its network pixels.

        Raises:
            DataError: an object that a RoI was matched to comes without a mask.
        """
        boxes = [each.boxes[: len(each.gt_index)] for each in drawn]
        labels = torch.cat([each.labels[: len(each.gt_index)] for each in drawn])
        logits = self(features, images, boxes, labels).float()
        wanted = torch.cat([self._target(each, truth) for each, truth in zip(drawn, targets, strict=True)])
        loss = binary_cross_entropy(logits, wanted)
        right = ((logits.detach() > 0) == (wanted >= 0.5)).float()
        return LossTerms(
            {"mask": loss.mean() if len(labels) else logits.sum() * 0},
            {"mask_accuracy": right.mean() if len(labels) else logits.new_ones(())},
            {"mask": float(len(labels))},
        )

    @torch.no_grad()
    def complete(self, features: Features, images: ImageBatch, found: Sequence[Detections]) -> list[Detections]:
        """The same detections with `mask_probabilities`: only what was found is looked at."""
        pooled = self.pooler(features, images, [each.boxes for each in found])
        probabilities = self.probabilities(pooled, torch.cat([each.labels for each in found]))
        masks = torch.split(probabilities, [len(each) for each in found])
        return [replace(each, mask_probabilities=mask) for each, mask in zip(found, masks, strict=True)]

    @torch.no_grad()
    def probabilities(self, pooled: Float[Tensor, "r c t t"], labels: Int[Tensor, " r"]) -> Float[Tensor, "r s s"]:
        """What `judge` says, 0..1, some RoIs after the others."""
        parts = [self.judge(pooled[k : k + _CHUNK], labels[k : k + _CHUNK]) for k in range(0, len(labels), _CHUNK)]
        side = 2 * self.config.roi_size
        logits = torch.cat(parts) if parts else pooled.new_zeros(0, side, side)
        return logits.float().sigmoid()

    def class_rows(self) -> list[ClassRows]:
        """The layer with rows by class, unless all classes share one."""
        return [] if self.config.class_agnostic else [ClassRows(self.logits)]

    def rewrite(self, fuse: Fuse) -> None:
        """Put activations into the convolutions before them; `fuse` makes one of both."""
        fuse_tower(self.tower, fuse)

    def _target(self, drawn: SampledRoIs, truth: Targets) -> Float[Tensor, "p s s"]:
        boxes, side = drawn.boxes[: len(drawn.gt_index)], 2 * self.config.roi_size
        if not len(boxes):
            return boxes.new_zeros(0, side, side)
        if truth.masks is None:
            raise DataError("a detector with masks can't learn from objects without them: label outlines")
        return truth.masks.crop(
            boxes,
            side,
            which=drawn.gt_index,
            sampling=self.config.sampling,
            aligned=self.config.aligned,
            threshold=self.config.threshold,
        )


def fuse_tower(tower: nn.Sequential, fuse: Fuse) -> None:
    """Make each convolution one with the ReLU that follows it immediately; those before norms stay as they are."""
    for block in tower:
        assert isinstance(block, nn.Sequential), "as it was made"
        match list(block):
            case [nn.Conv2d() as convolution, nn.ReLU() as activation]:
                block[0], block[1] = fuse(convolution, activation), nn.Identity()


def _filled(convolution: _Convolution) -> _Convolution:
    """Weights after He et al. 2015, by the number of outputs; no biases."""
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


def _norm(config: MaskConfig, epsilon: float) -> list[nn.Module]:
    if config.norm == "frozen":
        return [FrozenNorm(config.channels, eps=epsilon)]
    made = make_norm(config.norm, config.channels, epsilon=epsilon if config.norm == "batch" else None)
    return [] if made is None else [made]
