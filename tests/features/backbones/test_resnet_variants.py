from __future__ import annotations

import pytest
import torch
from torch import nn

from fpn.errors import ConfigError
from fpn.features.backbones.backbone import Backbone
from fpn.features.backbones.resnet_variants import BackboneConfig, set_stem_pool
from fpn.features.backbones.teaching import resnet_backbone
from fpn.features.blocks import SamePool
from fpn.structures import Level

ROWS = torch.arange(1.0, 17.0).reshape(1, 1, 4, 4)


def test_stride_on_1x1_moves_the_stride_of_every_first_bottleneck() -> None:
    caffe = resnet_backbone(26, config=BackboneConfig(stride_on="1x1")).net
    torch_like = resnet_backbone(26).net
    assert (caffe.layer2[0].conv1.stride, caffe.layer2[0].conv2.stride) == ((2, 2), (1, 1))
    assert (torch_like.layer2[0].conv1.stride, torch_like.layer2[0].conv2.stride) == ((1, 1), (2, 2))
    assert caffe.layer2[1].conv1.stride == caffe.layer1[0].conv1.stride == (1, 1)


def test_norm_epsilon_reaches_every_norm_frozen_or_not() -> None:
    for frozen in (True, False):
        net = resnet_backbone(26, config=BackboneConfig(norm_epsilon=1e-3), frozen_norm=frozen).net
        epsilons = {module.eps for module in net.modules() if hasattr(module, "running_mean")}
        assert epsilons == {1e-3}


def test_conv_bias_gives_every_convolution_one_that_starts_at_zero() -> None:
    net = resnet_backbone(26, config=BackboneConfig(conv_bias=True)).net
    biases = [module.bias for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert len(biases) == 1 + 8 * 3 + 4  # stem, eight bottlenecks, four shortcuts
    assert all(bias is not None and not bias.any() for bias in biases)


def test_padded_stem_pool_looks_one_cell_beyond_all_sides() -> None:
    net = nn.Module()
    set_stem_pool(net, "padded")
    # Windows start at -1 and 1: the maxima are at rows 1 and 3, columns 1 and 3.
    assert net.maxpool(ROWS)[0, 0].tolist() == [[6, 8], [14, 16]]


def test_ceil_stem_pool_starts_at_the_corner_and_rounds_sizes_up() -> None:
    net = nn.Module()
    set_stem_pool(net, "ceil")
    # Windows start at 0 and 2.
    assert net.maxpool(ROWS)[0, 0].tolist() == [[11, 12], [15, 16]]


def test_ceil_stem_pool_loses_a_row_at_51_that_the_padded_one_keeps() -> None:
    # 101 pixels give 51 rows after the stem's convolution: 25 instead of 26.
    net = nn.Module()
    set_stem_pool(net, "ceil")
    assert net.maxpool(torch.zeros(1, 1, 51, 51)).shape[-2:] == (25, 25)
    set_stem_pool(net, "padded")
    assert net.maxpool(torch.zeros(1, 1, 51, 51)).shape[-2:] == (26, 26)


def test_same_stem_pool_pads_right_and_below_at_even_sizes() -> None:
    assert SamePool()(ROWS)[0, 0].tolist() == [[11, 12], [15, 16]]


def test_same_stem_pool_pads_all_sides_at_odd_sizes_and_padding_never_wins() -> None:
    negative = torch.arange(-9.0, 0.0).reshape(1, 1, 3, 3)
    # Windows start at -1 and 1; the best of rows 0..1 and columns 0..1 is -5.
    assert SamePool()(negative)[0, 0].tolist() == [[-5, -4], [-2, -1]]


def test_last_stage_stride_1_gives_c5_the_size_of_c4() -> None:
    backbone = resnet_backbone(26, config=BackboneConfig(last_stage_stride=1)).eval()
    assert backbone.levels[2:] == (Level("c4", 1024, 16, 4), Level("c5", 2048, 16, 5))
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 96))
    assert maps["c4"].shape[-2:] == maps["c5"].shape[-2:] == (4, 6)


@pytest.mark.parametrize("name", ["convnext_atto", "resnet18", "resnet50d"])
def test_variants_are_for_plain_bottleneck_resnets(name: str) -> None:
    with pytest.raises(ConfigError, match="are for plain bottleneck ResNets"):
        Backbone(name, config=BackboneConfig(stride_on="1x1"))


def test_a_variant_that_changes_nothing_is_fine_on_every_model() -> None:
    assert Backbone("convnext_atto", config=BackboneConfig()).levels[0] == Level("c2", 40, 4, 2)
