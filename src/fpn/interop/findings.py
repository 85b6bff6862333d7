"""What an import found, and how it knew: each setting in which a detector differs from its toolkit's usual one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fpn.detectors.dialect import Dialect
from fpn.detectors.presets import DIALECTS_OF
from fpn.detectors.toolkits import VITDET
from fpn.sections import Section, flat_name

# Names that toolkits keep and nobody reads: counters, constants of the preprocessing, anchors, unused layers.
_NOT_NEEDED = re.compile(
    r".*\.?num_batches_tracked|(module\.)?pixel_(mean|std)|.*anchor_generator\..*|.*cell_anchors\.\d+|"
    r"ema_\w+|RCNN_roi_feat_ds\..+|latlayer1\..+|backbone\.(body\.)?fc\..+|.*\.bottom_up\.linear\..+|"
    # Of networks that tell ImageNet's classes: what tells them, and of a MobileNet its last convolution.
    r"(backbone\.|stem\.|head\.)?(fc|linear|classifier(\.\d)?)\.(weight|bias)|(fc1000|pred)_[wb]|conv1_b|"
    r"features\.\d\d\.[01]\.(weight|bias|running_mean|running_var)"
)
_TOLD_BY = {
    "neck.channels": "rows of the lateral convolutions",
    "neck.output_channels": "rows of the 3x3 convolutions",
    "backbone.stride_on": "grouped convolutions: as in its configs of ResNeXts",
    "backbone.split_last_stage": "names of the backbone: as in its detectors on MobileNetV3",
    "rpn.min_score": "names of the backbone: as in its detectors on MobileNetV3",
    "roi.coarsest_level": "names of the backbone: as in its detectors on MobileNetV3",
    "backbone.vit.width": "filters of the patches",
    "backbone.vit.depth": "number of blocks",
    "backbone.vit.heads": "columns of the relative positions",
    "backbone.vit.window": "rows of the relative positions",
    "backbone.vit.global_blocks": "rows of the relative positions",
    "backbone.vit.relative_grid": "rows of the relative positions",
    "backbone.vit.relative_positions": "names of the blocks",
    "backbone.vit.position_grid": "number of positions",
    "backbone.vit.drop_path": "number of blocks: as in its configs",
    "pixels.std": "grouped convolutions: as in its configs of ResNeXts",
    "neck.norm": "norms beside the pyramid's convolutions",
    "neck.finest_level": "number of lateral convolutions",
    "neck.num_extra": "number of convolutions beyond the laterals",
    "neck.extra_levels": "columns of the convolutions that make P6",
    "rpn.channels": "rows of the RPN's convolution",
    "rpn.num_convolutions": "number of the RPN's convolutions",
    "roi.output_size": "columns of the first layer behind the RoIs",
    "box.class_agnostic": "rows of the box deltas",
    "box.head": "layers of the box head",
    "box.num_convolutions": "layers of the box head",
    "box.convolution_channels": "rows of the box head's convolutions",
    "box.norm": "norms of the box head",
    "box.width": "columns of the class scores",
    "mask.channels": "columns of the mask logits",
    "mask.convolutions": "layers of the mask head",
    "mask.class_agnostic": "rows of the mask logits",
    "keypoint.channels": "rows of the keypoint upsampling",
}
# What no name and no shape tells: it is told, or taken as the toolkit's usual.
_UNTOLD = (
    "pixels.channel_order",
    "pixels.mean",
    "pixels.std",
    "pixels.short_side",
    "pixels.long_side",
    "backbone.stride_on",
    "backbone.norm_epsilon",
    "anchors.sizes",
    "anchors.ratios",
    "neck.top_down",
    "rpn.before_nms",
    "rpn.after_nms",
    "roi.sampler",
    "roi.sampling_ratio",
    "box.score_limit",
    "box.nms",
    "box.limit",
    "dense.score_limit",
    "dense.nms",
    "dense.limit",
)

# Those of ResNets and of pyramids that come down, which a plain transformer has not, and its own.
_UNTOLD_OF_TRANSFORMERS = (
    *(each for each in _UNTOLD if each not in ("backbone.stride_on", "backbone.norm_epsilon", "neck.top_down")),
    "pixels.size_multiple",
    "backbone.vit.drop_path",
)

_OWN_NAMES = ("name", "source")


@dataclass(frozen=True, slots=True)
class ToldSetting:
    """A setting, its value, and who says so."""

    setting: str
    value: Any
    how: str

    def __str__(self) -> str:
        return f"{self.setting} = {show_setting(self.value)}  ({self.how})"


def show_setting(value: Any) -> str:
    """A setting's value in a few letters."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, tuple):
        text = " ".join(show_setting(each) for each in value)
        text = f"({text})" if any(isinstance(each, tuple) for each in value) else text
    return text


def flatten(section: Section, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All settings by path, those of sections within too."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def compare_settings(
    dialect: Dialect, kind: str, told: Mapping[str, str]
) -> tuple[tuple[ToldSetting, ...], tuple[ToldSetting, ...]]:
    """What is not as usual in the toolkit, and what is assumed to be.

    Args:
        dialect: of the detector; its name is the toolkit's.
        kind: of the detector.
        told: setting -> who said so, for those that were not read off the weights.
    """
    base = DIALECTS_OF.get(kind, {}).get(dialect.name)
    usual = dict(flatten(base)) if base is not None else {}
    own = dict(flatten(dialect))
    said = {flat_name(path): who for path, who in told.items()}
    found: list[ToldSetting] = []
    for setting, value in own.items():
        if flat_name(setting) in said:
            found.append(ToldSetting(setting, value, said[flat_name(setting)]))
        elif setting in usual and setting not in _OWN_NAMES and not _same(usual[setting], value, own):
            found.append(ToldSetting(setting, value, _TOLD_BY.get(setting, "names and shapes of the weights")))
    shown = {each.setting for each in found}
    untold = _UNTOLD_OF_TRANSFORMERS if dialect.name == VITDET.name else _UNTOLD
    assumed = (ToldSetting(each, own[each], "usual") for each in untold if each in own and each not in shown)
    return tuple(found), tuple(assumed)


def _same(usual: Any, value: Any, own: Mapping[str, Any]) -> bool:
    """Widths for which nothing is said are the pyramid's."""
    return bool(usual == value) or (usual is None and value == own.get("neck.channels"))


def needed(names: Iterable[str]) -> tuple[str, ...]:
    """The names among those without a place that a detector would need."""
    return tuple(name for name in names if not _NOT_NEEDED.fullmatch(name))
