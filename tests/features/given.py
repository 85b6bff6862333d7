"""Maps that are given, and convolutions whose effect is plain to see."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fpn.features.necks.config import NeckConfig
from fpn.features.necks.fpn import FeaturePyramid
from fpn.structures import Features, Level

C2 = torch.tensor(
    [
        [1.0, 2.0, 3.0, 4.0],
        [5.0, 6.0, 7.0, 8.0],
        [9.0, 10.0, 11.0, 12.0],
        [13.0, 14.0, 15.0, 16.0],
    ]
)
C3 = torch.tensor([[100.0, 200.0], [300.0, 400.0]])


def incoming(*numbers: int, channels: int = 1) -> tuple[Level, ...]:
    """Bottom-up levels of these numbers."""
    return tuple(Level(f"c{k}", channels, 2**k, k) for k in numbers)


def given(maps: Mapping[int, Tensor]) -> Features:
    """One image's maps of one channel, by level number."""
    return {f"c{number}": found.reshape(1, 1, *found.shape) for number, found in maps.items()}


def pyramid_of(levels: tuple[Level, ...], *, channels: int, **settings: object) -> FeaturePyramid:
    """A pyramid on these levels, as wide within as without unless `settings` say otherwise."""
    config = NeckConfig(**{"channels": channels, "output_channels": channels, **settings})
    return FeaturePyramid(levels, config=config)


def times(convolution: nn.Module, factor: float) -> None:
    """Make a convolution of one channel multiply every cell, whatever its kernel."""
    nn.init.zeros_(convolution.weight)
    middle = convolution.weight.shape[-1] // 2
    with torch.no_grad():
        convolution.weight[..., middle, middle] = factor
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


def plain_pyramid(*numbers: int, smooth: float = 2.0, **options: object) -> FeaturePyramid:
    """Identity laterals; smoothing multiplies by `smooth`, so that a smoothed map shows. Reads c2 and c3 by default."""
    pyramid = pyramid_of(incoming(*(numbers or (2, 3))), channels=1, **{"extra_levels": "none", **options})
    for lateral in pyramid.laterals.values():
        times(lateral, 1.0)
    for smoothing in pyramid.smooths.values():
        times(smoothing, smooth)
    return pyramid


def maps_of(pyramid: FeaturePyramid, maps: Mapping[int, Tensor] | None = None) -> dict[str, list[list[float]]]:
    """What a neck of one channel makes of given maps; of `C2` and `C3` by default."""
    with torch.no_grad():
        return {name: found[0, 0].tolist() for name, found in pyramid(given(maps or {2: C2, 3: C3})).items()}
