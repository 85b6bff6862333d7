from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from features.given import times
from fpn.errors import ConfigError
from fpn.features.backbones.teaching import ThreeLayerBackbone
from fpn.features.extractor import BottomUp
from fpn.features.necks.image_pyramid import ImagePyramid, rescale
from fpn.structures import Features, Level


class MeanBackbone(BottomUp):
    """c3 and c4 are means of 8x8 and 16x16 pixels of the red channel; c4 is 100 times larger, so that it shows."""

    levels = (Level("c3", 1, 8, 3), Level("c4", 1, 16, 4))

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def forward(self, pixels: Tensor) -> Features:
        self.seen.append((pixels.shape[-2], pixels.shape[-1]))
        red = pixels[:, :1]
        return {"c3": functional.avg_pool2d(red, 8, ceil_mode=True), "c4": 100 * functional.avg_pool2d(red, 16)}


def image_pyramid() -> ImagePyramid:
    pyramid = ImagePyramid(backbone=MeanBackbone(), channels=1)
    for part in (*pyramid.laterals.values(), *pyramid.smooths.values()):
        times(part, 1.0)
    return pyramid


def test_the_image_pyramid_runs_one_backbone_over_three_sizes() -> None:
    pyramid = image_pyramid()
    pyramid(torch.zeros(1, 3, 32, 64))
    assert sorted(pyramid.backbone.seen) == [(16, 32), (32, 64), (64, 128)]


def test_each_level_of_the_image_pyramid_comes_from_its_scale_and_stage() -> None:
    # An image of ones: c3 gives 1, c4 gives 100, whatever the scale.
    pyramid = image_pyramid()
    maps = pyramid(torch.ones(1, 3, 32, 64))
    assert {name: tuple(map_.shape[-2:]) for name, map_ in maps.items()} == {
        "p2": (8, 16),
        "p3": (4, 8),
        "p4": (2, 4),
        "p5": (1, 2),
        "p6": (1, 1),
    }
    assert {name: round(map_.mean().item(), 4) for name, map_ in maps.items()} == {
        "p2": 1,
        "p3": 100,
        "p4": 100,
        "p5": 100,
        "p6": 100,
    }
    assert [level.stride for level in pyramid.levels] == [4, 8, 16, 32, 64]


def test_all_scales_share_laterals_and_smoothing() -> None:
    assert list(image_pyramid().laterals) == list(image_pyramid().smooths) == ["c3", "c4"]


def test_an_image_pyramid_needs_c3_and_c4() -> None:
    with pytest.raises(ConfigError, match="reads c3, c4, its backbone emits c1, c2, c3"):
        ImagePyramid(backbone=ThreeLayerBackbone())


def test_halving_averages_and_counts_a_remaining_pixel() -> None:
    image = torch.zeros(1, 3, 5, 4)
    assert rescale(image, 0.5).shape[-2:] == (3, 2)
    assert rescale(image, 2.0).shape[-2:] == (10, 8)
    assert rescale(image, 1.0) is image
    # Without antialiasing the stripes would all fall on one side: constant 0 or 1 at some offsets.
    stripes = torch.tensor([0.0, 1.0]).repeat(8).expand(1, 3, 16, 16)
    assert rescale(stripes, 0.5)[0, 0, :, 2:-2].sub(0.5).abs().max() < 0.1
