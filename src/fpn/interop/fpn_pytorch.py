"""jwyang/fpn.pytorch: Faster R-CNN with FPN on ResNets. See `FPN_PYTORCH` for what it does unlike the paper."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from fpn.detectors.toolkits import FPN_PYTORCH
from fpn.interop.assemble import build
from fpn.interop.converted import Converted, State
from fpn.interop.key_rules import Rules, rename
from fpn.structures import Classes

RULES: Rules = (
    (r".*\.num_batches_tracked", None),
    (r"RCNN_roi_feat_ds\..+", None),  # in every checkpoint, used by no one
    (r"RCNN_layer0\.0\.(.+)", r"features.backbone.net.conv1.\1"),
    (r"RCNN_layer0\.1\.(.+)", r"features.backbone.net.bn1.\1"),
    (r"RCNN_layer([1-4])\.0\.(.+)", r"features.backbone.net.layer\1.\2"),
    (r"RCNN_toplayer\.(.+)", r"features.neck.laterals.c5.\1"),
    (r"RCNN_latlayer1\.(.+)", r"features.neck.laterals.c4.\1"),
    (r"RCNN_latlayer2\.(.+)", r"features.neck.laterals.c3.\1"),
    (r"RCNN_latlayer3\.(.+)", r"features.neck.laterals.c2.\1"),
    (r"RCNN_smooth1\.(.+)", r"features.neck.smooths.p4.\1"),
    (r"RCNN_smooth2\.(.+)", r"features.neck.smooths.p3.\1"),
    (r"RCNN_smooth3\.(.+)", r"features.neck.smooths.p2.\1"),
    (r"RCNN_rpn\.RPN_Conv\.(.+)", r"rpn.shared.\1"),
    (r"RCNN_rpn\.RPN_cls_score\.(.+)", r"rpn.objectness.\1"),
    (r"RCNN_rpn\.RPN_bbox_pred\.(.+)", r"rpn.deltas.\1"),
    (r"RCNN_top\.(\d)\.(.+)", r"box.trunk.\1.\2"),
    (r"RCNN_cls_score\.(.+)", r"box.scores.\1"),
    (r"RCNN_bbox_pred\.(.+)", r"box.deltas.\1"),
)


def recognises(names: Collection[str]) -> bool:
    """Whether the names are this toolkit's."""
    return "RCNN_toplayer.weight" in names


def convert(state: State, *, classes: Classes | Iterable[str] | None = None, **conventions: Any) -> Converted:
    """Its weights in our detector.

    Args:
        state: the `model` of its checkpoint.
        classes: names of the foreground classes; None: "class 1", "class 2", ...
        conventions: fields of the dialect that are not as usual: `roi_sampler="pool"` for a net trained with
            POOLING_MODE pool, `top_down="bilinear"` for one trained with torch 0.4 or later.
    """
    renamed, leftover = rename(state, RULES)
    if "box.trunk.0.weight" in renamed:
        conventions = {"roi_output_size": renamed["box.trunk.0.weight"].shape[-1], **conventions}
    return build(renamed, FPN_PYTORCH, leftover, classes=classes, conventions=conventions)
