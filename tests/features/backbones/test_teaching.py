from __future__ import annotations

import pytest
import torch

from fpn.errors import ConfigError
from fpn.features.backbones.teaching import ThreeLayerBackbone, resnet_backbone
from fpn.structures import Level


def test_depth_26_has_two_bottlenecks_a_stage() -> None:
    net = resnet_backbone(26).net
    assert [len(net[f"layer{stage}"]) for stage in (1, 2, 3, 4)] == [2, 2, 2, 2]


def test_an_unknown_depth_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="depth 42: known are 26, 50, 101, 152"):
        resnet_backbone(42)


def test_the_teaching_net_halves_three_times_without_an_activation() -> None:
    backbone = ThreeLayerBackbone()
    assert backbone.levels == (Level("c1", 64, 2, 1), Level("c2", 128, 4, 2), Level("c3", 256, 8, 3))
    maps = backbone(torch.randn(1, 3, 64, 64))
    assert [map_.shape[-1] for map_ in maps.values()] == [32, 16, 8]
    assert (maps["c1"] < 0).any()
