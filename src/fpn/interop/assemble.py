"""From renamed weights to a module: widths are read off the weights, the rest is the dialect's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from fpn.detectors.builder import build_two_stage
from fpn.detectors.cascade_toolkits import CASCADE_DIALECTS
from fpn.detectors.dialect import CascadeDialect, CascadeMaskDialect, MaskDialect, TwoStageDialect
from fpn.detectors.presets import adapt_dialect
from fpn.detectors.recipe import (
    CascadeMaskRCNNRecipe,
    CascadeRCNNRecipe,
    FasterRCNNRecipe,
    KeypointRCNNRecipe,
    MaskRCNNRecipe,
    TwoStageRecipe,
    skeleton_fields,
)
from fpn.detectors.roi_toolkits import with_keypoints, with_masks
from fpn.features.backbones.backbone import make_backbone
from fpn.features.backbones.windowed_transformer import TRANSFORMER
from fpn.features.blocks import Norm
from fpn.features.necks.designs import DESIGNS, FPN
from fpn.interop.class_names import resolve_classes
from fpn.interop.imported import ImportedWeights, State
from fpn.interop.key_rules import fill_module
from fpn.interop.resnets import resnet_name
from fpn.structures import Classes, Skeleton
from fpn.structures.keypoints import COCO_PERSON

_NET = "features.backbone.net."
# Of the neck that makes all levels from one map.
SCALES = "features.neck.scales."
_KEYPOINTS = "roi_heads.keypoint.upsample.weight"
# The MobileNet of torchvision's detectors, as timm calls it.
MOBILENET = "mobilenetv3_large_100"
# A head alone, or the first of a cascade's.
_BOX, _FIRST_STAGE = "roi_heads.box.", "roi_heads.box.stages.0."
_FIRST_LAYER = re.compile(r"(roi_heads\.box\.(?:stages\.\d+\.)?trunk\.)1(\.(?:weight|bias))")
_MASK, _FIRST_MASK = "roi_heads.mask.", "roi_heads.mask.stages.0."


def build(
    state: Mapping[str, Tensor],
    dialect: TwoStageDialect,
    leftover: tuple[str, ...],
    *,
    classes: Classes | Iterable[str] | None = None,
    conventions: Mapping[str, Any],
    backbone: str | None = None,
) -> ImportedWeights:
    """A detector if `state` (our names) holds both of its heads, else the pyramid alone; None: the backbone is told."""
    cascade = f"{_FIRST_STAGE}scores.weight" in state
    if cascade:
        kept = {"backbone": dialect.backbone, "neck": dialect.neck, "roi": dialect.roi}
        dialect = CASCADE_DIALECTS[dialect.name].changed(**kept)
    box = _FIRST_STAGE if cascade else _BOX
    dialect = adapt_dialect(read_widths(state, dialect), **conventions)
    name = backbone or _network_of(state, dialect)
    if f"{box}scores.weight" not in state or "rpn.shared.weight" not in state:
        return _pyramid(name, state, dialect, leftover)
    num_logits, width = state[f"{box}scores.weight"].shape
    if dialect.box.background == "first":
        state = _background_last(state)
    named = resolve_classes(classes, num_logits - 1)
    detector = build_two_stage(_recipe(state, name, named, dialect.changed(box_width=width)))
    fill_module(detector, state, toolkit=dialect.name)
    return ImportedWeights(detector.eval(), dialect, leftover)


def _network_of(state: Mapping[str, Tensor], dialect: TwoStageDialect) -> str:
    return MOBILENET if f"{_NET}conv_stem.weight" in state else resnet_name(state, toolkit=dialect.name)


def _recipe(state: Mapping[str, Tensor], backbone: str, classes: Classes, dialect: TwoStageDialect) -> TwoStageRecipe:
    """Of the kind whose heads there are weights for. As many keypoints as COCO's of a person are taken for those."""
    own: dict[str, Any] = {
        "backbone": backbone,
        "neck": neck_name(state),
        "classes": classes.names,
        "category_ids": classes.ids,
        "dialect": dialect,
    }
    if backbone == TRANSFORMER:
        own["frozen_stages"] = 0  # its configs train all of it
    if isinstance(dialect, CascadeMaskDialect):
        return CascadeMaskRCNNRecipe(**own)
    if isinstance(dialect, CascadeDialect):
        return CascadeRCNNRecipe(**own)
    if isinstance(dialect, MaskDialect):
        return MaskRCNNRecipe(**own)
    if _KEYPOINTS in state:
        count = state[_KEYPOINTS].shape[1]
        known = COCO_PERSON if count == len(COCO_PERSON) else Skeleton(tuple(f"keypoint {k + 1}" for k in range(count)))
        return KeypointRCNNRecipe(**own, **skeleton_fields(known))
    return FasterRCNNRecipe(**own)


def _background_last(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Background from the first of the class scores to the last, and out of the deltas."""
    moved = dict(state)
    for part in ("weight", "bias"):
        moved[f"roi_heads.box.scores.{part}"] = state[f"roi_heads.box.scores.{part}"].roll(-1, dims=0)
        deltas = state[f"roi_heads.box.deltas.{part}"]  # (4 * (K + 1), ...) class by class, or (4, ...)
        moved[f"roi_heads.box.deltas.{part}"] = deltas if len(deltas) == 4 else deltas[4:]
        masks = state.get(f"roi_heads.mask.logits.{part}")  # (K + 1, ...), or (1, ...)
        if masks is not None and len(masks) > 1:
            moved[f"roi_heads.mask.logits.{part}"] = masks[1:]
    return moved


def _pyramid(
    name: str, state: Mapping[str, Tensor], dialect: TwoStageDialect, leftover: tuple[str, ...]
) -> ImportedWeights:
    own = {k.removeprefix("features."): value for k, value in state.items() if k.startswith("features.")}
    heads = tuple(k for k in state if not k.startswith("features."))
    design = DESIGNS[neck_name(state)]
    backbone = make_backbone(name, out=design.reads(dialect.neck.finest_level), config=dialect.backbone)
    return fill_pyramid(design.build(backbone, dialect.neck), own, dialect, (*leftover, *heads))


def fill_pyramid(
    module: nn.Module, state: State, dialect: TwoStageDialect, leftover: tuple[str, ...]
) -> ImportedWeights:
    """The pyramid with its weights inside."""
    fill_module(module, state, toolkit=dialect.name)
    return ImportedWeights(module.eval(), dialect, leftover)


def read_widths(state: Mapping[str, Tensor], dialect: TwoStageDialect) -> TwoStageDialect:
    """The dialect with the widths that the weights have."""
    laterals = sorted(name for name in state if name.startswith("features.neck.laterals.") and name.endswith("weight"))
    smooths = sorted(name for name in state if name.startswith("features.neck.smooths.") and name.endswith("weight"))
    if laterals:
        dialect = dialect.changed(neck_channels=len(state[laterals[0]]))
        dialect = dialect.changed(neck_output_channels=len(state[smooths[0]]) if smooths else dialect.neck.channels)
    if "rpn.shared.weight" in state:
        dialect = dialect.changed(rpn_channels=len(state["rpn.shared.weight"]))
        dialect = dialect.changed(rpn_num_convolutions=1 + _count(state, r"rpn\.further\.\d+\.weight"))
    if count_convolutions(state):
        dialect = _read_trunk(state, dialect)
    if "features.neck.laterals.c5.1.weight" in state:
        dialect = dialect.changed(neck_norm=norm_of(state, "features.neck.laterals.c5.1"))
    for box in (_BOX, _FIRST_STAGE):
        if f"{box}deltas.weight" in state:
            dialect = dialect.changed(box_class_agnostic=len(state[f"{box}deltas.weight"]) == 4)
    for mask in (_MASK, _FIRST_MASK):
        if f"{mask}logits.weight" in state:
            return _read_masks(state, mask, with_masks(dialect))
    if _KEYPOINTS in state:
        width, count = state[_KEYPOINTS].shape[0], _tower(state, "roi_heads.keypoint.")
        return with_keypoints(dialect).changed(keypoint={"channels": width, "convolutions": count})
    return dialect


def _read_masks(state: Mapping[str, Tensor], head: str, dialect: MaskDialect) -> MaskDialect:
    """As the mask head has them whose names begin with `head`."""
    if isinstance(dialect, CascadeDialect):
        dialect = dialect.changed(cascade_mask_heads="one" if head == _MASK else "each_stage")
    logits, first = state[f"{head}logits.weight"], f"{head}tower.0.1"
    box = _FIRST_STAGE if isinstance(dialect, CascadeDialect) else _BOX
    classes = len(state[f"{box}scores.weight"]) - 1
    told = norm_of(state, first, dialect.mask.norm) if f"{first}.weight" in state else "none"
    return dialect.changed(
        mask={
            "channels": logits.shape[1],
            "convolutions": _tower(state, head),
            "norm": "frozen" if dialect.mask.norm == "frozen" else told,
            "class_agnostic": len(logits) == 1 < classes,
        }
    )


def neck_name(state: Mapping[str, Tensor]) -> str:
    """Which of the necks the weights (our names) are of."""
    if any(name.startswith(SCALES) for name in state):
        return "simple_pyramid"
    return "pafpn" if any(name.startswith("features.neck.downs.") for name in state) else FPN


def count_convolutions(state: Mapping[str, Tensor]) -> int:
    """3x3 convolutions of the box head before its fully connected layer."""
    return _count(state, r"roi_heads\.box\.(stages\.0\.)?trunk\.\d+\.0\.weight")


def behind_convolutions(renamed: State) -> dict[str, Tensor]:
    """The first layer of each box head stands behind its convolutions, and behind what flattens their maps."""
    place = rf"\g<1>{count_convolutions(renamed) + 1}\2"
    return {_FIRST_LAYER.sub(place, name): value for name, value in renamed.items()}


def norm_of(state: Mapping[str, Tensor], place: str, usual: str | None = None) -> Norm:
    """Which norm has these weights. Those without statistics have the same names: they count as norms over groups, or
    over a cell's channels where the toolkit has such."""
    if f"{place}.running_mean" in state:
        return "batch"
    return "layer" if usual == "layer" else "group"


def _read_trunk(state: Mapping[str, Tensor], dialect: TwoStageDialect) -> TwoStageDialect:
    first = "roi_heads.box.stages.0.trunk.0"
    if f"{first}.0.weight" not in state:
        first = "roi_heads.box.trunk.0"
    channels = len(state[f"{first}.0.weight"])
    return dialect.changed(
        box={
            "head": "convolutions",
            "num_convolutions": count_convolutions(state),
            "convolution_channels": channels,
            "norm": norm_of(state, f"{first}.1", dialect.box.norm) if f"{first}.1.weight" in state else "none",
        }
    )


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in state)


def _tower(state: Mapping[str, Tensor], head: str) -> int:
    """How many convolutions the head has whose names begin with `head`."""
    return _count(state, rf"{re.escape(head)}tower\.\d+\.0\.weight")
