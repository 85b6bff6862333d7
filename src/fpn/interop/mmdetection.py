"""open-mmlab/mmdetection 3.x: Faster, Mask and Cascade R-CNN with FPN or PAFPN, or one of these necks alone."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor

from fpn.detectors.toolkits import MMDETECTION
from fpn.features.necks.fpn import FeaturePyramid
from fpn.features.necks.pafpn import PathAggregation
from fpn.interop.assemble import behind_convolutions, build, count_convolutions
from fpn.interop.imported import ImportedWeights, State
from fpn.interop.key_rules import Rules, rename
from fpn.interop.necks_alone import fill_neck, incoming_levels
from fpn.structures import Classes

_MASK_RULES: Rules = tuple(
    (rf"roi_head\.mask_head\.{stage}{theirs}", rf"roi_heads.mask.{place}{ours}")
    # A cascade's heads are numbered.
    for stage, place in (("", ""), (r"(?P<stage>\d+)\.", r"stages.\g<stage>."))
    for theirs, ours in (
        (r"convs\.(?P<k>\d+)\.conv\.(?P<leaf>.+)", r"tower.\g<k>.0.\g<leaf>"),
        (r"convs\.(?P<k>\d+)\.(?:bn|gn)\.(?P<leaf>.+)", r"tower.\g<k>.1.\g<leaf>"),
        (r"upsample\.(?P<leaf>.+)", r"upsample.\g<leaf>"),
        (r"conv_logits\.(?P<leaf>.+)", r"logits.\g<leaf>"),
    )
)
RULES: Rules = (
    (r".*\.num_batches_tracked", None),
    (r"backbone\.(.+)", r"features.backbone.net.\1"),
    (r"(features\.neck\..+)", r"\1"),
    (r"rpn_head\.rpn_conv\.0\.conv\.(.+)", r"rpn.shared.\1"),
    *((rf"rpn_head\.rpn_conv\.{k + 1}\.conv\.(.+)", rf"rpn.further.{k}.\1") for k in range(15)),
    (r"rpn_head\.rpn_conv\.(.+)", r"rpn.shared.\1"),
    (r"rpn_head\.rpn_cls\.(.+)", r"rpn.objectness.\1"),
    (r"rpn_head\.rpn_reg\.(.+)", r"rpn.deltas.\1"),
    *_MASK_RULES,
    # A cascade's heads are numbered.
    (r"roi_head\.bbox_head\.(\d+)\.(.+)", r"box.stages.\1.\2"),
    (r"roi_head\.bbox_head\.(.+)", r"box.\1"),
)
BOX_RULES: Rules = (
    (r"box\.(stages\.\d+\.)?shared_convs\.(\d+)\.conv\.(.+)", r"roi_heads.box.\1trunk.\2.0.\3"),
    (r"box\.(stages\.\d+\.)?shared_convs\.(\d+)\.(?:bn|gn)\.(.+)", r"roi_heads.box.\1trunk.\2.1.\3"),
    (r"box\.(stages\.\d+\.)?shared_fcs\.0\.(.+)", r"roi_heads.box.\1trunk.1.\2"),
    (r"box\.(stages\.\d+\.)?shared_fcs\.1\.(.+)", r"roi_heads.box.\1trunk.3.\2"),
    (r"box\.(stages\.\d+\.)?fc_cls\.(.+)", r"roi_heads.box.\1scores.\2"),
    (r"box\.(stages\.\d+\.)?fc_reg\.(.+)", r"roi_heads.box.\1deltas.\2"),
    (r"(.+)", r"\1"),
)
_NECK = re.compile(r"(?:neck\.)?(lateral_convs|fpn_convs|downsample_convs|pafpn_convs)\.(\d+)\.(conv|bn|gn|ln)\.(.+)")
# The layer that reads pooled RoIs, in one stage or the first of several.
_FIRST_LAYERS = ("roi_heads.box.trunk.1.weight", "roi_heads.box.stages.0.trunk.1.weight")
# What makes the maps that it reads: a convolution of that head, whose names sort last, or else one of the pyramid.
_POOLED = re.compile(r"roi_heads\.box\.(stages\.0\.)?trunk\.\d+\.0\.weight|features\.neck\.smooths\.p\d+\.(0\.)?weight")
# The coarsest level that enters a pyramid, unless told otherwise.
_TOP = 5


def recognises(names: Collection[str]) -> bool:
    """Whether the names are this toolkit's."""
    return any(re.match(r"(neck\.)?lateral_convs\.0\.conv\.", name) for name in names)


def import_weights(
    state: State, *, classes: Classes | Iterable[str] | None = None, **conventions: Any
) -> ImportedWeights:
    """Its weights in our detector, or in a neck where there is no backbone.

    Args:
        state: the `state_dict` of its checkpoint.
        classes: names of the classes; None: "class 1", "class 2", ...
        conventions: fields of the dialect that are not as usual and that no name tells, such as `neck_relu=True`.
    """
    count = 1 + max(int(found[2]) for found in map(_NECK.match, state) if found and found[1] == "lateral_convs")
    finest = conventions.get("neck_finest_level", _TOP + 1 - count)
    named = name_neck(state, finest=finest, count=count, relu=conventions.get("neck_relu", False))
    dialect = MMDETECTION.changed(neck_finest_level=finest)
    if any(name.endswith((".bn.weight", ".gn.weight")) and _NECK.match(name) for name in state):
        group = any(name.endswith(".gn.weight") and _NECK.match(name) for name in state)
        dialect = dialect.changed(neck_norm="group" if group else "batch")
    if any(name.startswith("backbone.") for name in state):
        staged, leftover = rename(named, RULES)
        renamed, _ = rename(staged, BOX_RULES)
        first = next((renamed[name] for name in _FIRST_LAYERS if name in renamed), None)
        if first is not None:
            makers = sorted(name for name in renamed if _POOLED.fullmatch(name))
            dialect = dialect.changed(roi_output_size=round(math.sqrt(first.shape[1] / len(renamed[makers[-1]]))))
        if count_convolutions(renamed) > 0:
            renamed = behind_convolutions(renamed)
        return build(renamed, dialect, leftover, classes=classes, conventions=conventions)
    own = {name.removeprefix("features.neck."): value for name, value in named.items()}
    own = {name: value for name, value in own.items() if not name.endswith("num_batches_tracked")}
    lateral = {finest + k: state[_first(state, k)] for k in range(count)}
    width = len(lateral[finest])
    smooth = next(value for name, value in own.items() if re.match(r"smooths\.p\d+\.(0\.)?weight", name))
    extras = sum(re.match(r"extras\.p\d+\.weight", name) is not None for name in own)
    neck = {"channels": width, "output_channels": len(smooth), "num_extra": extras or dialect.neck.num_extra}
    levels = incoming_levels({number: weight.shape[1] for number, weight in lateral.items()})
    kind = PathAggregation if any(name.startswith("downs.") for name in own) else FeaturePyramid
    return fill_neck(kind, own, levels, dialect.changed(neck=neck), (), conventions)


def name_neck(state: Mapping[str, Tensor], *, finest: int, count: int, relu: bool) -> dict[str, Tensor]:
    """The same weights with our names for those of the neck; it counts from the finest level it reads.

    Args:
        state: its names.
        finest: number of the finest level.
        count: levels that come in; what it has beyond them are extra levels.
        relu: whether activations follow the convolutions, which no name tells.
    """
    normed = {found.group(0).rpartition(f".{found[3]}.")[0] for found in map(_NECK.match, state) if found}
    normed &= {name.rpartition(f".{kind}.")[0] for name in state for kind in ("bn", "gn", "ln") if f".{kind}." in name}
    named: dict[str, Tensor] = {}
    for name, value in state.items():
        found = _NECK.match(name)
        if found is None:
            named[name] = value
            continue
        part, number, kind, leaf = found[1], int(found[2]), found[3], found[4]
        place = _place(part, number, finest, count)
        sequence = name.rpartition(f".{kind}.")[0] in normed or (relu and not place.startswith("extras"))
        step = "" if not sequence else ".0" if kind == "conv" else ".1"
        named[f"features.neck.{place}{step}.{leaf}"] = value
    return named


def _place(part: str, number: int, finest: int, count: int) -> str:
    level = finest + number
    match part:
        case "lateral_convs":
            return f"laterals.c{level}"
        case "fpn_convs":
            return f"smooths.p{level}" if number < count else f"extras.p{level}"
        case "downsample_convs":
            return f"downs.p{level + 1}"
        case "pafpn_convs":
            # Beyond the levels that come in, MMDetection keeps PAFPN's extra levels among `fpn_convs`.
            return f"outputs.p{level + 1}"
    raise AssertionError(part)


def _first(state: Mapping[str, Tensor], number: int) -> str:
    return next(name for name in state if re.match(rf"(neck\.)?lateral_convs\.{number}\.conv\.weight", name))
