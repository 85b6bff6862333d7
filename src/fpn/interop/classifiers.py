"""Networks that tell ImageNet's classes, as backbones: torchvision's, timm's and MMPretrain's ResNets, torchvision's
MobileNets, and what Detectron2 begins with (`R-50.pkl`, in Caffe's, torchvision's or its own names)."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Literal

import timm
import torch
from torch import Tensor

from fpn.detectors.dialect import TwoStageDialect
from fpn.detectors.presets import adapt_dialect
from fpn.detectors.toolkits import DETECTRON2
from fpn.features.backbones.backbone import Backbone
from fpn.features.backbones.mobilenets import is_torchvision_mobilenet, mobilenet_names
from fpn.features.backbones.resnet_variants import BackboneConfig
from fpn.interop import detectron2
from fpn.interop.imported import ImportedWeights, State
from fpn.interop.key_rules import Rules, fill_module, rename
from fpn.interop.resnets import resnet_name
from fpn.preprocessing.config import PixelsConfig

Form = Literal["torch", "mobilenet", "detectron2", "caffe2"]

# How many entries torchvision's `features` have -> timm's name.
_MOBILENETS = {19: "mobilenetv2_100", 17: "mobilenetv3_large_100", 13: "mobilenetv3_small_100"}
_NET = "features.backbone.net."
_D2 = "backbone.bottom_up."
_TORCH_RULES: Rules = (
    (r".*\.num_batches_tracked", None),
    (r"(?:backbone\.)?(conv1|bn1|layer[1-4])\.(.+)", rf"{_NET}\1.\2"),
)
_OWN_RULES: Rules = ((r".*\.num_batches_tracked", None), (r"(res[2-5]\..+|stem\.conv1\..+)", rf"{_D2}\1"))
# Of the names that Caffe2 gives to blobs; its norms have a scale and a shift alone.
_NORMS = (("s", "weight"), ("b", "bias"), ("rm", "running_mean"), ("riv", "running_var"))
_CAFFE_RULES: Rules = (
    (r"conv1_w", rf"{_D2}stem.conv1.weight"),
    *((rf"(?:res_)?conv1_bn_{theirs}", rf"{_D2}stem.conv1.norm.{ours}") for theirs, ours in _NORMS),
    *(
        rule
        for theirs, ours in (("1", "shortcut"), ("2a", "conv1"), ("2b", "conv2"), ("2c", "conv3"))
        for rule in (
            (rf"(res[2-5])_(\d+)_branch{theirs}_w", rf"{_D2}\1.\2.{ours}.weight"),
            *(
                (rf"(res[2-5])_(\d+)_branch{theirs}_bn_{leaf}", rf"{_D2}\1.\2.{ours}.norm.{own}")
                for leaf, own in _NORMS
            ),
        )
    ),
)
# Plain statistics, under which a norm is its scale and shift: its epsilon is added to the variance.
_EPSILON = BackboneConfig().norm_epsilon
_IMAGENET = PixelsConfig(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# The X-101-32x8d of Detectron2 in Caffe's names: its configs of ResNeXts.
_X101_STD = (57.375, 57.12, 58.395)


def recognises(names: Collection[str]) -> bool:
    """Whether the names are such a network's."""
    return _form(names) is not None


def import_weights(state: State, **conventions: Any) -> ImportedWeights:
    """Its weights in a bottom-up path with c2 to c5; what tells the classes is left over.

    Args:
        state: a `state_dict`, or blobs by their names.
        conventions: fields of the dialect that are not as usual, such as `backbone_stride_on="1x1"` for a ResNet of
            torch's names that was trained in Caffe's way.
    """
    form = _form(state)
    assert form is not None, "recognised by its names"
    if form == "mobilenet":
        name = _MOBILENETS[_entries(state)]
        own = mobilenet_names(state, _twin(name), "features.", "ImageNet weights")
        used = {id(value) for value in own.values()}
        leftover = tuple(key for key, value in state.items() if id(value) not in used)
    else:
        own, leftover = _resnet_names(state, form)
        name = resnet_name(own, toolkit="ImageNet")
    dialect = adapt_dialect(_dialect(form, name), **conventions)
    backbone = Backbone(name, config=dialect.backbone)
    fill_module(backbone.net, own, toolkit="ImageNet")
    return ImportedWeights(backbone.eval(), dialect, leftover)


def _form(names: Collection[str]) -> Form | None:
    if {"layer1.0.conv1.weight", "conv1.weight"} <= {name.removeprefix("backbone.") for name in names}:
        return "torch"
    if {"conv1_w", "res2_0_branch2a_w"} <= set(names):
        return "caffe2"
    if {"stem.conv1.weight", "res2.0.conv1.weight"} <= set(names):
        return "detectron2"
    if is_torchvision_mobilenet(dict.fromkeys(names)) and _entries(names) in _MOBILENETS:
        return "mobilenet"
    return None


def _entries(names: Collection[str]) -> int:
    return len({found[1] for name in names if (found := re.match(r"features\.(\d+)\.", name))})


def _resnet_names(state: State, form: Form) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Weights by timm's names, and the names that are left over."""
    rules = {"torch": _TORCH_RULES, "detectron2": _OWN_RULES, "caffe2": _CAFFE_RULES}[form]
    renamed, leftover = rename(state, rules)
    if form != "torch":
        staged, _ = rename(renamed, detectron2.RULES)
        renamed, _ = rename(staged, detectron2.BLOCK_RULES)
    own = {name.removeprefix(_NET): value for name, value in renamed.items()}
    if form == "caffe2":
        for name, value in list(own.items()):
            stem, _, leaf = name.rpartition(".")
            if leaf == "weight" and value.ndim == 1:
                own.setdefault(f"{stem}.running_mean", torch.zeros_like(value))
                own.setdefault(f"{stem}.running_var", torch.full_like(value, 1 - _EPSILON))
    return own, leftover


def _dialect(form: Form, name: str) -> TwoStageDialect:
    """How its images were made: torch's, or Caffe's where the names are."""
    if form != "caffe2":
        return TwoStageDialect(name="imagenet", source="torchvision: transforms of its weights", pixels=_IMAGENET)
    if name.startswith("resnext"):
        grouped = DETECTRON2.changed(backbone_stride_on="3x3", pixels_std=_X101_STD)
        return grouped.changed(name="imagenet")
    return DETECTRON2.changed(name="imagenet")


def _twin(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        twin: dict[str, Tensor] = timm.create_model(name, pretrained=False, features_only=True).state_dict()
    return twin
