"""Our detectors in Detectron2's names, and the config that makes its detector for them.

Source of the keys: facebookresearch/detectron2, config/defaults.py; of the names, `names/d2_*.json` of its own models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fpn.detectors.dialect import CascadeDialect, Dialect, KeypointDialect, RetinaNetDialect, TwoStageDialect
from fpn.detectors.presets import DIALECTS_OF
from fpn.detectors.recipe import KeypointRCNNRecipe, Recipe
from fpn.interop.detectron2 import MOST
from fpn.interop.export_settings import UnlikeSetting, compare_dialects
from fpn.interop.key_rules import Rules, new_name

_RESNET = re.compile(r"(?:resnet|resnext)(50|101|152)(?:_(\d+)x(\d+)d)?")
_NORMS = {"none": "", "batch": "BN", "group": "GN"}
# Ours that its config can be told.
TOLD = (
    "pixels.channel_order", "pixels.value_range", "pixels.mean", "pixels.std", "pixels.short_side",
    "pixels.long_side", "backbone.stride_on", "neck.channels", "neck.output_channels", "neck.norm",
    "neck.norm_epsilon", "neck.norm_on_lateral", "anchors.sizes", "anchors.ratios", "anchors.offset", "rpn.channels",
    "rpn.num_convolutions", "rpn.weights", "rpn.before_nms", "rpn.after_nms", "rpn.nms", "rpn.min_size",
    "roi.output_size", "roi.aligned", "roi.sampling_ratio", "box.head", "box.width", "box.num_convolutions",
    "box.convolution_channels", "box.norm", "box.class_agnostic", "box.weights", "box.score_limit", "box.nms",
    "box.limit", "cascade.weights", "mask.roi_size", "mask.convolutions", "mask.channels", "mask.norm",
    "mask.class_agnostic", "keypoint.roi_size", "keypoint.convolutions", "keypoint.channels", "dense.convolutions",
    "dense.norm", "dense.weights", "dense.score_limit", "dense.before_nms", "dense.nms", "dense.limit",
)  # fmt: skip
REASONS = {
    "pixels.resize": "its ResizeShortestEdge is Pillow's",
    "pixels.size_multiple": "ImageList pads to the pyramid's coarsest stride of 32",
    "backbone.norm_epsilon": "its FrozenBatchNorm2d adds 1e-5",
    "backbone.conv_bias": "its convolutions before norms have no biases",
    "neck.extra_levels": "build_resnet_fpn_backbone and build_retinanet_resnet_fpn_backbone make them so",
    "anchors.rounded": "DefaultAnchorGenerator doesn't round",
    "anchors.ratio": "its aspect ratios are of height to width",
    "anchors.order": "DefaultAnchorGenerator counts the ratios of each size",
    "anchors.strides": "DefaultAnchorGenerator takes the levels' strides",
    "roi.scale": "ROIPooler takes the levels' strides",
    "roi.sampler": "ROIPooler has ROIAlign",
    "roi.level_rule": "assign_boxes_to_levels rounds down",
    "coder.clamp_both": "Box2BoxTransform limits growth alone",
    "coder.legacy_plus_one": "its boxes' sides are x2 - x1",
    "box.nms_frame": "it drops what overlaps before boxes go back into the image",
    "box.suppression": "it has no Soft-NMS",
    "cascade.average": "CascadeROIHeads averages probabilities",
    "keypoint.score": "keypoint_rcnn_inference gives probabilities",
    "rpn.objectness": "StandardRPNHead has one logit an anchor",
    "rpn.scope": "find_top_rpn_proposals counts by level",
}

_NET, _ROI, _RPN = r"features\.backbone\.net\.", "roi_heads", "proposal_generator.rpn_head"
_BLOCKS: Rules = tuple(
    rule
    for stage in range(1, 5)
    for rule in (
        (rf"{_NET}layer{stage}\.(\d+)\.downsample\.0\.(.+)", rf"backbone.bottom_up.res{stage + 1}.\1.shortcut.\2"),
        (rf"{_NET}layer{stage}\.(\d+)\.downsample\.1\.(.+)", rf"backbone.bottom_up.res{stage + 1}.\1.shortcut.norm.\2"),
        (rf"{_NET}layer{stage}\.(\d+)\.bn(\d)\.(.+)", rf"backbone.bottom_up.res{stage + 1}.\1.conv\2.norm.\3"),
        (rf"{_NET}layer{stage}\.(\d+)\.conv(\d)\.(.+)", rf"backbone.bottom_up.res{stage + 1}.\1.conv\2.\3"),
    )
)
_PYRAMID: Rules = (
    (rf"{_NET}conv1\.(.+)", r"backbone.bottom_up.stem.conv1.\1"),
    (rf"{_NET}bn1\.(.+)", r"backbone.bottom_up.stem.conv1.norm.\1"),
    *_BLOCKS,
    (r"features\.neck\.laterals\.c(\d)\.1\.(.+)", r"backbone.fpn_lateral\1.norm.\2"),
    (r"features\.neck\.laterals\.c(\d)\.(?:0\.)?(.+)", r"backbone.fpn_lateral\1.\2"),
    (r"features\.neck\.smooths\.p(\d)\.1\.(.+)", r"backbone.fpn_output\1.norm.\2"),
    (r"features\.neck\.smooths\.p(\d)\.(?:0\.)?(.+)", r"backbone.fpn_output\1.\2"),
    (r"features\.neck\.extras\.(p\d)\.(.+)", r"backbone.top_block.\1.\2"),
)
_HEADS: Rules = (
    (r"rpn\.objectness\.(.+)", rf"{_RPN}.objectness_logits.\1"),
    (r"rpn\.deltas\.(.+)", rf"{_RPN}.anchor_deltas.\1"),
    (r"roi_heads\.box\.stages\.(\d+)\.trunk\.1\.(.+)", rf"{_ROI}.box_head.\1.fc1.\2"),
    (r"roi_heads\.box\.stages\.(\d+)\.trunk\.3\.(.+)", rf"{_ROI}.box_head.\1.fc2.\2"),
    (r"roi_heads\.box\.stages\.(\d+)\.scores\.(.+)", rf"{_ROI}.box_predictor.\1.cls_score.\2"),
    (r"roi_heads\.box\.stages\.(\d+)\.deltas\.(.+)", rf"{_ROI}.box_predictor.\1.bbox_pred.\2"),
    (r"roi_heads\.box\.scores\.(.+)", rf"{_ROI}.box_predictor.cls_score.\1"),
    (r"roi_heads\.box\.deltas\.(.+)", rf"{_ROI}.box_predictor.bbox_pred.\1"),
    *((rf"roi_heads\.mask\.tower\.{k}\.0\.(.+)", rf"{_ROI}.mask_head.mask_fcn{k + 1}.\1") for k in range(MOST)),
    *((rf"roi_heads\.mask\.tower\.{k}\.1\.(.+)", rf"{_ROI}.mask_head.mask_fcn{k + 1}.norm.\1") for k in range(MOST)),
    (r"roi_heads\.mask\.upsample\.(.+)", rf"{_ROI}.mask_head.deconv.\1"),
    (r"roi_heads\.mask\.logits\.(.+)", rf"{_ROI}.mask_head.predictor.\1"),
    *((rf"roi_heads\.keypoint\.tower\.{k}\.0\.(.+)", rf"{_ROI}.keypoint_head.conv_fcn{k + 1}.\1") for k in range(MOST)),
    (r"roi_heads\.keypoint\.upsample\.(.+)", rf"{_ROI}.keypoint_head.score_lowres.\1"),
    (r"head\.scores\.(.+)", r"head.cls_score.\1"),
    (r"head\.deltas\.(.+)", r"head.bbox_pred.\1"),
)
# Counters, which its frozen norms don't have, and the running mean of a loss.
_DROPPED = re.compile(r".*\.num_batches_tracked|head\.normalizer\.mean")


def name_for_detectron2(state: Mapping[str, Tensor], dialect: Dialect) -> tuple[dict[str, Tensor], list[str]]:
    """Our weights in its names, and those of our names that it has no place for."""
    rules = (*_PYRAMID, *_dense_rules(dialect), *_two_stage_rules(dialect), *_HEADS)
    named: dict[str, Tensor] = {}
    left: list[str] = []
    for own, value in state.items():
        theirs = new_name(own, rules)
        if theirs is not None and not _DROPPED.fullmatch(own):
            named[theirs] = value
        elif not _DROPPED.fullmatch(own):
            left.append(own)
    return named, left


def _dense_rules(dialect: Dialect) -> Rules:
    """Its towers are plain sequences: convolution, norm if there is one, activation."""
    step = 3 if isinstance(dialect, RetinaNetDialect) and dialect.dense.norm != "none" else 2
    return tuple(
        rule
        for tower, theirs in (("class_tower", "cls_subnet"), ("box_tower", "bbox_subnet"))
        for k in range(MOST)
        for rule in (
            (rf"head\.{tower}\.convolutions\.{k}\.(.+)", rf"head.{theirs}.{step * k}.\1"),
            (rf"head\.{tower}\.norms\.{k}\.(.+)", rf"head.{theirs}.{step * k + 1}.\1"),
        )
    )


def _two_stage_rules(dialect: Dialect) -> Rules:
    """Where a head's layers stand depends on how many there are."""
    if not isinstance(dialect, TwoStageDialect):
        return ()
    several, count = dialect.rpn.num_convolutions > 1, dialect.box.num_convolutions
    rpn = (
        (r"rpn\.shared\.(.+)", rf"{_RPN}.conv.{'conv0.' if several else ''}\1"),
        *((rf"rpn\.further\.{k}\.(.+)", rf"{_RPN}.conv.conv{k + 1}.\1") for k in range(MOST)),
    )
    if dialect.box.head != "convolutions":
        return (
            *rpn,
            (r"roi_heads\.box\.trunk\.1\.(.+)", rf"{_ROI}.box_head.fc1.\1"),
            (r"roi_heads\.box\.trunk\.3\.(.+)", rf"{_ROI}.box_head.fc2.\1"),
        )
    return (
        *rpn,
        *((rf"roi_heads\.box\.trunk\.{k}\.0\.(.+)", rf"{_ROI}.box_head.conv{k + 1}.\1") for k in range(count)),
        *((rf"roi_heads\.box\.trunk\.{k}\.1\.(.+)", rf"{_ROI}.box_head.conv{k + 1}.norm.\1") for k in range(count)),
        (rf"roi_heads\.box\.trunk\.{count + 1}\.(.+)", rf"{_ROI}.box_head.fc1.\1"),
    )


# --- settings ---------------------------------------------------------------------------------------------------------


def describe_detectron2(recipe: Recipe) -> tuple[dict[str, Any] | None, list[UnlikeSetting], list[str]]:
    """Its config for one of ours, what it can't be told, and which settings differ in training alone.

    None: it has no such kind with a config of this sort.
    """
    usual = DIALECTS_OF.get(recipe.kind, {}).get("detectron2")
    if usual is None or not isinstance(usual, TwoStageDialect | RetinaNetDialect):
        return None, [], []
    own: Any = recipe.dialect
    groups = unlike_groups(own)
    unlike, learning = compare_dialects(own, usual, told=TOLD, reasons=REASONS)
    unlike = [*_unlike_parts(recipe), *groups, *unlike]
    return ({} if unlike else _config(recipe)), unlike, learning


def _unlike_parts(recipe: Recipe) -> list[UnlikeSetting]:
    own: Any = recipe.dialect
    unlike: list[UnlikeSetting] = []

    def need(holds: bool, setting: str, ours: Any, theirs: Any, why: str) -> None:
        if not holds:
            unlike.append(UnlikeSetting(setting, ours, theirs, why))

    bare = recipe.backbone.partition(".")[0]
    need(_RESNET.fullmatch(bare) is not None, "backbone", recipe.backbone, "resnet50", "it builds ResNets and ResNeXts")
    need(recipe.neck == "fpn", "neck", recipe.neck, "fpn", "it has no other pyramid that is built of a config")
    neck = own.neck
    need(
        neck.channels == neck.output_channels,
        "neck.output_channels",
        neck.output_channels,
        neck.channels,
        "FPN.OUT_CHANNELS is of both",
    )
    need((neck.norm or "none") in _NORMS, "neck.norm", neck.norm, "none", "FPN.NORM is BN or GN, or none")
    need(neck.norm_epsilon in (None, 1e-5), "neck.norm_epsilon", neck.norm_epsilon, 1e-5, "its norms add 1e-5")
    need(neck.norm_on_lateral, "neck.norm_on_lateral", False, True, "FPN.NORM is of all convolutions")
    if isinstance(own, TwoStageDialect):
        heads = ("two_layers",) if isinstance(own, CascadeDialect) else ("two_layers", "convolutions")
        need(own.box.head in heads, "box.head", own.box.head, heads[0], "FastRCNNConvFCHead is made of such layers")
        if isinstance(own, CascadeDialect):
            why = "CascadeROIHeads hands one box an RoI to the next stage"
            need(own.box.class_agnostic, "box.class_agnostic", False, True, why)
        need(own.box.norm in _NORMS, "box.norm", own.box.norm, "none", "ROI_BOX_HEAD.NORM is BN or GN, or none")
        least = own.rpn.min_size
        need(least is not None and least % 1 == 0, "rpn.min_size", least, 0, "PROPOSAL_GENERATOR.MIN_SIZE is whole")
        mask = getattr(own, "mask", None)
        normed = mask is None or mask.norm in (*_NORMS, "frozen")
        need(normed, "mask.norm", mask and mask.norm, "none", "ROI_MASK_HEAD.NORM is BN or GN, or none")
    return unlike


def unlike_groups(own: TwoStageDialect | RetinaNetDialect, *more: int) -> list[UnlikeSetting]:
    """Widths of group norms that its own, of 32 groups, can't have; `more`: other widths of the pyramid's."""
    mask = getattr(own, "mask", None)
    norms = [("neck", own.neck.norm, (own.neck.output_channels, *more))]
    if isinstance(own, TwoStageDialect) and own.box.head == "convolutions":
        norms.append(("box", own.box.norm, (own.box.convolution_channels,)))
    if mask is not None:
        norms.append(("mask", mask.norm, (mask.channels,)))
    return [
        UnlikeSetting(f"{section}.norm", f"group of {width} channels", "of 32 groups", "they can't be shared out")
        for section, norm, widths in norms
        for width in widths
        if norm == "group" and width % 32
    ]


def _config(recipe: Recipe) -> dict[str, Any]:
    own: Any = recipe.dialect
    found = _RESNET.fullmatch(recipe.backbone.partition(".")[0])
    assert found is not None, "else it is unlike"
    dense = isinstance(own, RetinaNetDialect)
    finest = own.neck.finest_level
    pixels = own.pixels
    scale = 255 / pixels.value_range
    model: dict[str, Any] = {
        "META_ARCHITECTURE": "RetinaNet" if dense else "GeneralizedRCNN",
        "PIXEL_MEAN": [value * scale for value in pixels.mean],
        "PIXEL_STD": [value * scale for value in pixels.std],
        "BACKBONE": {
            "NAME": "build_retinanet_resnet_fpn_backbone" if dense else "build_resnet_fpn_backbone",
            "FREEZE_AT": recipe.frozen_stages,
        },
        "RESNETS": {
            "DEPTH": int(found[1]),
            "NUM_GROUPS": int(found[2] or 1),
            "WIDTH_PER_GROUP": int(found[3] or 64),
            "STRIDE_IN_1X1": own.backbone.stride_on == "1x1",
            "NORM": "FrozenBN" if recipe.frozen_norm else "BN",
            "OUT_FEATURES": [f"res{number}" for number in range(finest, 6)],
        },
        "FPN": {
            "IN_FEATURES": [f"res{number}" for number in range(finest, 6)],
            "OUT_CHANNELS": own.neck.channels,
            "NORM": _NORMS[own.neck.norm or "none"],
        },
        "ANCHOR_GENERATOR": {
            "SIZES": [list(sizes) for sizes in own.anchors.sizes],
            "ASPECT_RATIOS": [list(own.anchors.ratios)],
            "OFFSET": own.anchors.offset,
        },
    }
    model |= _dense_config(recipe, own) if dense else _two_stage_config(recipe, own)
    return {
        "VERSION": 2,
        "MODEL": model,
        "INPUT": {
            "FORMAT": pixels.channel_order.upper(),
            "MIN_SIZE_TEST": pixels.short_side,
            "MAX_SIZE_TEST": pixels.long_side or 2**31 - 1,
        },
        "TEST": {"DETECTIONS_PER_IMAGE": own.max_detections},
    }


def _dense_config(recipe: Recipe, own: RetinaNetDialect) -> dict[str, Any]:
    return {
        "RETINANET": {
            "NUM_CLASSES": len(recipe.classes),
            "IN_FEATURES": [f"p{number}" for number in range(3, 3 + len(own.anchors.sizes))],
            "NUM_CONVS": own.dense.convolutions,
            "NORM": _NORMS[own.dense.norm],
            "SCORE_THRESH_TEST": own.dense.score_limit,
            "TOPK_CANDIDATES_TEST": own.dense.before_nms,
            "NMS_THRESH_TEST": own.dense.nms,
            "BBOX_REG_WEIGHTS": list(own.dense.weights),
        }
    }


def _two_stage_config(recipe: Recipe, own: TwoStageDialect) -> dict[str, Any]:
    rpn, levels = own.rpn, [f"p{number}" for number in range(own.neck.finest_level, 6)]
    pooler = {
        "POOLER_SAMPLING_RATIO": own.roi.sampling_ratio,
        "POOLER_TYPE": "ROIAlignV2" if own.roi.aligned else "ROIAlign",
    }
    cascade = isinstance(own, CascadeDialect)
    made: dict[str, Any] = {
        "PROPOSAL_GENERATOR": {"MIN_SIZE": int(rpn.min_size or 0)},  # its config takes no other type than its own
        "RPN": {
            "IN_FEATURES": [*levels, *(f"p{number}" for number in range(6, 6 + own.neck.extra_count))],
            "CONV_DIMS": [rpn.channels or -1] * rpn.num_convolutions,
            "BBOX_REG_WEIGHTS": list(rpn.weights),
            "PRE_NMS_TOPK_TRAIN": rpn.before_nms[0],
            "PRE_NMS_TOPK_TEST": rpn.before_nms[1],
            "POST_NMS_TOPK_TRAIN": rpn.after_nms[0],
            "POST_NMS_TOPK_TEST": rpn.after_nms[1],
            "NMS_THRESH": rpn.nms,
        },
        "ROI_HEADS": {
            "NAME": "CascadeROIHeads" if cascade else "StandardROIHeads",
            "IN_FEATURES": levels,
            "NUM_CLASSES": len(recipe.classes),
            "SCORE_THRESH_TEST": own.box.score_limit,
            "NMS_THRESH_TEST": own.box.nms,
        },
        "ROI_BOX_HEAD": {**_box_config(own), **pooler},
    }
    if isinstance(own, CascadeDialect):
        weights = [list(each) for each in own.cascade.weights]
        made["ROI_BOX_CASCADE_HEAD"] = {"BBOX_REG_WEIGHTS": weights, "IOUS": list(own.cascade.ious)}
    return made | _task_config(recipe, own, pooler)


def _box_config(own: TwoStageDialect) -> dict[str, Any]:
    several = own.box.head == "convolutions"
    return {
        "NAME": "FastRCNNConvFCHead",
        "NUM_FC": 1 if several else 2,
        "FC_DIM": own.box.width,
        "NUM_CONV": own.box.num_convolutions if several else 0,
        "CONV_DIM": own.box.convolution_channels,
        "NORM": _NORMS[own.box.norm] if several else "",
        "POOLER_RESOLUTION": own.roi.output_size,
        "CLS_AGNOSTIC_BBOX_REG": own.box.class_agnostic,
        "BBOX_REG_WEIGHTS": list(own.box.weights),
    }


def _task_config(recipe: Recipe, own: TwoStageDialect, pooler: Mapping[str, Any]) -> dict[str, Any]:
    mask = getattr(own, "mask", None)
    if mask is not None:
        head = {
            "NAME": "MaskRCNNConvUpsampleHead",
            "NUM_CONV": mask.convolutions,
            "CONV_DIM": mask.channels,
            "NORM": "BN" if mask.norm == "frozen" else _NORMS[mask.norm],
            "CLS_AGNOSTIC_MASK": mask.class_agnostic,
            "POOLER_RESOLUTION": mask.roi_size,
        }
        return {"MASK_ON": True, "ROI_MASK_HEAD": {**head, **pooler}}
    if isinstance(own, KeypointDialect) and isinstance(recipe, KeypointRCNNRecipe):
        head = {
            "NUM_KEYPOINTS": len(recipe.keypoints),
            "CONV_DIMS": [own.keypoint.channels] * own.keypoint.convolutions,
            "POOLER_RESOLUTION": own.keypoint.roi_size,
        }
        return {"KEYPOINT_ON": True, "ROI_KEYPOINT_HEAD": {**head, **pooler}}
    return {}
