"""rwightman/efficientdet-pytorch: the BiFPN. Its backbone and its separable heads are left over."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from fpn.detectors.dialect import TwoStageDialect
from fpn.features.necks.bifpn import BiFPN
from fpn.features.necks.config import NeckConfig
from fpn.heads.anchors import AnchorsConfig
from fpn.interop.imported import ImportedWeights, State
from fpn.interop.necks_alone import fill_neck, incoming_levels
from fpn.preprocessing.config import PixelsConfig

EFFICIENTDET = TwoStageDialect(
    name="efficientdet",
    source="rwightman/efficientdet-pytorch c6dff77: effdet/{efficientdet,anchors}.py, config/fpn_config.py",
    pixels=PixelsConfig(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    neck=NeckConfig(channels=64, output_channels=64, num_extra=2, finest_level=3),
    anchors=AnchorsConfig(
        sizes=tuple(tuple(4 * stride * 2 ** (k / 3) for k in range(3)) for stride in (8, 16, 32, 64, 128)),
        ratios=(1.0, 0.5, 2.0),
        offset=0.5,
        digits=1,
    ),
)
_FINEST = 3
_NODE = re.compile(r"(?:fpn\.)?cell\.(\d+)\.fnode\.(\d+)\.(.+)")
_ENTRY = re.compile(r"(?:fpn\.)?resample\.\d+\.conv\.(conv|bn)\.(.+)")
_BRING = re.compile(r"combine\.resample\.(\d+)\.conv\.(conv|bn)\.(.+)")
# Within our sequence of swish, depthwise and 1x1 convolution, norm.
_AFTER = {"conv_dw": 1, "conv_pw": 2, "bn": 3}


def recognises(names: Collection[str]) -> bool:
    """Whether the names are this toolkit's."""
    return any(re.match(r"(fpn\.)?cell\.0\.fnode\.0\.after_combine\.", name) for name in names)


def import_weights(state: State, **conventions: Any) -> ImportedWeights:
    """Its weights in our neck, which reads c3, c4 and c5.

    Args:
        state: a `state_dict` of the BiFPN, or of a whole EfficientDet.
        conventions: fields of the dialect that are not as usual and that no name tells, such as
            `neck_fusion="softmax"`.
    """
    counted = [name for name in state if not name.endswith("num_batches_tracked")]
    nodes = [found for found in map(_NODE.fullmatch, counted) if found]
    levels = len({int(found[2]) for found in nodes}) // 2 + 1
    named = {name: ours for name in counted if (ours := _ours(name, levels)) is not None}
    own = {ours: state[name] for name, ours in named.items()}
    leftover = tuple(name for name in state if name not in named)
    width = len(own["cells.0.down.0.after.2.weight"])
    widths = _widths(own, levels, width)
    neck = {
        "channels": width,
        "output_channels": width,
        "num_extra": levels - len(widths),
        "repeats": 1 + max(int(found[1]) for found in nodes),
        "fusion": "fast" if "cells.0.down.0.weights" in own else "sum",
    }
    return fill_neck(BiFPN, own, incoming_levels(widths), EFFICIENTDET.changed(neck=neck), leftover, conventions)


def _ours(name: str, levels: int) -> str | None:
    entry, node = _ENTRY.fullmatch(name), _NODE.fullmatch(name)
    if entry:
        return f"entry.{'0' if entry[1] == 'conv' else '1'}.{entry[2]}"
    if node is None:
        return None
    number, rest = int(node[2]), node[3]
    down = number < levels - 1
    place = f"cells.{node[1]}.{f'down.{number}' if down else f'up.{number - levels + 1}'}"
    if rest == "combine.edge_weights":
        return f"{place}.weights"
    bring = _BRING.fullmatch(rest)
    if bring:
        # Only a node's first map, that of its own level, can have another width.
        return f"{place}.brings.0.{'0' if bring[2] == 'conv' else '1'}.{bring[3]}"
    kind, _, leaf = rest.removeprefix("after_combine.conv.").partition(".")
    return f"{place}.after.{_AFTER[kind]}.{leaf}" if kind in _AFTER else None


def _widths(own: Mapping[str, Tensor], levels: int, width: int) -> dict[int, int]:
    """The width of each map that comes in, by its number. Without a convolution of its own it is as wide as all."""
    top = own["entry.0.weight"].shape[1]
    found: dict[int, int] = {}
    for down in range(levels - 2, -1, -1):
        weight = own.get(f"cells.0.down.{down}.brings.0.0.weight")
        number = _FINEST + levels - 2 - down
        found[number] = width if weight is None else weight.shape[1]
        if found[number] == top:
            break
    return found
