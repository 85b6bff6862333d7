"""Which ResNet a set of names describes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from fpn.errors import ModelFileError
from fpn.features.backbones.teaching import BOTTLENECK_RESNETS

# Bottlenecks a stage -> layers. [2, 2, 2, 2] is what pytorch-fpn's FPN101() builds.
DEPTHS: dict[tuple[int, ...], int] = {(2, 2, 2, 2): 26, (3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
# Blocks of two 3x3 convolutions a stage.
_SHALLOW: dict[tuple[int, ...], str] = {(2, 2, 2, 2): "resnet18", (3, 4, 6, 3): "resnet34"}
# Channels of the first 3x3 convolution of those that are twice as wide, of which timm has two.
_WIDE, _WIDE_DEPTHS = 128, (50, 101)


def resnet_name(state: Mapping[str, Tensor], *, toolkit: str) -> str:
    """timm's name of the ResNet or ResNeXt whose blocks `net.layerS.B....` are among the names (ours, after renaming).

    Raises:
        ModelFileError: no ResNet that is known.
    """
    blocks: list[set[int]] = [set(), set(), set(), set()]
    for name in state:
        found = re.search(r"net\.layer([1-4])\.(\d+)\.", name)
        if found:
            blocks[int(found[1]) - 1].add(int(found[2]))
    counts = tuple(len(stage) for stage in blocks)
    shallow = not any(name.endswith("net.layer1.0.conv3.weight") for name in state)
    if counts not in (_SHALLOW if shallow else DEPTHS):
        kind = "blocks of two convolutions" if shallow else "blocks"
        raise ModelFileError(
            f"{toolkit} weights: a ResNet with {list(counts)} {kind} a stage; known are "
            f"{', '.join(str(list(known)) for known in (_SHALLOW if shallow else DEPTHS))}."
        )
    if shallow:
        return _SHALLOW[counts]
    groups, width = _groups(state)
    if groups == 1:
        wide = width == _WIDE and DEPTHS[counts] in _WIDE_DEPTHS
        return f"wide_resnet{DEPTHS[counts]}_2" if wide else BOTTLENECK_RESNETS[DEPTHS[counts]]
    return f"resnext{DEPTHS[counts]}_{groups}x{width}d"


def _groups(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Groups of the 3x3 convolutions of the first stage, and channels of each."""
    for name, value in state.items():
        if name.endswith("net.layer1.0.conv2.weight"):
            return len(value) // value.shape[1], value.shape[1]
    return 1, 64
