"""facebookresearch/detectron2: Faster, Cascade, Mask and Keypoint R-CNN, RetinaNet and FCOS."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

from fpn.detectors.dialect import TwoStageDialect
from fpn.detectors.toolkits import DETECTRON2
from fpn.errors import ModelFileError
from fpn.interop.assemble import behind_convolutions, build, count_convolutions
from fpn.interop.dense_heads import build_dense, has_dense_head, tower_rules
from fpn.interop.imported import ImportedWeights, State
from fpn.interop.key_rules import Rules, mark_normed, rename, unmarked
from fpn.structures import Classes

# Convolutions of a head, at most.
MOST = 16
_STAGE = r"roi_heads.box.stages.\1.trunk"
NET, _MASK = r"backbone\.bottom_up", r"roi_heads\.mask_head\.mask_fcn"
RULES: Rules = (
    (r".*\.num_batches_tracked", None),
    (NET + r"\.stem\.conv1\.norm\.(.+)", r"features.backbone.net.bn1.\1"),
    (NET + r"\.stem\.conv1\.(.+)", r"features.backbone.net.conv1.\1"),
    # res2..res5 are our layer1..layer4.
    (NET + r"\.res2\.(.+)", r"stage.1.\1"),
    (NET + r"\.res3\.(.+)", r"stage.2.\1"),
    (NET + r"\.res4\.(.+)", r"stage.3.\1"),
    (NET + r"\.res5\.(.+)", r"stage.4.\1"),
    (r"backbone\.fpn_lateral(\d)\.normed\.(.+)", r"features.neck.laterals.c\1.0.\2"),
    (r"backbone\.fpn_lateral(\d)\.norm\.(.+)", r"features.neck.laterals.c\1.1.\2"),
    (r"backbone\.fpn_lateral(\d)\.(.+)", r"features.neck.laterals.c\1.\2"),
    (r"backbone\.fpn_output(\d)\.normed\.(.+)", r"features.neck.smooths.p\1.0.\2"),
    (r"backbone\.fpn_output(\d)\.norm\.(.+)", r"features.neck.smooths.p\1.1.\2"),
    (r"backbone\.fpn_output(\d)\.(.+)", r"features.neck.smooths.p\1.\2"),
    (r"backbone\.top_block\.(p\d)\.(.+)", r"features.neck.extras.\1.\2"),
    (r"proposal_generator\.rpn_head\.conv\.conv0\.(.+)", r"rpn.shared.\1"),
    *((rf"proposal_generator\.rpn_head\.conv\.conv{k + 1}\.(.+)", rf"rpn.further.{k}.\1") for k in range(MOST)),
    (r"proposal_generator\.rpn_head\.conv\.(.+)", r"rpn.shared.\1"),
    *((rf"roi_heads\.box_head\.conv{k + 1}\.norm\.(.+)", rf"roi_heads.box.trunk.{k}.1.\1") for k in range(MOST)),
    *((rf"roi_heads\.box_head\.conv{k + 1}\.(?:normed\.)?(.+)", rf"roi_heads.box.trunk.{k}.0.\1") for k in range(MOST)),
    (r"proposal_generator\.rpn_head\.objectness_logits\.(.+)", r"rpn.objectness.\1"),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.(.+)", r"rpn.deltas.\1"),
    # A cascade's heads are numbered.
    *((rf"roi_heads\.box_head\.(\d+)\.conv{k + 1}\.norm\.(.+)", rf"{_STAGE}.{k}.1.\2") for k in range(MOST)),
    *((rf"roi_heads\.box_head\.(\d+)\.conv{k + 1}\.(?:normed\.)?(.+)", rf"{_STAGE}.{k}.0.\2") for k in range(MOST)),
    (r"roi_heads\.box_head\.(\d+)\.fc1\.(.+)", r"roi_heads.box.stages.\1.trunk.1.\2"),
    (r"roi_heads\.box_head\.(\d+)\.fc2\.(.+)", r"roi_heads.box.stages.\1.trunk.3.\2"),
    (r"roi_heads\.box_predictor\.(\d+)\.cls_score\.(.+)", r"roi_heads.box.stages.\1.scores.\2"),
    (r"roi_heads\.box_predictor\.(\d+)\.bbox_pred\.(.+)", r"roi_heads.box.stages.\1.deltas.\2"),
    (r"roi_heads\.box_head\.fc1\.(.+)", r"roi_heads.box.trunk.1.\1"),
    (r"roi_heads\.box_head\.fc2\.(.+)", r"roi_heads.box.trunk.3.\1"),
    (r"roi_heads\.box_predictor\.cls_score\.(.+)", r"roi_heads.box.scores.\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(.+)", r"roi_heads.box.deltas.\1"),
    *((rf"roi_heads\.mask_head\.mask_fcn{i + 1}\.norm\.(.+)", rf"roi_heads.mask.tower.{i}.1.\1") for i in range(16)),
    *(
        (rf"roi_heads\.mask_head\.mask_fcn{i + 1}\.(?:normed\.)?(.+)", rf"roi_heads.mask.tower.{i}.0.\1")
        for i in range(16)
    ),
    (r"roi_heads\.mask_head\.deconv\.(.+)", r"roi_heads.mask.upsample.\1"),
    (r"roi_heads\.mask_head\.predictor\.(.+)", r"roi_heads.mask.logits.\1"),
    *((rf"roi_heads\.keypoint_head\.conv_fcn{i + 1}\.(.+)", rf"roi_heads.keypoint.tower.{i}.0.\1") for i in range(16)),
    (r"roi_heads\.keypoint_head\.score_lowres\.(.+)", r"roi_heads.keypoint.upsample.\1"),
)
BLOCK_RULES: Rules = (
    (r"stage\.(\d)\.(\d+)\.shortcut\.norm\.(.+)", r"features.backbone.net.layer\1.\2.downsample.1.\3"),
    (r"stage\.(\d)\.(\d+)\.shortcut\.(.+)", r"features.backbone.net.layer\1.\2.downsample.0.\3"),
    (r"stage\.(\d)\.(\d+)\.conv(\d)\.norm\.(.+)", r"features.backbone.net.layer\1.\2.bn\3.\4"),
    (r"stage\.(\d)\.(.+)", r"features.backbone.net.layer\1.\2"),
    (r"(.+)", r"\1"),
)


def recognises(names: Collection[str]) -> bool:
    """Whether the names are this toolkit's."""
    return any(name.startswith("backbone.fpn_lateral") for name in names)


def import_weights(
    state: State, *, classes: Classes | Iterable[str] | None = None, **conventions: Any
) -> ImportedWeights:
    """Its weights in our detector, or a pyramid's alone.

    Args:
        state: the `model` of its checkpoint.
        classes: names of the classes; None: "class 1", "class 2", ...
        conventions: fields of the dialect that are not as usual, such as `backbone_stride_on="3x3"` for a backbone that
            was trained elsewhere than at Microsoft.
    """
    dense = has_dense_head(state)
    staged, leftover = rename(_with_marks(state), (*RULES, *tower_rules(state)) if dense else RULES)
    leftover = unmarked(leftover)
    renamed, _ = rename(staged, BLOCK_RULES)
    if _is_grouped(renamed):
        # Its X101 backbones come from torch: configs/COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml.
        conventions = {"backbone_stride_on": "3x3", "pixels_std": (57.375, 57.12, 58.395), **conventions}
    if dense:
        kind = "fcos" if "head.quality.weight" in renamed else "retinanet"
        return build_dense(renamed, kind, "detectron2", leftover, classes=classes, conventions=conventions)
    dialect = DETECTRON2
    if not any(name.startswith("features.neck.laterals.c2.") for name in renamed):
        dialect = _retinanet(renamed)
    if count_convolutions(renamed) > 0:
        renamed = behind_convolutions(renamed)
    elif "roi_heads.box.trunk.1.weight" in renamed:
        cells = renamed["roi_heads.box.trunk.1.weight"].shape[1] / len(renamed["features.neck.laterals.c2.weight"])
        dialect = dialect.changed(roi_output_size=round(math.sqrt(cells)))
    if "roi_heads.keypoint.upsample.weight" in renamed:  # as its Base-Keypoint-RCNN-FPN.yaml has it
        dialect = dialect.changed(box_beta=0.5, rpn_after_nms=(1500, 1000))
    return build(renamed, dialect, leftover, classes=classes, conventions=conventions)


def _with_marks(state: State) -> State:
    """Marks on all but the backbone, whose convolutions and norms have places of their own."""
    outside = {name: value for name, value in state.items() if not name.startswith("backbone.bottom_up.")}
    return {**{name: value for name, value in state.items() if name not in outside}, **mark_normed(outside)}


def _is_grouped(renamed: State) -> bool:
    """Whether the 3x3 convolutions of its backbone are grouped, as in a ResNeXt."""
    weight = renamed.get("features.backbone.net.layer1.0.conv2.weight")
    return weight is not None and weight.shape[1] < len(weight)


def _retinanet(renamed: State) -> TwoStageDialect:
    """P3 to P7, the last two by convolutions on C5, or in some configurations on P5."""
    if "features.neck.extras.p6.weight" not in renamed:
        raise ModelFileError("Detectron2 weights: a pyramid from P3 on without a top_block that makes P6 and P7")
    on_c5 = renamed["features.neck.extras.p6.weight"].shape[1] == renamed["features.neck.laterals.c5.weight"].shape[1]
    return DETECTRON2.changed(
        neck_finest_level=3,
        neck_extra_levels="convolutions_on_c5" if on_c5 else "convolutions_on_p5",
        anchors_sizes=tuple(tuple(size * 2 ** (k / 3) for k in range(3)) for size in (32, 64, 128, 256, 512)),
    )
