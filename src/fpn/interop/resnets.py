"""Which ResNet a set of names describes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fpn.errors import ModelFileError
from fpn.features.backbones.teaching import BOTTLENECK_RESNETS

# Bottlenecks a stage -> layers. [2, 2, 2, 2] is what pytorch-fpn's FPN101() builds.
DEPTHS = {(2, 2, 2, 2): 26, (3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}


def resnet_name(names: Iterable[str], *, toolkit: str) -> str:
    """timm's name of the ResNet whose blocks `net.layerS.B....` are among the names (ours, after renaming).

    Raises:
        ModelFileError: no bottleneck ResNet that is known.
    """
    blocks: list[set[int]] = [set(), set(), set(), set()]
    for name in names:
        found = re.search(r"net\.layer([1-4])\.(\d+)\.", name)
        if found:
            blocks[int(found[1]) - 1].add(int(found[2]))
    counts = tuple(len(stage) for stage in blocks)
    if counts not in DEPTHS:
        raise ModelFileError(
            f"{toolkit} weights: a ResNet with {list(counts)} blocks a stage; known are "
            f"{', '.join(str(list(known)) for known in DEPTHS)}."
        )
    return BOTTLENECK_RESNETS[DEPTHS[counts]]
