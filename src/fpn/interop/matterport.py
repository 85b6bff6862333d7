"""matterport/Mask_RCNN: Keras arrays, their axes and channel orders turned into ours."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor

from fpn.detectors.toolkits import MATTERPORT, MATTERPORT_128
from fpn.interop.assemble import build
from fpn.interop.imported import ImportedWeights, State
from fpn.interop.key_rules import Rules, rename
from fpn.structures import Classes

RULES: Rules = (
    (r"conv1/(\w+)", r"features.backbone.net.conv1.\1"),
    (r"bn_conv1/(\w+)", r"features.backbone.net.bn1.\1"),
    (r"res(\d)([a-z])_branch2([abc])/(\w+)", r"block.\1.\2.conv\3.\4"),
    (r"bn(\d)([a-z])_branch2([abc])/(\w+)", r"block.\1.\2.bn\3.\4"),
    (r"res(\d)([a-z])_branch1/(\w+)", r"block.\1.\2.downsample.0.\3"),
    (r"bn(\d)([a-z])_branch1/(\w+)", r"block.\1.\2.downsample.1.\3"),
    (r"fpn_(c\d)p\d/(\w+)", r"features.neck.laterals.\1.\2"),
    (r"fpn_(p\d)/(\w+)", r"features.neck.smooths.\1.\2"),
    (r"rpn_conv_shared/(\w+)", r"rpn.shared.\1"),
    (r"rpn_class_raw/(\w+)", r"rpn.objectness.\1"),
    (r"rpn_bbox_pred/(\w+)", r"rpn.deltas.\1"),
    (r"mrcnn_class_conv1/(\w+)", r"roi_heads.box.trunk.0.\1"),
    (r"mrcnn_class_bn1/(\w+)", r"roi_heads.box.trunk.1.\1"),
    (r"mrcnn_class_conv2/(\w+)", r"roi_heads.box.trunk.3.\1"),
    (r"mrcnn_class_bn2/(\w+)", r"roi_heads.box.trunk.4.\1"),
    (r"mrcnn_class_logits/(\w+)", r"roi_heads.box.scores.\1"),
    (r"mrcnn_bbox_fc/(\w+)", r"roi_heads.box.deltas.\1"),
    *((rf"mrcnn_mask_conv{i + 1}/(\w+)", rf"roi_heads.mask.tower.{i}.0.\1") for i in range(4)),
    *((rf"mrcnn_mask_bn{i + 1}/(\w+)", rf"roi_heads.mask.tower.{i}.1.\1") for i in range(4)),
    (r"mrcnn_mask_deconv/(\w+)", r"roi_heads.mask.upsample.\1"),
    (r"mrcnn_mask/(\w+)", r"roi_heads.mask.logits.\1"),
)
LEAVES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def recognises(names: Collection[str]) -> bool:
    """Whether the names are this toolkit's, with or without layer groups and ":0"."""
    return any(re.search(r"(^|/)fpn_c5p5/kernel(:0)?$", name) for name in names)


def import_weights(
    state: State, *, classes: Classes | Iterable[str] | None = None, **conventions: Any
) -> ImportedWeights:
    """Its weights in our detector, or a graph without heads in our pyramid.

    Args:
        state: Keras weight names, such as "conv1/kernel:0" (groups before them do no harm), to arrays in Keras' axes.
        classes: names of the foreground classes; None: "class 1", "class 2", ...
        conventions: fields of the dialect that are not as usual, such as `box_score_limit=0.5`.
    """
    originals = {_plain(name): name for name in state}
    renamed, leftover = rename({plain: state[name] for plain, name in originals.items()}, RULES)
    ours = {_finish(name): _turn(value) for name, value in renamed.items()}
    _reorder(ours)
    dialect = MATTERPORT
    if len(ours["features.neck.smooths.p2.weight"]) != len(ours["features.neck.laterals.c2.weight"]):
        dialect = MATTERPORT_128
    if "roi_heads.box.trunk.0.weight" in ours:
        conventions = {"roi_output_size": ours["roi_heads.box.trunk.0.weight"].shape[-1], **conventions}
    return build(ours, dialect, tuple(originals[name] for name in leftover), classes=classes, conventions=conventions)


def _plain(name: str) -> str:
    """The layer's own name and its leaf: "rpn_model/rpn_conv_shared/kernel:0" -> "rpn_conv_shared/kernel".

    Keras 3 adds what stands inside of a TimeDistributed: "mrcnn_class_conv1/conv2d_3/kernel".
    """
    *groups, leaf = name.removesuffix(":0").split("/")
    for group in reversed(groups):
        if any(re.fullmatch(pattern, f"{group}/{leaf}") for pattern, _ in RULES):
            return f"{group}/{leaf}"
    return "/".join([*groups[-1:], leaf])


def _finish(name: str) -> str:
    """Keras' leaf and its letters for blocks and branches as our words and numbers."""
    stem, _, leaf = name.rpartition(".")
    found = re.fullmatch(r"block\.(\d)\.([a-z])\.(.+)", stem)
    if found:
        part = re.sub(r"^(conv|bn)([abc])$", lambda m: f"{m[1]}{_number(m[2]) + 1}", found[3])
        stem = f"features.backbone.net.layer{int(found[1]) - 1}.{_number(found[2])}.{part}"
    return f"{stem}.{LEAVES[leaf]}"


def _number(letter: str) -> int:
    return ord(letter) - ord("a")


def _turn(value: Tensor) -> Tensor:
    """Kernels (kh, kw, in, out) -> (out, in, kh, kw); dense ones (in, out) -> (out, in)."""
    return value.permute(3, 2, 0, 1) if value.ndim == 4 else value.T if value.ndim == 2 else value


def _reorder(state: dict[str, Tensor]) -> None:
    """Deltas (dy, dx, dh, dw) -> (dx, dy, dw, dh)."""
    swapped = torch.tensor([1, 0, 3, 2])
    for part in ("weight", "bias"):
        for name in (f"rpn.deltas.{part}", f"roi_heads.box.deltas.{part}"):
            if name in state:
                value = state[name]
                state[name] = value.reshape(-1, 4, *value.shape[1:])[:, swapped].reshape(value.shape)
