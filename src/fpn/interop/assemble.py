"""From renamed weights to a module: widths are read off the weights, the rest is the dialect's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from fpn.detectors.builder import build_faster_rcnn, build_pyramid
from fpn.detectors.dialect import TwoStageDialect
from fpn.detectors.presets import adapt_dialect
from fpn.detectors.recipe import FasterRCNNRecipe
from fpn.features.backbones.backbone import Backbone
from fpn.interop.imported import ImportedWeights, State
from fpn.interop.key_rules import fill_module
from fpn.interop.resnets import resnet_name
from fpn.structures import Classes


def build(
    state: Mapping[str, Tensor],
    dialect: TwoStageDialect,
    leftover: tuple[str, ...],
    *,
    classes: Classes | Iterable[str] | None = None,
    conventions: Mapping[str, Any],
) -> ImportedWeights:
    """A detector if `state` (our names) holds both of its heads, else the pyramid alone; on a ResNet."""
    dialect = adapt_dialect(read_widths(state, dialect), **conventions)
    name = resnet_name(state, toolkit=dialect.name)
    if "roi_heads.box.scores.weight" not in state or "rpn.shared.weight" not in state:
        return _pyramid(name, state, dialect, leftover)
    width, num_logits = state["roi_heads.box.scores.weight"].shape[1], state["roi_heads.box.scores.weight"].shape[0]
    if dialect.box.background == "first":
        state = _background_last(state)
    named = Classes.of(classes if classes is not None else [f"class {k}" for k in range(1, num_logits)])
    recipe = FasterRCNNRecipe(
        backbone=name, classes=named.names, category_ids=named.ids, dialect=dialect.changed(box_width=width)
    )
    detector = build_faster_rcnn(recipe)
    fill_module(detector, state, toolkit=dialect.name)
    return ImportedWeights(detector.eval(), dialect, leftover)


def _background_last(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Background from the first of the class scores to the last, and out of the deltas."""
    moved = dict(state)
    for part in ("weight", "bias"):
        moved[f"roi_heads.box.scores.{part}"] = state[f"roi_heads.box.scores.{part}"].roll(-1, dims=0)
        deltas = state[f"roi_heads.box.deltas.{part}"]  # (4 * (K + 1), ...) class by class, or (4, ...)
        moved[f"roi_heads.box.deltas.{part}"] = deltas if len(deltas) == 4 else deltas[4:]
    return moved


def _pyramid(
    name: str, state: Mapping[str, Tensor], dialect: TwoStageDialect, leftover: tuple[str, ...]
) -> ImportedWeights:
    own = {k.removeprefix("features."): value for k, value in state.items() if k.startswith("features.")}
    heads = tuple(k for k in state if not k.startswith("features."))
    out = tuple(range(dialect.neck.finest_level, 6))
    backbone = Backbone(name, weights=None, out=out, config=dialect.backbone)
    return fill_pyramid(build_pyramid(backbone, dialect.neck), own, dialect, (*leftover, *heads))


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
    dialect = dialect.changed(neck_channels=len(state[laterals[0]]))
    dialect = dialect.changed(neck_output_channels=len(state[smooths[0]]) if smooths else dialect.neck.channels)
    if "rpn.shared.weight" in state:
        dialect = dialect.changed(rpn_channels=len(state["rpn.shared.weight"]))
    if "roi_heads.box.deltas.weight" in state:
        dialect = dialect.changed(box_class_agnostic=len(state["roi_heads.box.deltas.weight"]) == 4)
    return dialect
