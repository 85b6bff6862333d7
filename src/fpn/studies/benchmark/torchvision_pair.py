"""The same detector twice: ours, and torchvision's from torchvision's own parts, with equal weights."""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TheirFasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.misc import FrozenBatchNorm2d

from fpn.detectors import TwoStageDetector, faster_rcnn
from fpn.errors import ConfigError
from fpn.features.backbones.backbone import Backbone
from fpn.features.frozen import FrozenNorm
from fpn.heads.roi_heads import only_box_head
from fpn.interop.key_rules import rename
from fpn.interop.torchvision import RULES
from fpn.shapes import Size

# torchvision's own; timm's of these names have the same parts under the same names.
_RESNETS = ("resnet50", "resnet101", "resnet152")
_THEIR_WIDTH, _THEIR_HEAD = 256, 1024


@dataclass(frozen=True)
class Pair:
    """Both sides.

    Attributes:
        ours: follows torchvision's conventions.
        theirs: torchvision's.
        equal: whether their weights are the same; widths may forbid it.
    """

    ours: TwoStageDetector
    theirs: nn.Module
    equal: bool


class _TheirNorm(FrozenBatchNorm2d):  # type: ignore[misc]
    """torchvision's frozen norm, and what timm has behind it."""

    def __init__(self, norm: FrozenNorm) -> None:
        super().__init__(len(norm.weight), eps=norm.eps)
        self.load_state_dict(norm.state_dict())
        self.tail = norm.tail

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x if self.tail is None else cast(Tensor, self.tail(x))


class _TheirBackbone(nn.Module):
    """Any timm model as a bottom-up path under torchvision's pyramid."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        for part in list(backbone.net.modules()):
            for name, child in list(part.named_children()):
                if isinstance(child, FrozenNorm):
                    setattr(part, name, _TheirNorm(child))
        self.body = backbone.net  # the name that torchvision's own has, so that one table of names serves both
        self._emit = [backbone]  # in a list: its weights are listed once, under `body`
        channels = [level.channels for level in backbone.levels]
        self.fpn = FeaturePyramidNetwork(channels, _THEIR_WIDTH, extra_blocks=LastLevelMaxPool())
        self.out_channels = _THEIR_WIDTH

    def forward(self, pixels: Tensor) -> OrderedDict[str, Tensor]:
        maps = self._emit[0](pixels).values()
        return cast("OrderedDict[str, Tensor]", self.fpn(OrderedDict((str(i), m) for i, m in enumerate(maps))))


def build_pair(
    backbone: str,
    size: Size,
    *,
    weights: str | None = None,
    num_classes: int = 90,
    channels: int = _THEIR_WIDTH,
    head_width: int = _THEIR_HEAD,
    frozen_stages: int = 2,
    seed: int = 0,
) -> Pair:
    """Both sides with random heads (and a random backbone, unless `weights` says otherwise).

    Args:
        backbone: name of a timm model; of a bottleneck ResNet torchvision has its own.
        size: of the images inside of the network.
        weights: of the backbone, as in `fpn.faster_rcnn`.
        num_classes: K.
        channels: width of our pyramid; torchvision's is 256.
        head_width: of our box head; torchvision's is 1024.
        frozen_stages: of the backbone, on both sides.
        seed: of the random weights.

    Raises:
        ConfigError: no such backbone, or one without four levels.
    """
    torch.manual_seed(seed)
    ours = faster_rcnn(
        backbone=backbone,
        weights=weights,
        classes=[f"class {k}" for k in range(1, num_classes + 1)],
        dialect="torchvision",
        short_side=min(size),
        long_side=max(size),
        frozen_stages=frozen_stages,
        channels=channels,
        head_width=head_width,
    )
    _spread(ours, size)
    theirs = _their_model(ours, size, num_classes)
    equal = (channels, head_width) == (_THEIR_WIDTH, _THEIR_HEAD)
    if equal:
        _give_weights(ours, theirs)
    return Pair(ours, theirs, equal)


@torch.no_grad()
def _spread(ours: TwoStageDetector, size: Size) -> None:
    """Make random weights decide: without this no box scores more than any other, and both sides find nothing."""
    features = cast(Any, ours.features)
    pixels = torch.randn(1, 3, *(min(side, 256) for side in size), generator=torch.Generator().manual_seed(0))
    was_training = ours.training
    ours.eval()
    maps = features.backbone(pixels)
    for name, found in maps.items():
        features.neck.laterals[name].weight /= found.std().clamp(min=1e-6)
    box = only_box_head(ours.roi_heads)
    for layer, spread in (
        (ours.rpn.objectness, 0.3),
        (ours.rpn.deltas, 0.1),
        (box.scores, 0.5),
        (box.deltas, 0.1),
    ):
        nn.init.normal_(layer.weight, std=spread)
    ours.train(was_training)


def _their_model(ours: TwoStageDetector, size: Size, num_classes: int) -> nn.Module:
    own = cast(Backbone, ours.features.backbone)
    if len(own.levels) != 4:
        raise ConfigError(f"backbone {own.name!r} has {len(own.levels)} levels: torchvision's pyramid needs four")
    backbone: nn.Module
    if own.name in _RESNETS:
        # trainable_layers counts from the top; 5 is all of them.
        backbone = resnet_fpn_backbone(
            backbone_name=own.name, weights=None, trainable_layers=min(5, 6 - own.frozen_stages)
        )
    else:
        backbone = _TheirBackbone(copy.deepcopy(own))
    preprocessor = ours.preprocessor
    model: nn.Module = TheirFasterRCNN(
        backbone,
        num_classes=num_classes + 1,
        min_size=min(size),
        max_size=max(size),
        image_mean=list(preprocessor.config.mean or ()),
        image_std=list(preprocessor.config.std or ()),
        rpn_anchor_generator=AnchorGenerator(tuple((s,) for s in (32, 64, 128, 256, 512)), ((0.5, 1.0, 2.0),) * 5),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2),
        box_head=TwoMLPHead(_THEIR_WIDTH * 49, _THEIR_HEAD),
    )
    return model


@torch.no_grad()
def _give_weights(ours: TwoStageDetector, theirs: nn.Module) -> None:
    """Ours into theirs, by the table of names that conversion uses the other way."""
    own = ours.state_dict()
    for part in ("weight", "bias"):
        scores, deltas = own[f"roi_heads.box.scores.{part}"], own[f"roi_heads.box.deltas.{part}"]
        own[f"roi_heads.box.scores.{part}"] = scores.roll(1, dims=0)  # background comes first
        own[f"roi_heads.box.deltas.{part}"] = torch.cat([torch.zeros_like(deltas[:4]), deltas])
    for name, value in theirs.state_dict().items():
        renamed, _ = rename({name: value}, RULES)
        for ours_name in renamed:
            value.copy_(own[ours_name])
