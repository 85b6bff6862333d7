"""Our ViTDet in Detectron2's names, and the LazyConfig that makes its detector for the weights.

The names are those of `vitdet.RULES`, turned round, so that the two ways can't differ.

Source of the config's names: facebookresearch/detectron2 02b5c4e, configs/common/models/mask_rcnn_vitdet.py and
mask_rcnn_fpn.py, projects/ViTDet/configs/COCO/cascade_mask_rcnn_vitdet_b_100ep.py; modeling/backbone/vit.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from fpn.detectors.dialect import CascadeDialect, KeypointDialect, TwoStageDialect
from fpn.detectors.presets import DIALECTS_OF
from fpn.detectors.recipe import Recipe
from fpn.detectors.toolkits import VITDET
from fpn.features.backbones.plain_transformers import PATCH_PIXELS
from fpn.interop import vitdet
from fpn.interop.assemble import count_convolutions
from fpn.interop.detectron2_export import REASONS, TOLD, unlike_groups
from fpn.interop.export_settings import UnlikeSetting, compare_dialects
from fpn.interop.key_rules import inverted, rename, unmarked

_NORMS = {"none": "", "batch": "BN", "group": "GN", "layer": "LN"}
_TOLD = (*TOLD, *(f"backbone.vit.{name}" for name in type(VITDET.backbone.vit).model_fields), "pixels.size_multiple")
_COUNTER = ".num_batches_tracked"
_TABLE, _ONE_CONVOLUTION = "backbone.net.pos_embed", re.compile(r"(proposal_generator\.rpn_head\.conv\.)conv0\.")


def name_for_vitdet(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Our weights in its names, and those of our names that it has no place for. A class token that it skips has
    a row of zeros among the positions, as its configs expect one."""
    own = {name: value for name, value in state.items() if not name.endswith(_COUNTER)}
    count = count_convolutions(own)
    if count > 0:  # as `behind_convolutions` puts it
        behind = re.compile(rf"(roi_heads\.box\.(?:stages\.\d+\.)?trunk\.){count + 1}\.(weight|bias)")
        own = {behind.sub(r"\g<1>1.\2", name): value for name, value in own.items()}
    marked, left = rename(own, inverted(vitdet.RULES))
    named = dict(zip(unmarked(marked), marked.values(), strict=True))
    if not any(name.startswith("rpn.further.") for name in own):
        named = {_ONE_CONVOLUTION.sub(r"\1", name): value for name, value in named.items()}
    if _TABLE in named:
        named[_TABLE] = vitdet.with_class_token(named[_TABLE])
    return named, list(left)


# --- settings ---------------------------------------------------------------------------------------------------------


def describe_vitdet(recipe: Recipe) -> tuple[str | None, list[UnlikeSetting], list[str]]:
    """The LazyConfig for one of ours, what it can't be told, and which settings differ in training alone.

    None: it has no such kind with this backbone.
    """
    own = recipe.dialect
    if not isinstance(own, TwoStageDialect) or isinstance(own, KeypointDialect):
        return None, [], []
    usual = DIALECTS_OF[recipe.kind][VITDET.name]
    unlike, learning = compare_dialects(own, usual, told=_TOLD, reasons=REASONS)
    unlike = [*_unlike_parts(recipe, own), *unlike_groups(own, own.backbone.vit.width // 2), *unlike]
    return ("" if unlike else _lazy_config(recipe, own)), unlike, learning


def _unlike_parts(recipe: Recipe, own: TwoStageDialect) -> Iterator[UnlikeSetting]:
    side, norm = own.pixels.long_side, own.neck.norm or "layer"
    if recipe.neck != "simple_pyramid":
        yield UnlikeSetting("neck", recipe.neck, "simple_pyramid", "its ViT has this pyramid alone")
    if own.pixels.size_multiple != side:
        why = "SimpleFeaturePyramid pads all images to one square, of pixels.long_side (--set when it is imported)"
        yield UnlikeSetting("pixels.size_multiple", own.pixels.size_multiple, side, why)
    if norm == "none":
        yield UnlikeSetting("neck.norm", norm, "layer", "SimpleFeaturePyramid has no way without norms")
    usual_epsilon = 1e-6 if norm == "layer" else 1e-5
    if own.neck.norm_epsilon not in (None, usual_epsilon):
        yield UnlikeSetting("neck.norm_epsilon", own.neck.norm_epsilon, usual_epsilon, "its norms add that")
    if own.box.head not in ("two_layers", "convolutions"):
        yield UnlikeSetting("box.head", own.box.head, "convolutions", "FastRCNNConvFCHead is made of such layers")
    if own.rpn.min_size is None:
        yield UnlikeSetting("rpn.min_size", None, 0, "boxes of no size are dropped there")
    if isinstance(own, CascadeDialect) and not own.box.class_agnostic:
        yield UnlikeSetting("box.class_agnostic", False, True, "CascadeROIHeads hands one box an RoI to the next stage")


# --- config -----------------------------------------------------------------------------------------------------------

_IMPORTS = """\
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.data import transforms as T
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
"""
_CASCADE_IMPORTS = """\
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNConvFCHead, FastRCNNOutputLayers
"""
_MODEL = """
model = model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model
"""
_WITHOUT = """\
for name in {names}:
    model.roi_heads.pop(name)"""


def _lazy_config(recipe: Recipe, own: TwoStageDialect) -> str:
    """Python for its LazyConfig; all that decides what is found is written, as usual or not."""
    pixels, cascade = own.pixels, isinstance(own, CascadeDialect)
    scale = 255 / pixels.value_range
    parts = [
        _IMPORTS + (_CASCADE_IMPORTS if cascade else "") + _MODEL.rstrip("\n"),
        f"model.pixel_mean = {_scaled(pixels.mean, scale)}",
        f"model.pixel_std = {_scaled(pixels.std, scale)}",
        f"model.input_format = {pixels.channel_order.upper()!r}",
        *_backbone(own),
        *_proposals(own),
        f"model.roi_heads.num_classes = {len(recipe.classes)}",
        _update("model.roi_heads.box_pooler", {"output_size": own.roi.output_size, **_pooling(own)}),
        *(_cascade_heads(own) if isinstance(own, CascadeDialect) else _box_head(own)),
        *_masks(own),
        f"""
# Names of data sets are yours to say: dataloader.train.dataset.names, dataloader.test.dataset.names
dataloader = model_zoo.get_config("common/data/coco.py").dataloader
dataloader.train.mapper.image_format = {pixels.channel_order.upper()!r}
dataloader.test.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length={pixels.short_side}, max_size={pixels.long_side})
]""",
    ]
    return "\n".join(parts)


def _scaled(values: tuple[float, ...] | None, scale: float) -> list[float]:
    assert values is not None, "a detector's recipe says what its backbone was trained on"
    return [value * scale for value in values]


def _update(place: str, values: Mapping[str, Any]) -> str:
    """A call of `update`, one value a line; text that begins with "=" is code."""
    lines = [f"    {name}={_code(value)},\n" for name, value in values.items()]
    return f"{place}.update(\n{''.join(lines)})"


def _code(value: Any) -> str:
    return value[1:] if isinstance(value, str) and value.startswith("=") else repr(value)


def _backbone(own: TwoStageDialect) -> Iterator[str]:
    vit = own.backbone.vit
    near = [block for block in range(vit.depth) if block not in vit.looks_far]
    values = {
        "img_size": PATCH_PIXELS * vit.relative_grid,
        "embed_dim": vit.width,
        "depth": vit.depth,
        "num_heads": vit.heads,
        "drop_path_rate": vit.drop_path,
        "window_size": vit.window,
        "window_block_indexes": near,
        "use_abs_pos": vit.position_grid > 0,
        "use_rel_pos": vit.relative_positions,
        "pretrain_img_size": PATCH_PIXELS * vit.position_grid,
    }
    yield _update("model.backbone.net", values)
    norm = _NORMS[own.neck.norm or "layer"]
    yield _update(
        "model.backbone",
        {"out_channels": own.neck.output_channels, "norm": norm, "square_pad": own.pixels.size_multiple},
    )


def _proposals(own: TwoStageDialect) -> Iterator[str]:
    rpn, anchors = own.rpn, own.anchors
    each = len(anchors.ratios) * len(anchors.sizes[0])
    dims = [rpn.channels or -1] * rpn.num_convolutions
    yield _update(
        "model.proposal_generator.head",
        {"in_channels": own.neck.output_channels, "num_anchors": each, "conv_dims": dims},
    )
    sizes = [list(level) for level in anchors.sizes]
    told = {"sizes": sizes, "aspect_ratios": list(anchors.ratios), "offset": anchors.offset}
    yield _update("model.proposal_generator.anchor_generator", told)
    counts = {"pre_nms_topk": rpn.before_nms, "post_nms_topk": rpn.after_nms}
    yield f"model.proposal_generator.box2box_transform.weights = {list(rpn.weights)}"
    yield _update("model.proposal_generator", {**counts, "nms_thresh": rpn.nms, "min_box_size": rpn.min_size})


def _pooling(own: TwoStageDialect) -> dict[str, Any]:
    kind = "ROIAlignV2" if own.roi.aligned else "ROIAlign"
    return {"sampling_ratio": own.roi.sampling_ratio, "pooler_type": kind}


def _layers(own: TwoStageDialect) -> dict[str, Any]:
    box, side = own.box, own.roi.output_size
    several = box.head == "convolutions"
    return {
        "input_shape": f"=ShapeSpec(channels={own.neck.output_channels}, height={side}, width={side})",
        "conv_dims": [box.convolution_channels] * box.num_convolutions if several else [],
        "fc_dims": [box.width] if several else [box.width] * 2,
        "conv_norm": _NORMS[box.norm] if several else "",
    }


def _predictor(own: TwoStageDialect, weights: str) -> dict[str, Any]:
    box = own.box
    return {
        "input_shape": f"=ShapeSpec(channels={box.width})",
        "box2box_transform": f"=L(Box2BoxTransform)(weights={weights})",
        "cls_agnostic_bbox_reg": box.class_agnostic,
        "test_score_thresh": box.score_limit,
        "test_nms_thresh": box.nms,
        "test_topk_per_image": box.limit,
    }


def _box_head(own: TwoStageDialect) -> Iterator[str]:
    yield _update("model.roi_heads.box_head", _layers(own))
    yield _update("model.roi_heads.box_predictor", _predictor(own, str(tuple(own.box.weights))))


def _cascade_heads(own: CascadeDialect) -> Iterator[str]:
    stages = len(own.cascade.weights)
    yield _WITHOUT.format(names=("box_head", "box_predictor", "proposal_matcher"))
    predictor = {**_predictor(own, "weights"), "num_classes": "${...num_classes}"}
    matcher = "L(Matcher)(thresholds=[iou], labels=[0, 1], allow_low_quality_matches=False)"
    values = {
        "_target_": "=CascadeROIHeads",
        "box_heads": f"=[{_call('FastRCNNConvFCHead', _layers(own))} for _ in range({stages})\n    ]",
        "box_predictors": f"=[{_call('FastRCNNOutputLayers', predictor)} for weights in {own.cascade.weights}\n    ]",
        "proposal_matchers": f"=[\n        {matcher}\n        for iou in {own.cascade.ious}\n    ]",
    }
    yield _update("model.roi_heads", values)


def _call(of: str, values: Mapping[str, Any]) -> str:
    lines = [f"            {name}={_code(value)},\n" for name, value in values.items()]
    return f"\n        L({of})(\n{''.join(lines)}        )\n       "


def _masks(own: TwoStageDialect) -> Iterator[str]:
    mask = getattr(own, "mask", None)
    if mask is None:
        yield _WITHOUT.format(names=("mask_in_features", "mask_pooler", "mask_head"))
        return
    side = mask.roi_size
    yield _update("model.roi_heads.mask_pooler", {"output_size": side, **_pooling(own)})
    values = {
        "input_shape": f"=ShapeSpec(channels={own.neck.output_channels}, height={side}, width={side})",
        "conv_dims": [mask.channels] * (mask.convolutions + 1),
        "conv_norm": _NORMS["batch" if mask.norm == "frozen" else mask.norm],
        "num_classes": 1 if mask.class_agnostic else "${..num_classes}",
    }
    yield _update("model.roi_heads.mask_head", values)
