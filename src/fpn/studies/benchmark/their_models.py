"""torchvision's detectors from torchvision's own parts, on any timm model, in the shape of ours."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, cast

from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

from fpn.detectors import Detector, TwoStageDetector
from fpn.errors import ConfigError
from fpn.features.backbones.backbone import Backbone
from fpn.features.frozen import FrozenNorm
from fpn.shapes import Size

# Their classes of the kinds of detector that both have.
_TWO_STAGES = {
    "faster_rcnn": detection.FasterRCNN,
    "mask_rcnn": detection.MaskRCNN,
    "keypoint_rcnn": detection.KeypointRCNN,
}
_DENSE = {"retinanet": detection.RetinaNet, "fcos": detection.FCOS}
PAIRED = (*_TWO_STAGES, *_DENSE)
# torchvision's own; timm's of these names have the same parts under the same names.
_RESNETS = ("resnet50", "resnet101", "resnet152")
THEIR_WIDTH, THEIR_HEAD = 256, 1024


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

    def __init__(self, backbone: Backbone, extra: ExtraFPNBlock) -> None:
        super().__init__()
        for part in list(backbone.net.modules()):
            for name, child in list(part.named_children()):
                if isinstance(child, FrozenNorm):
                    setattr(part, name, _TheirNorm(child))
        self.body = backbone.net  # the name that torchvision's own has, so that one table of names serves both
        self._emit = [backbone]  # in a list: its weights are listed once, under `body`
        channels = [level.channels for level in backbone.levels]
        self.fpn = FeaturePyramidNetwork(channels, THEIR_WIDTH, extra_blocks=extra)
        self.out_channels = THEIR_WIDTH

    def forward(self, pixels: Tensor) -> OrderedDict[str, Tensor]:
        maps = self._emit[0](pixels).values()
        return cast("OrderedDict[str, Tensor]", self.fpn(OrderedDict((str(i), m) for i, m in enumerate(maps))))


def build_theirs(ours: Detector, size: Size) -> nn.Module:
    """torchvision's detector of the kind of ours, with as many classes, and random weights.

    Args:
        ours: of a kind of `PAIRED`, in torchvision's dialect.
        size: of the images inside of the network.

    Raises:
        ConfigError: its backbone lacks a level.
    """
    kind, pixels = ours.recipe.kind, ours.preprocessor.config
    shared: dict[str, Any] = {
        "min_size": min(size),
        "max_size": max(size),
        "image_mean": list(pixels.mean or ()),
        "image_std": list(pixels.std or ()),
    }
    own = cast(Backbone, cast(Any, ours).features.backbone)
    if not isinstance(ours, TwoStageDetector):
        dense: nn.Module = _DENSE[kind](_backbone(own, 3), num_classes=len(ours.classes), **shared)
        return dense
    if ours.skeleton is not None:
        shared["num_keypoints"] = len(ours.skeleton)
    made: nn.Module = _TWO_STAGES[kind](
        _backbone(own, 2),
        num_classes=len(ours.classes) + 1,
        rpn_anchor_generator=AnchorGenerator(tuple((s,) for s in (32, 64, 128, 256, 512)), ((0.5, 1.0, 2.0),) * 5),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2),
        box_head=TwoMLPHead(THEIR_WIDTH * 49, THEIR_HEAD),
        **shared,
    )
    return made


def _backbone(own: Backbone, finest: int) -> nn.Module:
    """With maps of the levels from `finest` to 5, and coarser ones as its detectors have them."""
    wanted = 6 - finest
    if len(own.levels) != wanted:
        raise ConfigError(f"backbone {own.name!r} has {len(own.levels)} levels: torchvision's pyramid needs {wanted}")
    extra = LastLevelMaxPool() if finest == 2 else LastLevelP6P7(THEIR_WIDTH, THEIR_WIDTH)
    if own.name not in _RESNETS:
        return _TheirBackbone(copy.deepcopy(own), extra)
    made: nn.Module = resnet_fpn_backbone(
        backbone_name=own.name,
        weights=None,
        trainable_layers=5 - own.frozen_stages,  # counted from the top; 5 is all of them
        returned_layers=list(range(finest - 1, 5)),
        extra_blocks=extra,
    )
    return made
