"""One-stage detectors from Detectron2, torchvision and MMDetection: names of towers, and what the weights tell."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fpn.detectors.builder import build_one_stage
from fpn.detectors.dense_toolkits import ATSS_DIALECTS, FCOS_DIALECTS, RETINANET_DIALECTS
from fpn.detectors.dialect import ATSSDialect, FCOSDialect, RetinaNetDialect
from fpn.detectors.presets import adapt_dialect
from fpn.detectors.recipe import RECIPES, DenseRecipe
from fpn.errors import ModelFileError
from fpn.interop.class_names import resolve_classes
from fpn.interop.imported import ImportedWeights, State
from fpn.interop.key_rules import Rules, fill_module, rename
from fpn.interop.resnets import resnet_name
from fpn.structures import Classes

_DIALECTS: Mapping[str, Mapping[str, RetinaNetDialect | FCOSDialect | ATSSDialect]] = {
    "retinanet": RETINANET_DIALECTS,
    "fcos": FCOS_DIALECTS,
    "atss": ATSS_DIALECTS,
}
# The outputs as Detectron2, torchvision and MMDetection call them, early MMDetection last.
OUTPUTS: Rules = (
    (r"head\.cls_score\.(.+)", r"head.scores.\1"),
    (r"head\.bbox_pred\.(.+)", r"head.deltas.\1"),
    (r"head\.ctrness\.(.+)", r"head.quality.\1"),
    (r"head\.classification_head\.cls_logits\.(.+)", r"head.scores.\1"),
    (r"head\.regression_head\.bbox_reg\.(.+)", r"head.deltas.\1"),
    (r"head\.regression_head\.bbox_ctrness\.(.+)", r"head.quality.\1"),
    (r"bbox_head\.(?:retina|atss|conv|fcos)_cls\.(.+)", r"head.scores.\1"),
    (r"bbox_head\.(?:retina|atss|conv|fcos)_reg\.(.+)", r"head.deltas.\1"),
    (r"bbox_head\.(?:atss|conv|fcos)_center(?:ness)?\.(.+)", r"head.quality.\1"),
    (r"(head\.scales)", r"\1"),
)
# The same of its towers.
TOWERS = {
    r"head\.cls_subnet": "head.class_tower",
    r"head\.bbox_subnet": "head.box_tower",
    r"head\.classification_head\.conv": "head.class_tower",
    r"head\.regression_head\.conv": "head.box_tower",
}
MMDETECTION_RULES: Rules = (
    (r".*\.num_batches_tracked", None),
    (r"backbone\.(.+)", r"features.backbone.net.\1"),
    *((rf"neck\.lateral_convs\.{i}\.conv\.(.+)", rf"features.neck.laterals.c{3 + i}.\1") for i in range(3)),
    *((rf"neck\.fpn_convs\.{i}\.conv\.(.+)", rf"features.neck.smooths.p{3 + i}.\1") for i in range(3)),
    *((rf"neck\.fpn_convs\.{i}\.conv\.(.+)", rf"features.neck.extras.p{3 + i}.\1") for i in (3, 4)),
    (r"bbox_head\.cls_convs\.(\d+)\.conv\.(.+)", r"head.class_tower.convolutions.\1.\2"),
    (r"bbox_head\.reg_convs\.(\d+)\.conv\.(.+)", r"head.box_tower.convolutions.\1.\2"),
    (r"bbox_head\.cls_convs\.(\d+)\.gn\.(.+)", r"head.class_tower.norms.\1.\2"),
    (r"bbox_head\.reg_convs\.(\d+)\.gn\.(.+)", r"head.box_tower.norms.\1.\2"),
    *OUTPUTS,
)
_DEEPEST = 16


def tower_rules(names: Collection[str]) -> Rules:
    """Rules for towers that are plain sequences: convolution, norm if there is one, activation; or those as blocks."""
    rules: list[tuple[str, str]] = []
    blocks = any(".conv.0.0." in name for name in names)
    normed = any(name.endswith((".cls_subnet.1.weight", ".classification_head.conv.1.weight")) for name in names)
    step = 3 if normed else 2
    for theirs, ours in TOWERS.items():
        for number in range(_DEEPEST):
            first, second = (f"{number}.0", f"{number}.1") if blocks else (f"{step * number}", f"{step * number + 1}")
            rules.append((rf"{theirs}\.{first}\.(weight|bias)", rf"{ours}.convolutions.{number}.\1"))
            rules.append((rf"{theirs}\.{second}\.(weight|bias)", rf"{ours}.norms.{number}.\1"))
    return (*rules, *OUTPUTS)


def has_dense_head(names: Collection[str]) -> bool:
    """Whether the names are of a one-stage detector of Detectron2 or torchvision."""
    return "head.cls_score.weight" in names or "head.classification_head.cls_logits.weight" in names


def recognises(names: Collection[str]) -> bool:
    """Whether the names are of a one-stage detector of MMDetection."""
    return any(name.startswith("bbox_head.cls_convs.0.conv.") for name in names)


def import_weights(
    state: State, *, classes: Classes | Iterable[str] | None = None, **conventions: Any
) -> ImportedWeights:
    """MMDetection's weights in our detector.

    Args:
        state: the `state_dict` of its checkpoint.
        classes: names of the classes; None: "class 1", "class 2", ...
        conventions: fields of the dialect that are not as usual, such as `backbone_stride_on="3x3"` of an FCOS whose
            configuration is not a caffe one.
    """
    kind = "retinanet" if "bbox_head.retina_cls.weight" in state else "fcos"
    kind = "atss" if "bbox_head.atss_cls.weight" in state else kind
    renamed, leftover = rename(_stacked_scales(state), MMDETECTION_RULES)
    return build_dense(renamed, kind, "mmdetection", leftover, classes=classes, conventions=conventions)


def _stacked_scales(state: State) -> dict[str, Tensor]:
    """The factors of the levels as one tensor."""
    numbers = {name: int(name.split(".")[2]) for name in state if name.startswith("bbox_head.scales.")}
    rest = {name: value for name, value in state.items() if name not in numbers}
    if not numbers:
        return rest
    ordered = [state[name].reshape(()) for name in sorted(numbers, key=lambda name: numbers[name])]
    return {**rest, "head.scales": torch.stack(ordered)}


def build_dense(
    state: Mapping[str, Tensor],
    kind: str,
    toolkit: str,
    leftover: tuple[str, ...],
    *,
    classes: Classes | Iterable[str] | None,
    conventions: Mapping[str, Any],
) -> ImportedWeights:
    """A one-stage detector on a ResNet.

    Args:
        state: our names.
        kind: of detector.
        toolkit: whose dialect of that kind.
        leftover: names that found no place.
        classes: names of the classes, or None.
        conventions: single settings of the dialect.
    """
    dialect = _read_dialect(state, _DIALECTS[kind][toolkit])
    per_cell = len(state["head.deltas.weight"]) // 4
    count = len(state["head.scores.weight"]) // per_cell
    named = resolve_classes(classes, count)
    recipe_type = RECIPES[kind]
    recipe = recipe_type(
        kind=kind,
        backbone=resnet_name(state, toolkit=toolkit),
        classes=named.names,
        category_ids=named.ids,
        dialect=adapt_dialect(dialect, **conventions),
    )
    assert isinstance(recipe, DenseRecipe), kind
    detector = build_one_stage(recipe)
    own = {name: value for name, value in detector.state_dict().items() if name == "head.normalizer.mean"}
    fill_module(detector, {**state, **own}, toolkit=toolkit)
    return ImportedWeights(detector.eval(), recipe.dialect, leftover)


def _read_dialect(
    state: Mapping[str, Tensor], dialect: RetinaNetDialect | FCOSDialect | ATSSDialect
) -> RetinaNetDialect | FCOSDialect | ATSSDialect:
    """The dialect with what names and shapes tell."""
    lateral, smooth = (f"features.neck.{part}.weight" for part in ("laterals.c5", "smooths.p5"))
    extra, first = "features.neck.extras.p6.weight", "head.class_tower.convolutions.0"
    missing = [name for name in (lateral, smooth, extra, f"{first}.weight") if name not in state]
    if missing:
        raise ModelFileError(
            f"{dialect.name} weights: nothing for {', '.join(missing)}. This variant is not supported."
        )
    on_c5 = state[extra].shape[1] == state[lateral].shape[1]
    normed = "head.class_tower.norms.0.weight" in state
    dense = {
        "convolutions": sum(name.startswith("head.class_tower.conv") and name.endswith("weight") for name in state),
        "norm": "group" if normed else "none",
        "norm_bias": f"{first}.bias" in state,
    }
    neck = {
        "channels": len(state[lateral]),
        "output_channels": len(state[smooth]),
        "extra_levels": "convolutions_on_c5" if on_c5 else "convolutions_on_p5",
    }
    return dialect.changed(neck=neck, dense=dense)
