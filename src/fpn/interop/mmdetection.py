"""open-mmlab/mmdetection: Faster and Mask R-CNN on bottleneck ResNets."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

from fpn.detectors.toolkits import MMDETECTION
from fpn.interop.assemble import build
from fpn.interop.imported import ImportedWeights, State
from fpn.interop.key_rules import Rules, rename
from fpn.structures import Classes

# Levels are counted from the finest one that is used, c2.
LEVELS = (2, 3, 4, 5)
RULES: Rules = (
    (r".*\.num_batches_tracked", None),
    (r"backbone\.(.+)", r"features.backbone.net.\1"),
    *((rf"neck\.lateral_convs\.{i}\.conv\.(.+)", rf"features.neck.laterals.c{k}.\1") for i, k in enumerate(LEVELS)),
    *((rf"neck\.fpn_convs\.{i}\.conv\.(.+)", rf"features.neck.smooths.p{k}.\1") for i, k in enumerate(LEVELS)),
    (r"rpn_head\.rpn_conv\.(.+)", r"rpn.shared.\1"),
    (r"rpn_head\.rpn_cls\.(.+)", r"rpn.objectness.\1"),
    (r"rpn_head\.rpn_reg\.(.+)", r"rpn.deltas.\1"),
    (r"roi_head\.bbox_head\.shared_fcs\.0\.(.+)", r"roi_heads.box.trunk.1.\1"),
    (r"roi_head\.bbox_head\.shared_fcs\.1\.(.+)", r"roi_heads.box.trunk.3.\1"),
    (r"roi_head\.bbox_head\.fc_cls\.(.+)", r"roi_heads.box.scores.\1"),
    (r"roi_head\.bbox_head\.fc_reg\.(.+)", r"roi_heads.box.deltas.\1"),
    (r"roi_head\.mask_head\.convs\.(\d+)\.conv\.(.+)", r"roi_heads.mask.tower.\1.0.\2"),
    (r"roi_head\.mask_head\.upsample\.(.+)", r"roi_heads.mask.upsample.\1"),
    (r"roi_head\.mask_head\.conv_logits\.(.+)", r"roi_heads.mask.logits.\1"),
)


def recognises(names: Collection[str]) -> bool:
    """Whether the names are this toolkit's."""
    return "neck.lateral_convs.0.conv.weight" in names and "roi_head.bbox_head.fc_cls.weight" in names


def import_weights(
    state: State, *, classes: Classes | Iterable[str] | None = None, **conventions: Any
) -> ImportedWeights:
    """Its weights in our detector.

    Args:
        state: the `state_dict` of its checkpoint.
        classes: names of the classes; None: "class 1", "class 2", ...
        conventions: fields of the dialect that are not as usual: `backbone_stride_on="1x1"` and the pixels' own for
            weights of a "caffe" configuration.
    """
    renamed, leftover = rename(state, RULES)
    dialect = MMDETECTION
    if "roi_heads.box.trunk.1.weight" in renamed:
        cells = renamed["roi_heads.box.trunk.1.weight"].shape[1] / len(renamed["features.neck.smooths.p2.weight"])
        dialect = dialect.changed(roi_output_size=round(math.sqrt(cells)))
    return build(renamed, dialect, leftover, classes=classes, conventions=conventions)
