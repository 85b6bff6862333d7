"""Which ResNet a set of names describes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from fpn.errors import ModelFileError

# Blocks a stage, whether of three convolutions, groups and width of the first 3x3 convolution -> timm's name.
# Two bottlenecks a stage are what pytorch-fpn's FPN101() builds.
_RESNETS: dict[tuple[tuple[int, ...], bool, int, int], str] = {
    ((2, 2, 2, 2), False, 1, 64): "resnet18",
    ((3, 4, 6, 3), False, 1, 64): "resnet34",
    ((2, 2, 2, 2), True, 1, 64): "resnet26",
    ((3, 4, 6, 3), True, 1, 64): "resnet50",
    ((3, 4, 23, 3), True, 1, 64): "resnet101",
    ((3, 8, 36, 3), True, 1, 64): "resnet152",
    ((3, 4, 6, 3), True, 1, 128): "wide_resnet50_2",
    ((3, 4, 23, 3), True, 1, 128): "wide_resnet101_2",
    ((3, 4, 6, 3), True, 32, 128): "resnext50_32x4d",
    ((3, 4, 23, 3), True, 32, 128): "resnext101_32x4d",
    ((3, 4, 23, 3), True, 32, 256): "resnext101_32x8d",
    ((3, 4, 23, 3), True, 32, 512): "resnext101_32x16d",
    ((3, 4, 23, 3), True, 32, 1024): "resnext101_32x32d",
    ((3, 4, 23, 3), True, 64, 256): "resnext101_64x4d",
}


def resnet_name(state: Mapping[str, Tensor], *, toolkit: str) -> str:
    """timm's name of the ResNet or ResNeXt whose blocks `layerS.B....` are among the names (timm's, behind any prefix).

    Raises:
        ModelFileError: no ResNet that is known.
    """
    blocks: list[set[str]] = [set(), set(), set(), set()]
    bottleneck, groups, width = False, 1, 64
    for name, value in state.items():
        found = re.search(r"(?:^|net\.)layer([1-4])\.(\d+)\.(.+)", name)
        if not found:
            continue
        blocks[int(found[1]) - 1].add(found[2])
        if found[1] == "1" and found[2] == "0":
            bottleneck |= found[3] == "conv3.weight"
            if found[3] == "conv2.weight":
                groups, width = len(value) // value.shape[1], len(value)
    counts = tuple(len(stage) for stage in blocks)
    known = _RESNETS.get((counts, bottleneck, groups, width))
    if known is None:
        raise ModelFileError(
            f"{toolkit} weights: a ResNet with {list(counts)} blocks a stage, {groups} groups of {width // groups} "
            f"channels, {3 if bottleneck else 2} convolutions a block; known are {', '.join(_RESNETS.values())}."
        )
    return known
