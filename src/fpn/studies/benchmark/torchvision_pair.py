"""The same detector twice: ours, and torchvision's from torchvision's own parts, with equal weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from fpn.detectors import Detector, TwoStageDetector, named_preset
from fpn.heads.dense_towers import TowerHead
from fpn.heads.roi_heads import only_box_head
from fpn.interop.dense_heads import tower_rules
from fpn.interop.key_rules import rename
from fpn.interop.torchvision import DENSE_RULES, RULES
from fpn.shapes import Size
from fpn.structures.keypoints import COCO_PERSON
from fpn.studies.benchmark.their_models import THEIR_HEAD, THEIR_WIDTH, build_theirs
from fpn.training.config import takes


@dataclass(frozen=True)
class Pair:
    """Both sides.

    Attributes:
        ours: follows torchvision's conventions.
        theirs: torchvision's.
        equal: whether their weights are the same; widths may forbid it.
    """

    ours: Detector
    theirs: nn.Module
    equal: bool

    @property
    def first_label(self) -> int:
        """What torchvision calls our first class: 1 where 0 is background."""
        return 1 if isinstance(self.ours, TwoStageDetector) else 0


def build_pair(
    backbone: str,
    size: Size,
    *,
    kind: str = "faster_rcnn",
    weights: str | None = None,
    num_classes: int = 90,
    channels: int = THEIR_WIDTH,
    head_width: int = THEIR_HEAD,
    frozen_stages: int = 2,
    seed: int = 0,
) -> Pair:
    """Both sides with random heads (and a random backbone, unless `weights` says otherwise).

    Args:
        backbone: name of a timm model; of a bottleneck ResNet torchvision has its own.
        size: of the images inside of the network.
        kind: of detector, one of `their_models.PAIRED`.
        weights: of the backbone, as in `fpn.faster_rcnn`.
        num_classes: K; of detectors with keypoints it is 1, whose objects have COCO's keypoints of a person.
        channels: width of our pyramid; torchvision's is 256.
        head_width: of our box head, where there is one; torchvision's is 1024.
        frozen_stages: of the backbone, on both sides.
        seed: of the random weights.

    Raises:
        ConfigError: no such backbone, or one without four levels.
    """
    torch.manual_seed(seed)
    asked = {"classes": [f"class {k}" for k in range(1, num_classes + 1)], "channels": channels}
    if kind == "keypoint_rcnn":
        asked |= {"classes": ["person"], "skeleton": COCO_PERSON}
    equal = channels == THEIR_WIDTH
    if takes(kind, "head_width"):
        asked["head_width"] = head_width
        equal = equal and head_width == THEIR_HEAD
    ours = named_preset(kind)(
        backbone=backbone,
        weights=weights,
        dialect="torchvision",
        short_side=min(size),
        long_side=max(size),
        frozen_stages=frozen_stages,
        **asked,
    )
    _spread(ours, size)
    theirs = build_theirs(ours, size)
    if equal:
        _give_weights(ours, theirs)
    return Pair(ours, theirs, equal)


@torch.no_grad()
def _spread(ours: Detector, size: Size) -> None:
    """Make random weights decide: without this no box scores more than any other, and both sides find nothing."""
    features = cast(Any, ours).features
    pixels = torch.randn(1, 3, *(min(side, 256) for side in size), generator=torch.Generator().manual_seed(0))
    was_training = ours.training
    ours.eval()
    maps = features.backbone(pixels)
    for name, lateral in features.neck.laterals.items():
        lateral.weight /= maps[name].std().clamp(min=1e-6)
    if isinstance(ours, TwoStageDetector):
        box = only_box_head(ours.roi_heads)
        for layer, spread in (
            (ours.rpn.objectness, 0.3),
            (ours.rpn.deltas, 0.1),
            (box.scores, 0.5),
            (box.deltas, 0.1),
        ):
            nn.init.normal_(layer.weight, std=spread)
    else:
        _spread_dense(cast(TowerHead, cast(Any, ours).head))
    ours.train(was_training)


def _spread_dense(head: TowerHead) -> None:
    for tower in (head.class_tower, head.box_tower):
        for layer in tower.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
    nn.init.normal_(head.scores.weight, std=0.03)
    nn.init.constant_(cast(Tensor, head.scores.bias), -2.0)
    nn.init.normal_(head.deltas.weight, std=0.01)
    if head.quality is not None:  # distances of sides, of which half would be none
        nn.init.constant_(cast(Tensor, head.deltas.bias), 1.0)


@torch.no_grad()
def _give_weights(ours: Detector, theirs: nn.Module) -> None:
    """Ours into theirs, by the table of names that conversion uses the other way."""
    own, wanted = ours.state_dict(), theirs.state_dict()
    two_stages = isinstance(ours, TwoStageDetector)
    if two_stages:
        own |= _with_background(own)
    rules = RULES if two_stages else (*DENSE_RULES, *tower_rules(wanted))
    for name, value in wanted.items():
        renamed, _ = rename({name: value}, rules)
        for ours_name in renamed:
            value.copy_(own[ours_name])


def _with_background(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The layers with rows by class as torchvision has them: background comes first."""
    found = {}
    for part in ("weight", "bias"):
        scores, deltas = own[f"roi_heads.box.scores.{part}"], own[f"roi_heads.box.deltas.{part}"]
        found[f"roi_heads.box.scores.{part}"] = scores.roll(1, dims=0)
        found[f"roi_heads.box.deltas.{part}"] = torch.cat([torch.zeros_like(deltas[:4]), deltas])
        masks = own.get(f"roi_heads.mask.logits.{part}")
        if masks is not None:
            found[f"roi_heads.mask.logits.{part}"] = torch.cat([torch.zeros_like(masks[:1]), masks])
    return found
