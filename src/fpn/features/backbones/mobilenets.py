"""MobileNets as torchvision names their weights and cuts their maps, on timm's networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import Tensor, nn

from fpn.errors import ConfigError, ModelFileError
from fpn.structures import Level

# The order in which a layer keeps its tensors, which is not that of their names.
_LEAVES = {name: place for place, name in enumerate(("weight", "bias", "running_mean", "running_var"))}
_STEM, _COUNTER = "0.0.weight", "num_batches_tracked"


class SplitStages(nn.Module):
    """timm's MobileNetV3 with two maps of stride 32: of the first block that has it, and of the last layer.

    torchvision's detectors call these C4 and C5 (models/detection/backbone_utils.py, `_mobilenet_extractor`). Modules
    have timm's names.
    """

    def __init__(self, net: MobileNetV3Features) -> None:
        super().__init__()
        self.conv_stem, self.bn1, self.act1 = net.conv_stem, net.bn1, net.act1
        self.blocks = net.blocks
        self.feature_info = net.feature_info

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, C4, h, w) and (B, C5, h, w)."""
        x = self.act1(self.bn1(self.conv_stem(pixels)))
        *finer, coarsest, last = self.blocks
        for stage in finer:
            x = stage(x)
        first, *rest = coarsest
        x = found = first(x)
        for block in rest:
            x = block(x)
        return [found, last(x)]


def split_stages(net: nn.Module, levels: tuple[Level, ...], name: str) -> tuple[SplitStages, tuple[Level, ...]]:
    """The network that gives C4 and C5 at the stride of C5, and these levels.

    Raises:
        ConfigError: it is no MobileNetV3, or other levels are wanted.
    """
    if not isinstance(net, MobileNetV3Features):
        raise ConfigError(
            f"backbone {name!r}: split_last_stage is for MobileNetV3 (mobilenetv3_large_100). Leave it out."
        )
    if tuple(level.number for level in levels) != (4, 5):
        raise ConfigError("split_last_stage gives the levels c4 and c5: set neck.finest_level to 4")
    split = SplitStages(net)
    finer, coarser = levels
    with torch.no_grad():
        channels = split.eval()(torch.zeros(1, 3, 64, 64))[0].shape[1]
    split.train(net.training)
    return split, (Level(finer.name, channels, coarser.stride, finer.number), coarser)


def is_torchvision_mobilenet(state: Mapping[str, Any], prefix: str = "features.") -> bool:
    """Whether the names under a prefix are of torchvision's MobileNet V2 or V3."""
    return f"{prefix}{_STEM}" in state


def mobilenet_names(
    state: Mapping[str, Tensor], twin: Mapping[str, Tensor], prefix: str, where: str
) -> dict[str, Tensor]:
    """torchvision's weights under timm's names: both have the same layers in the same order.

    Args:
        state: torchvision's names.
        twin: names and shapes of timm's network.
        prefix: of the names that are the network's.
        where: what messages call the weights.

    Raises:
        ModelFileError: they are of another network.
    """
    theirs = sorted((name for name in state if name.startswith(prefix) and _counts(name)), key=_place)
    ours = [name for name in twin if _counts(name)]
    if len(theirs) < len(ours):
        raise ModelFileError(f"{where}: {len(theirs)} weights of a MobileNet, expected {len(ours)}. Is the file whole?")
    for name, own in zip(theirs, ours, strict=False):
        if state[name].shape != twin[own].shape:
            raise ModelFileError(
                f"{where}: {name} is {tuple(state[name].shape)}, expected {tuple(twin[own].shape)}: it belongs to "
                "another network"
            )
    return {own: state[name] for name, own in zip(theirs, ours, strict=False)}


def _counts(name: str) -> bool:
    return not name.endswith(_COUNTER)


def _place(name: str) -> tuple[list[tuple[bool, int, str]], int]:
    """Numbers in a name count as such, and a layer's tensors are in their own order."""
    stem, _, leaf = name.rpartition(".")
    parts = [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"[.]", stem)]
    return parts, _LEAVES.get(leaf, len(_LEAVES))
