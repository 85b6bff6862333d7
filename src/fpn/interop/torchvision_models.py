"""torchvision's own detector with the weights of a file, to compare ours with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from fpn.detectors.detector import Detector
from fpn.interop.checkpoint_files import read_checkpoint_file
from fpn.interop.conversion import unwrap_state

# Kind of detector and dialect -> its function in torchvision.models.detection.
_BUILDERS = {
    ("faster_rcnn", "torchvision"): "fasterrcnn_resnet50_fpn",
    ("faster_rcnn", "torchvision_v2"): "fasterrcnn_resnet50_fpn_v2",
    ("mask_rcnn", "torchvision"): "maskrcnn_resnet50_fpn",
    ("mask_rcnn", "torchvision_v2"): "maskrcnn_resnet50_fpn_v2",
    ("keypoint_rcnn", "torchvision"): "keypointrcnn_resnet50_fpn",
}


def build_torchvision(detector: Detector, path: str | os.PathLike[str]) -> nn.Module | None:
    """torchvision's detector of these weights, with the settings of ours; None: torchvision has none such.

    Args:
        detector: ours, made of the same file.
        path: the file.
    """
    from torchvision.models import detection

    recipe = detector.recipe
    builder = _BUILDERS.get((recipe.kind, recipe.dialect.name))
    if builder is None or recipe.backbone != "resnet50":
        return None
    own: Any = recipe.dialect
    theirs: nn.Module = getattr(detection, builder)(
        weights=None,
        weights_backbone=None,
        num_classes=len(detector.classes) + 1,
        min_size=own.pixels.short_side,
        max_size=own.pixels.long_side,
        rpn_pre_nms_top_n_test=own.rpn.before_nms[1],
        rpn_post_nms_top_n_test=own.rpn.after_nms[1],
        rpn_nms_thresh=own.rpn.nms,
        box_score_thresh=own.box.score_limit,
        box_nms_thresh=own.box.nms,
        box_detections_per_img=own.box.limit,
    )
    state = {
        name.removeprefix("module."): value for name, value in unwrap_state(read_checkpoint_file(path).value).items()
    }
    try:
        lacking, beyond = theirs.load_state_dict(_current_names(state), strict=False)
    except RuntimeError:
        return None
    if beyond or any(not name.endswith("num_batches_tracked") for name in lacking):
        return None
    for part in theirs.get_submodule("backbone.body").modules():
        if hasattr(part, "eps"):
            part.eps = own.backbone.norm_epsilon
    return theirs


def _current_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Names from before torchvision 0.13, which lack a step of the pyramid's and the RPN's, as they are now."""
    renamed: dict[str, Any] = {}
    for name, value in state.items():
        stem, _, leaf = name.rpartition(".")
        if stem.startswith("backbone.fpn.") and stem.count(".") == 3:
            stem += ".0"
        renamed[f"{'rpn.head.conv.0.0' if stem == 'rpn.head.conv' else stem}.{leaf}"] = value
    return renamed
