"""A body whose maps are given, and convolutions whose effect is plain to see."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fpn.features.extractor import FeatureExtractor
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
PIXELS = torch.zeros(1, 3, 16, 16)


class GivenBody(FeatureExtractor):
    def __init__(self, **maps: Tensor) -> None:
        super().__init__()
        self.maps = {name: map_.reshape(1, 1, *map_.shape) for name, map_ in maps.items()}
        self.levels = tuple(Level(name, 1, 2 ** int(name[1:])) for name in maps)

    def forward(self, pixels: Tensor) -> Features:
        return dict(self.maps)


def times(convolution: nn.Module, factor: float) -> None:
    """Make a convolution of one channel multiply every cell, whatever its kernel."""
    nn.init.zeros_(convolution.weight)
    middle = convolution.weight.shape[-1] // 2
    with torch.no_grad():
        convolution.weight[..., middle, middle] = factor
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


def plain_pyramid(*, smooth: float = 2.0, body: nn.Module | None = None, **options: object) -> FeaturePyramid:
    """Identity laterals; smoothing multiplies by `smooth`, so that a smoothed map shows."""
    pyramid = FeaturePyramid(body=body or GivenBody(c2=C2, c3=C3), channels=1, **{"extra_levels": "none", **options})
    for lateral in pyramid.laterals.values():
        times(lateral, 1.0)
    for smoothing in pyramid.smooths.values():
        times(smoothing, smooth)
    return pyramid


def maps_of(pyramid: nn.Module) -> dict[str, list[list[float]]]:
    with torch.no_grad():
        return {name: map_[0, 0].tolist() for name, map_ in pyramid(PIXELS).items()}
