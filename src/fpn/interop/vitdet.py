"""facebookresearch/detectron2, projects/ViTDet: the simple feature pyramid. Its transformer is left over."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from fpn.detectors.toolkits import DETECTRON2
from fpn.features.necks.simple_pyramid import SimplePyramid
from fpn.interop.imported import ImportedWeights, State
from fpn.interop.key_rules import Rules, mark_normed, rename
from fpn.interop.necks_alone import fill_neck, incoming_levels

_NAMES = r"(?:backbone\.)?simfp_(\d)"
# Our stages are numbered as its are; a convolution with a norm is a sequence of the two.
RULES: Rules = (
    (_NAMES + r"\.(\d+)\.norm\.(.+)", r"scales.p\1.\2.1.\3"),
    (_NAMES + r"\.(\d+)\.normed\.(.+)", r"scales.p\1.\2.0.\3"),
    (_NAMES + r"\.(\d+)\.(.+)", r"scales.p\1.\2.\3"),
)
# The level of its patches of 16 pixels.
_SOURCE = 4


def recognises(names: Collection[str]) -> bool:
    """Whether the names are this toolkit's."""
    return any(re.match(_NAMES, name) for name in names)


def import_weights(state: State, **conventions: Any) -> ImportedWeights:
    """Its weights in our neck, which reads c4.

    Args:
        state: its `state_dict`, with or without the transformer and the heads.
        conventions: fields of the dialect that are not as usual.
    """
    renamed, leftover = rename(mark_normed(state), RULES)
    own = renamed[f"scales.p{_SOURCE}.0.0.weight"]  # the 1x1 convolution on the map as it is
    neck = {"channels": len(own), "output_channels": len(own)}
    dialect = DETECTRON2.changed(neck=neck)
    return fill_neck(SimplePyramid, renamed, incoming_levels({_SOURCE: own.shape[1]}), dialect, leftover, conventions)
