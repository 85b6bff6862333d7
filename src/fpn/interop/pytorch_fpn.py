"""kuangliu/pytorch-fpn: a bottleneck ResNet and its pyramid, no detector.

Its file calls FPN101() a net of [2, 2, 2, 2] blocks. P5 is not smoothed, and the merges go down unsmoothed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fpn.detectors.toolkits import PYTORCH_FPN
from fpn.interop.assemble import build
from fpn.interop.converted import Converted, State
from fpn.interop.key_rules import Rules, rename

RULES: Rules = (
    (r".*\.num_batches_tracked", None),
    (r"(layer\d\.\d+)\.shortcut\.(.+)", r"features.backbone.net.\1.downsample.\2"),
    (r"((?:conv1|bn1|layer\d\.\d+)\..+)", r"features.backbone.net.\1"),
    (r"toplayer\.(.+)", r"features.neck.laterals.c5.\1"),
    (r"latlayer1\.(.+)", r"features.neck.laterals.c4.\1"),
    (r"latlayer2\.(.+)", r"features.neck.laterals.c3.\1"),
    (r"latlayer3\.(.+)", r"features.neck.laterals.c2.\1"),
    (r"smooth1\.(.+)", r"features.neck.smooths.p4.\1"),
    (r"smooth2\.(.+)", r"features.neck.smooths.p3.\1"),
    (r"smooth3\.(.+)", r"features.neck.smooths.p2.\1"),
)


def recognises(names: Collection[str]) -> bool:
    """Whether the names are this toolkit's."""
    return {"toplayer.weight", "smooth1.weight", "layer1.0.conv1.weight"} <= set(names)


def convert(state: State, **conventions: Any) -> Converted:
    """Its weights in our pyramid; maps are called p2..p5 there as here."""
    renamed, leftover = rename(state, RULES)
    return build(renamed, PYTORCH_FPN, leftover, conventions=conventions)
