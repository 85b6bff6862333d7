"""torchvision's own detector with the settings of one of ours: to compare with it, and to tell how to make it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from fpn.detectors.detector import Detector
from fpn.detectors.dialect import AnchorDialect, Dialect, RetinaNetDialect, TwoStageDialect
from fpn.detectors.presets import DIALECTS_OF
from fpn.detectors.recipe import FasterRCNNRecipe, KeypointRCNNRecipe, Recipe
from fpn.interop.assemble import MOBILENET
from fpn.interop.checkpoint_files import read_checkpoint_file
from fpn.interop.conversion import plain_names, unwrap_state
from fpn.interop.export_settings import UnlikeSetting, compare_dialects

BACKBONE = "resnet50"
# Kind of detector and dialect -> its function in torchvision.models.detection.
_FUNCTIONS = {
    ("faster_rcnn", "torchvision"): "fasterrcnn_resnet50_fpn",
    ("faster_rcnn", "torchvision_v2"): "fasterrcnn_resnet50_fpn_v2",
    ("mask_rcnn", "torchvision"): "maskrcnn_resnet50_fpn",
    ("mask_rcnn", "torchvision_v2"): "maskrcnn_resnet50_fpn_v2",
    ("keypoint_rcnn", "torchvision"): "keypointrcnn_resnet50_fpn",
    ("retinanet", "torchvision"): "retinanet_resnet50_fpn",
    ("retinanet", "torchvision_v2"): "retinanet_resnet50_fpn_v2",
    ("fcos", "torchvision"): "fcos_resnet50_fpn",
}
# Ours -> the argument of those functions that says the same.
_ARGUMENTS = {
    "pixels.short_side": "min_size",
    "pixels.long_side": "max_size",
    "pixels.size_multiple": "size_divisible",
    "rpn.nms": "rpn_nms_thresh",
    "box.weights": "bbox_reg_weights",
    "box.score_limit": "box_score_thresh",
    "box.nms": "box_nms_thresh",
    "box.limit": "box_detections_per_img",
    "dense.score_limit": "score_thresh",
    "dense.nms": "nms_thresh",
    "dense.before_nms": "topk_candidates",
    "dense.limit": "detections_per_img",
}
# What is told in other ways: by several arguments, or after the call.
_TOLD = (
    "pixels.value_range", "pixels.mean", "pixels.std", "backbone.norm_epsilon", "anchors.sizes", "anchors.ratios",
    "rpn.before_nms", "rpn.after_nms",
)  # fmt: skip
_REASONS = {
    "pixels.channel_order": "its models take RGB",
    "pixels.resize": "its transform resizes numbers, without antialiasing",
    "neck.channels": "resnet_fpn_backbone makes 256",
    "neck.output_channels": "resnet_fpn_backbone makes 256",
    "neck.norm": "the models with _v2 in their name have batch norms, the others none",
    "anchors.rounded": "AnchorGenerator rounds corners",
    "anchors.strides": "AnchorGenerator divides the image's size by the map's",
    "anchors.ratios": "the heads of its _v2 are made for as many anchors a cell as usual",
    "anchors.sizes": "the heads of its _v2 are made for as many anchors a cell as usual",
    "roi.aligned": "MultiScaleRoIAlign doesn't shift by half a cell",
    "roi.sampler": "it pools by MultiScaleRoIAlign",
    "roi.scale": "MultiScaleRoIAlign measures scales",
    "box.suppression": "it has no Soft-NMS",
    "box.class_agnostic": "its heads have a box for each class",
    "mask.class_agnostic": "its heads have a mask for each class",
    "keypoint.score": "its third number of a keypoint is the logit",
    "pixels.long_side": "max_size is a number",
}


@dataclass(frozen=True)
class TorchvisionModel:
    """How to make torchvision's detector.

    Attributes:
        function: of torchvision.models.detection.
        arguments: of its call, beside `weights=None` and `weights_backbone=None`.
        anchors: (sizes, ratios) of a level each, where they are not as usual; None: they are.
        anchors_argument: by which they are told in the call; None: they are set afterwards.
        anchors_owner: what they are set on then.
        epsilon: of the backbone's norms where it is not as usual; None: it is.
        first_label: of the labels it gives; there may be a background below.
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    anchors: tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]] | None = None
    anchors_argument: str | None = None
    anchors_owner: str = "rpn"
    epsilon: float | None = None
    first_label: int = 1

    def build(self) -> nn.Module:
        """The detector, with random weights."""
        from torchvision.models import detection

        arguments = dict(self.arguments)
        if self.anchors is not None and self.anchors_argument is not None:
            arguments[self.anchors_argument] = self._generator()
        made: nn.Module = getattr(detection, self.function)(weights=None, weights_backbone=None, **arguments)
        if self.anchors is not None and self.anchors_argument is None:
            owner = made if self.anchors_owner == "model" else made.get_submodule(self.anchors_owner)
            owner.anchor_generator = self._generator()
        if self.epsilon is not None:
            for part in made.get_submodule("backbone.body").modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.eps = self.epsilon
        return made

    def _generator(self) -> nn.Module:
        from torchvision.models.detection.anchor_utils import AnchorGenerator

        assert self.anchors is not None, "asked for only then"
        generator: nn.Module = AnchorGenerator(*self.anchors)
        return generator

    def code(self) -> str:
        """Python that makes the same one as `model`."""
        lines = ["from torchvision.models import detection"]
        told = {"weights": None, "weights_backbone": None, **self.arguments}
        words = [f"    {name}={value!r}," for name, value in told.items()]
        after: list[str] = []
        if self.anchors is not None:
            lines.append("from torchvision.models.detection.anchor_utils import AnchorGenerator")
            indent = "" if self.anchors_argument is None else "    "
            rows = "".join(f"\n{indent}    {each!r}," for each in self.anchors)
            made = f"AnchorGenerator({rows}\n{indent})"
            if self.anchors_argument is None:
                owner = "model" if self.anchors_owner == "model" else f"model.{self.anchors_owner}"
                after.append(f"{owner}.anchor_generator = {made}")
            else:
                words.append(f"    {self.anchors_argument}={made},")
        if self.epsilon is not None:
            after += [
                "for part in model.backbone.body.modules():",
                '    if hasattr(part, "eps"):',
                f"        part.eps = {self.epsilon!r}",
            ]
        return "\n".join([*lines, "", f"model = detection.{self.function}(", *words, ")", *after])


def describe_torchvision(recipe: Recipe) -> tuple[TorchvisionModel | None, list[UnlikeSetting], list[str]]:
    """torchvision's detector for one of ours, what it can't be told, and which settings differ in training alone.

    Of a first and a second version, the one that is nearer; None: torchvision has no such kind.
    """
    found: list[tuple[TorchvisionModel, list[UnlikeSetting], list[str]]] = []
    for (kind, dialect), function in _FUNCTIONS.items():
        if kind == recipe.kind:
            usual = _usual(kind, dialect)
            unlike, learning = compare_dialects(recipe.dialect, usual, told=(*_ARGUMENTS, *_TOLD), reasons=_REASONS)
            model, more = _describe(function, recipe, usual)
            found.append((model, [*_unlike_parts(recipe), *unlike, *more], learning))
    return min(found, key=lambda each: len(each[1]), default=(None, [], []))


def _usual(kind: str, dialect: str) -> Dialect:
    usual = DIALECTS_OF[kind][dialect]
    second = dialect == "torchvision_v2" and kind == "mask_rcnn"
    return usual.changed(mask={"norm": "batch"}) if second else usual


def _unlike_parts(recipe: Recipe) -> list[UnlikeSetting]:
    parts = [("backbone", recipe.backbone.partition(".")[0], BACKBONE), ("neck", recipe.neck, "fpn")]
    why = "its functions for detectors with a pyramid make these"
    unlike = [UnlikeSetting(name, ours, theirs, why) for name, ours, theirs in parts if ours != theirs]
    if recipe.dialect.pixels.long_side is None:
        unlike.append(UnlikeSetting("pixels.long_side", None, 1333, _REASONS["pixels.long_side"]))
    return unlike


def _describe(function: str, recipe: Recipe, usual: Dialect) -> tuple[TorchvisionModel, list[UnlikeSetting]]:
    own: Any = recipe.dialect
    pair: Any = usual
    dense = not isinstance(own, TwoStageDialect)
    arguments: dict[str, Any] = {"num_classes": len(recipe.classes) + (0 if dense else 1)}
    if isinstance(recipe, KeypointRCNNRecipe):
        arguments["num_keypoints"] = len(recipe.keypoints)
    for path, argument in _ARGUMENTS.items():
        section, _, name = path.partition(".")
        value = getattr(getattr(own, section, None), name, None)
        if value is not None and value != getattr(getattr(pair, section), name):
            arguments[argument] = value
    arguments |= _pixels(own, pair)
    if isinstance(own, TwoStageDialect):
        arguments |= _proposals(own, pair)
    epsilon = own.backbone.norm_epsilon
    anchors, unlike = _anchors(function, own, pair)
    return TorchvisionModel(
        function=function,
        arguments=arguments,
        epsilon=None if epsilon == usual.backbone.norm_epsilon else epsilon,
        first_label=0 if dense else 1,
        **anchors,
    ), unlike


def _pixels(own: Dialect, usual: Dialect) -> dict[str, Any]:
    """torchvision's images are from 0 to 1."""
    scale = own.pixels.value_range
    made: dict[str, Any] = {}
    for argument, ours, theirs in (
        ("image_mean", own.pixels.mean, usual.pixels.mean),
        ("image_std", own.pixels.std, usual.pixels.std),
    ):
        assert ours is not None, "a detector's recipe has them"
        scaled = tuple(value / scale for value in ours)
        if scaled != theirs:
            made[argument] = scaled
    return made


def _proposals(own: TwoStageDialect, usual: TwoStageDialect) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, argument in (("before_nms", "rpn_pre_nms_top_n"), ("after_nms", "rpn_post_nms_top_n")):
        ours, theirs = getattr(own.rpn, name), getattr(usual.rpn, name)
        for place, when in enumerate(("train", "test")):
            if ours[place] != theirs[place]:
                made[f"{argument}_{when}"] = ours[place]
    return made


def _anchors(function: str, own: Dialect, usual: Dialect) -> tuple[dict[str, Any], list[UnlikeSetting]]:
    if not isinstance(own, AnchorDialect) or not isinstance(usual, AnchorDialect):
        return {}, []
    ours, theirs = own.anchors, usual.anchors
    if (ours.sizes, ours.ratios) == (theirs.sizes, theirs.ratios):
        return {}, []
    second = function.endswith("_v2")
    counts = {len(sizes) * len(ours.ratios) for sizes in ours.sizes}
    unlike: list[UnlikeSetting] = []
    if len(ours.sizes) != len(theirs.sizes) or len(counts) != 1 or (second and counts != {_per_cell(theirs)}):
        unlike = [UnlikeSetting("anchors.sizes", ours.sizes, theirs.sizes, _REASONS["anchors.sizes"])]
    dense = isinstance(own, RetinaNetDialect)
    made = {
        "anchors": (ours.sizes, (ours.ratios,) * len(ours.sizes)),
        "anchors_argument": None if second else "anchor_generator" if dense else "rpn_anchor_generator",
        "anchors_owner": "model" if dense else "rpn",
    }
    return made, unlike


def _per_cell(anchors: Any) -> int:
    return len(anchors.sizes[0]) * len(anchors.ratios)


def build_torchvision(detector: Detector, path: str | os.PathLike[str]) -> tuple[nn.Module, int] | None:
    """torchvision's detector of a file's weights with the settings of ours, and its first label; None: it has none.

    Args:
        detector: ours, made of the same file.
        path: the file.
    """
    model = _model_of(detector.recipe)
    if model is None:
        return None
    theirs = model.build()
    state = plain_names(unwrap_state(read_checkpoint_file(path).value))
    try:
        lacking, beyond = theirs.load_state_dict(_current_names(state), strict=False)
    except RuntimeError:
        return None
    if beyond or any(not name.endswith("num_batches_tracked") for name in lacking):
        return None
    return theirs, model.first_label


def _model_of(recipe: Recipe) -> TorchvisionModel | None:
    if isinstance(recipe, FasterRCNNRecipe) and recipe.backbone == MOBILENET:
        return _mobilenet(recipe)
    model, unlike, _ = describe_torchvision(recipe)
    return None if unlike else model


def _mobilenet(recipe: FasterRCNNRecipe) -> TorchvisionModel:
    own = recipe.dialect
    arguments = {
        "num_classes": len(recipe.classes) + 1,
        "min_size": own.pixels.short_side,
        "max_size": own.pixels.long_side,
        "rpn_pre_nms_top_n_test": own.rpn.before_nms[1],
        "rpn_post_nms_top_n_test": own.rpn.after_nms[1],
        "rpn_nms_thresh": own.rpn.nms,
        "rpn_score_thresh": own.rpn.min_score,
        "box_score_thresh": own.box.score_limit,
        "box_nms_thresh": own.box.nms,
        "box_detections_per_img": own.box.limit,
    }
    return TorchvisionModel(
        function="fasterrcnn_mobilenet_v3_large_fpn", arguments=arguments, epsilon=own.backbone.norm_epsilon
    )


def _current_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Names from before torchvision 0.13, which lack a step of the pyramid's and the RPN's, as they are now."""
    renamed: dict[str, Any] = {}
    for name, value in state.items():
        stem, _, leaf = name.rpartition(".")
        if stem.startswith("backbone.fpn.") and stem.count(".") == 3 and ".extra_blocks." not in stem:
            stem += ".0"
        renamed[f"{'rpn.head.conv.0.0' if stem == 'rpn.head.conv' else stem}.{leaf}"] = value
    return renamed
