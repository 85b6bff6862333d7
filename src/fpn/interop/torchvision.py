"""pytorch/vision: fasterrcnn_resnet50_fpn, maskrcnn_resnet50_fpn, keypointrcnn_resnet50_fpn, and relatives with a
two-layer box head on a bottleneck ResNet."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import timm
import torch

from fpn.detectors.toolkits import TORCHVISION, TORCHVISION_V2
from fpn.features.backbones.mobilenets import is_torchvision_mobilenet, mobilenet_names
from fpn.interop.assemble import MOBILENET, build
from fpn.interop.dense_heads import build_dense, has_dense_head, tower_rules
from fpn.interop.imported import ImportedWeights, State
from fpn.interop.key_rules import Rules, rename
from fpn.structures import Classes

# inner_blocks.0 is the finest, c2. Files from before torchvision 0.13 lack the inner ".0" of these blocks.
LEVELS = (2, 3, 4, 5)


def pyramid_rules(levels: tuple[int, ...]) -> Rules:
    """Rules for laterals and smoothing convolutions of these levels, finest first."""
    return tuple(
        (rf"backbone\.fpn\.{part}\.{i}\.(?:0\.)?(weight|bias)", rf"features.neck.{own}{k}.\1")
        for part, own in (("inner_blocks", "laterals.c"), ("layer_blocks", "smooths.p"))
        for i, k in enumerate(levels)
    )


RULES: Rules = (
    (r".*\.num_batches_tracked", None),
    (r"backbone\.body\.(.+)", r"features.backbone.net.\1"),
    *pyramid_rules(LEVELS),
    (r"rpn\.head\.conv\.(?:0\.0\.)?(weight|bias)", r"rpn.shared.\1"),
    (r"rpn\.head\.conv\.1\.0\.(.+)", r"rpn.further.0.\1"),
    (r"roi_heads\.box_head\.(\d+\..+)", r"roi_heads.box.trunk.\1"),
    (r"rpn\.head\.cls_logits\.(.+)", r"rpn.objectness.\1"),
    (r"rpn\.head\.bbox_pred\.(.+)", r"rpn.deltas.\1"),
    (r"roi_heads\.box_head\.fc6\.(.+)", r"roi_heads.box.trunk.1.\1"),
    (r"roi_heads\.box_head\.fc7\.(.+)", r"roi_heads.box.trunk.3.\1"),
    (r"roi_heads\.box_predictor\.cls_score\.(.+)", r"roi_heads.box.scores.\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(.+)", r"roi_heads.box.deltas.\1"),
    # Files from before torchvision 0.13 count from 1.
    *((rf"roi_heads\.mask_head\.mask_fcn{i + 1}\.(.+)", rf"roi_heads.mask.tower.{i}.0.\1") for i in range(4)),
    (r"roi_heads\.mask_head\.(\d+)\.(\d)\.(.+)", r"roi_heads.mask.tower.\1.\2.\3"),
    (r"roi_heads\.mask_predictor\.conv5_mask\.(.+)", r"roi_heads.mask.upsample.\1"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.(.+)", r"roi_heads.mask.logits.\1"),
    # Convolutions and activations are counted.
    *((rf"roi_heads\.keypoint_head\.{2 * i}\.(.+)", rf"roi_heads.keypoint.tower.{i}.0.\1") for i in range(16)),
    (r"roi_heads\.keypoint_predictor\.kps_score_lowres\.(.+)", r"roi_heads.keypoint.upsample.\1"),
)


# With norms, as in the `_v2` models.
NORMED_RULES: Rules = (
    *(
        (rf"backbone\.fpn\.inner_blocks\.{i}\.(\d\..+)", rf"features.neck.laterals.c{k}.\1")
        for i, k in enumerate(LEVELS)
    ),
    *(
        (rf"backbone\.fpn\.layer_blocks\.{i}\.(\d\..+)", rf"features.neck.smooths.p{k}.\1")
        for i, k in enumerate(LEVELS)
    ),
)
# On MobileNetV3: two maps of one stride, all anchors on each level, RoIs from the finest alone
# (models/detection/faster_rcnn.py, `_fasterrcnn_mobilenet_v3_large_fpn`). No weight tells the limit of scores.
MOBILENET_LEVELS = (4, 5)
TORCHVISION_MOBILENET = TORCHVISION.changed(
    backbone={"split_last_stage": True},
    neck={"finest_level": MOBILENET_LEVELS[0]},
    anchors={"sizes": ((32.0, 64.0, 128.0, 256.0, 512.0),) * 3},
    rpn={"min_score": 0.05},
    roi={"coarsest_level": MOBILENET_LEVELS[0]},
)
_TWO_SIZES = (
    "no weight tells torchvision's two detectors on MobileNetV3 apart: images of 800/1333 pixels are taken. If it is "
    "fasterrcnn_mobilenet_v3_large_320_fpn, say --set pixels.short_side=320 --set pixels.long_side=640 --set "
    "rpn.before_nms=[2000,150] --set rpn.after_nms=[2000,150]; of the other one, --set pixels.short_side=800"
)
_BODY = "backbone.body."
# A pyramid from c3 on, and levels that convolutions make.
DENSE_RULES: Rules = (
    RULES[0],
    RULES[1],
    *((rf"backbone\.fpn\.inner_blocks\.{i}\.(?:0\.)?(.+)", rf"features.neck.laterals.c{3 + i}.\1") for i in range(3)),
    *((rf"backbone\.fpn\.layer_blocks\.{i}\.(?:0\.)?(.+)", rf"features.neck.smooths.p{3 + i}.\1") for i in range(3)),
    (r"backbone\.fpn\.extra_blocks\.(p\d)\.(.+)", r"features.neck.extras.\1.\2"),
)


def recognises(names: Collection[str]) -> bool:
    """Whether the names are this toolkit's."""
    return any(name.startswith("backbone.fpn.inner_blocks.") for name in names)


def rules_of(names: Collection[str]) -> Rules:
    """The rules for a file with these names."""
    if has_dense_head(names):
        return (*DENSE_RULES, *tower_rules(names))
    counters, *others = RULES
    return (counters, *NORMED_RULES, *others) if _is_normed(names) else RULES


def _is_normed(names: Collection[str]) -> bool:
    return any(name.startswith("backbone.fpn.inner_blocks.0.1.") for name in names)


def import_weights(
    state: State, *, classes: Classes | Iterable[str] | None = None, **conventions: Any
) -> ImportedWeights:
    """Its weights in our detector; of Faster R-CNN background's logit moves to the end, its unread boxes are dropped.

    Args:
        state: a `state_dict` of `fasterrcnn_resnet50_fpn`, `maskrcnn_resnet50_fpn` or `keypointrcnn_resnet50_fpn`, of a
            `_v2`, of one on MobileNetV3, or of a one-stage detector.
        classes: names of the classes without background; None: "class 1", "class 2", ... Of one-stage detectors a
            name for every logit: they have no background, but the published ones an unused class 0.
        conventions: fields of the dialect that are not as usual, such as `short_side=640`.
    """
    if has_dense_head(state):
        return _one_stage(state, classes, conventions)
    if is_torchvision_mobilenet(state, _BODY):
        renamed, leftover = rename(_with_timm_names(state), (*pyramid_rules(MOBILENET_LEVELS), *RULES))
        found = build(renamed, TORCHVISION_MOBILENET, leftover, classes=classes, conventions=conventions)
        told = {"short_side", "pixels_short_side"} & conventions.keys()
        return found if told else replace(found, remarks=(*found.remarks, _TWO_SIZES))
    renamed, leftover = rename(state, rules_of(state))
    dialect = TORCHVISION_V2 if _is_normed(state) else TORCHVISION
    return build(renamed, dialect, leftover, classes=classes, conventions=conventions)


def _with_timm_names(state: State) -> State:
    """The backbone's names as timm's MobileNetV3 has them."""
    with torch.device("meta"):
        twin = timm.create_model(MOBILENET, pretrained=False, features_only=True).state_dict()
    found = mobilenet_names(state, twin, _BODY, "torchvision weights")
    rest = {name: value for name, value in state.items() if not name.startswith(_BODY)}
    return {**rest, **{f"{_BODY}{name}": value for name, value in found.items()}}


def _one_stage(
    state: State, classes: Classes | Iterable[str] | None, conventions: Mapping[str, Any]
) -> ImportedWeights:
    renamed, leftover = rename(state, rules_of(state))
    second = "head.class_tower.norms.0.weight" in renamed
    kind = "fcos" if "head.quality.weight" in renamed else "retinanet"
    toolkit = "torchvision_v2" if second and kind == "retinanet" else "torchvision"
    return build_dense(renamed, kind, toolkit, leftover, classes=classes, conventions=conventions)
