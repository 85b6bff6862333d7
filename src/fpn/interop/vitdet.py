"""facebookresearch/detectron2, projects/ViTDet: transformer, simple feature pyramid, heads of the new baselines."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fpn.detectors.toolkits import VITDET
from fpn.errors import ModelFileError
from fpn.features.backbones.windowed_transformer import TRANSFORMER, last_of_quarters
from fpn.features.necks.simple_pyramid import SimplePyramid
from fpn.interop import detectron2
from fpn.interop.assemble import SCALES, behind_convolutions, build, count_convolutions
from fpn.interop.imported import ImportedWeights, State
from fpn.interop.key_rules import Rules, mark_normed, rename
from fpn.interop.necks_alone import fill_neck, incoming_levels
from fpn.structures import Classes

_PYRAMID, _VIT = r"(?:backbone\.)?simfp_(\d)", r"(?:backbone\.)?net"
_OWN = "features.backbone."
_TABLE = f"{_OWN}positions.table"
# Our stages are numbered as its are; a convolution with a norm is a sequence of the two.
RULES: Rules = (
    (_PYRAMID + r"\.(\d+)\.norm\.(.+)", rf"{SCALES}p\1.\2.1.\3"),
    (_PYRAMID + r"\.(\d+)\.normed\.(.+)", rf"{SCALES}p\1.\2.0.\3"),
    (_PYRAMID + r"\.(\d+)\.(.+)", rf"{SCALES}p\1.\2.\3"),
    (_VIT + r"\.pos_embed", _TABLE),
    (_VIT + r"\.patch_embed\.proj\.(.+)", rf"{_OWN}patches.\1"),
    (_VIT + r"\.blocks\.(\d+)\.attn\.rel_pos_h", rf"{_OWN}blocks.\1.attention.rows"),
    (_VIT + r"\.blocks\.(\d+)\.attn\.rel_pos_w", rf"{_OWN}blocks.\1.attention.columns"),
    (_VIT + r"\.blocks\.(\d+)\.attn\.(.+)", rf"{_OWN}blocks.\1.attention.\2"),
    (_VIT + r"\.blocks\.(\d+)\.mlp\.fc1\.(.+)", rf"{_OWN}blocks.\1.mlp.0.\2"),
    (_VIT + r"\.blocks\.(\d+)\.mlp\.fc2\.(.+)", rf"{_OWN}blocks.\1.mlp.2.\2"),
    (_VIT + r"\.blocks\.(\d+)\.(norm\d\..+)", rf"{_OWN}blocks.\1.\2"),
    *detectron2.RULES,
)
# The level of its patches of 16 pixels.
_SOURCE = 4
# Rows of a table for windows of 14 tokens.
_WINDOW_ROWS = 27
# What its configs drop, by the number of blocks; no weight tells it.
_DROP_PATH = {12: 0.1, 24: 0.4, 32: 0.5}
_LVIS = 1203


def recognises(names: Collection[str]) -> bool:
    """Whether the names are this toolkit's."""
    return any(re.match(_PYRAMID, name) for name in names)


def import_weights(
    state: State, *, classes: Classes | Iterable[str] | None = None, **conventions: Any
) -> ImportedWeights:
    """Its weights in our detector, or without heads in the pyramid, or without the transformer in the neck alone.

    Args:
        state: the `model` of its checkpoint.
        classes: names of the classes; None: "class 1", "class 2", ...
        conventions: fields of the dialect that are not as usual, such as `backbone_vit_global_blocks=(2, 5)`.

    Raises:
        ModelFileError: a transformer or a head of another kind.
    """
    _refuse_other_kinds(state)
    vit = {name: value for name, value in state.items() if re.match(_VIT + r"\.", name)}
    others = {name: value for name, value in state.items() if name not in vit}
    renamed, leftover = rename({**mark_normed(others), **vit}, RULES)
    own = renamed[f"{SCALES}p{_SOURCE}.0.0.weight"]  # the 1x1 convolution on the map as it is
    dialect = VITDET.changed(neck={"channels": len(own), "output_channels": len(own)})
    if not any(name.startswith(_OWN) for name in renamed):
        neck = {name.removeprefix("features.neck."): value for name, value in renamed.items()}
        levels = incoming_levels({_SOURCE: own.shape[1]})
        return fill_neck(SimplePyramid, neck, levels, dialect, leftover, conventions)
    sizes, remarks = _read_transformer(renamed)
    if _TABLE in renamed:
        renamed[_TABLE] = _without_class_token(renamed[_TABLE])
    if count_convolutions(renamed) > 0:
        renamed = behind_convolutions(renamed)
    dialect = dialect.changed(backbone_vit=sizes)
    found = build(renamed, dialect, leftover, classes=classes, conventions=conventions, backbone=TRANSFORMER)
    return replace(found, remarks=(*found.remarks, *remarks))


def _refuse_other_kinds(state: State) -> None:
    for name, value in state.items():
        if re.match(_VIT + r"\.blocks\.\d+\.residual\.", name):
            raise ModelFileError(f"ViTDet weights: {name}: blocks with residual convolutions have no place here")
        if re.search(r"box_predictor\.(\d\.)?cls_score\.weight$", name) and len(value) == _LVIS + 1:
            raise ModelFileError(
                f"ViTDet weights of {_LVIS} classes: its configs of LVIS score each class by a sigmoid, and no "
                "box head here does"
            )


def _read_transformer(renamed: State) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Its sizes, as section `backbone.vit` has them, and what of them is a guess."""
    width = len(renamed[f"{_OWN}patches.weight"])
    depth = len({name.split(".")[3] for name in renamed if name.startswith(f"{_OWN}blocks.")})
    vit: dict[str, Any] = {"width": width, "depth": depth, "position_grid": 0}
    vit["drop_path"] = _DROP_PATH.get(depth, 0.1)
    if _TABLE in renamed:
        vit["position_grid"] = math.isqrt(renamed[_TABLE].shape[1])
    tables = {k: renamed.get(f"{_OWN}blocks.{k}.attention.rows") for k in range(depth)}
    known = {k: table for k, table in tables.items() if table is not None}
    if not known:
        vit |= {"relative_positions": False, "heads": max(width // 64, 1)}
        told = f"{vit['heads']} heads, windows of 14 and the last block of each quarter global"
        return vit, (
            f"without relative positions no weight tells heads and windows: {told} are taken (--set backbone.vit.*)",
        )
    vit["heads"] = width // next(iter(known.values())).shape[1]
    return _read_windows(vit, {k: len(table) for k, table in known.items()})


def _read_windows(vit: dict[str, Any], rows: dict[int, int]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Blocks with the smallest tables look at windows, all others at the image."""
    least, most = min(rows.values()), max(rows.values())
    if least < most:
        far = tuple(k for k, count in rows.items() if count > least)
        sides = {"window": (least + 1) // 2, "relative_grid": (most + 1) // 2}
        return vit | sides | {"global_blocks": None if far == last_of_quarters(vit["depth"]) else far}, ()
    windows = least == _WINDOW_ROWS
    side = (least + 1) // 2
    taken = {"relative_grid": side} if windows else {"relative_grid": side, "global_blocks": tuple(rows)}
    told = "the last of each quarter does" if windows else "all do"
    remark = (
        f"relative positions of all blocks are made for {side} tokens, so none tells whether its block looks at the "
        f"whole image: {told} (--set backbone.vit.global_blocks says otherwise)"
    )
    return vit | taken, (remark,)


def _without_class_token(table: Tensor) -> Tensor:
    """Positions as rows and columns; that of a class token comes first, and nobody reads it."""
    count, width = table.shape[1:]
    side = math.isqrt(count)
    if count - side * side not in (0, 1):
        raise ModelFileError(
            f"ViTDet weights: pos_embed has {count} positions, which is no square, with a class token or without"
        )
    return table[0, count - side * side :].reshape(side, side, width)


def with_class_token(table: Tensor) -> Tensor:
    """The inverse: (rows, columns, C) to (1, 1 + rows * columns, C); the first, which nobody reads, is of zeros."""
    places = table.flatten(0, 1)
    return torch.cat([torch.zeros_like(places[:1]), places])[None]
