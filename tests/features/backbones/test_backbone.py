from __future__ import annotations

import pytest
import torch
from torch import nn

from fpn.errors import ConfigError
from fpn.features.backbones.backbone import Backbone
from fpn.features.frozen import FrozenNorm
from fpn.structures import Level


def trained(backbone: nn.Module) -> list[str]:
    return [name for name, value in backbone.named_parameters() if value.requires_grad]


def test_a_resnet_declares_the_last_map_of_each_stage() -> None:
    backbone = Backbone("resnet18")
    assert backbone.levels == (
        Level("c2", 64, 4, 2),
        Level("c3", 128, 8, 3),
        Level("c4", 256, 16, 4),
        Level("c5", 512, 32, 5),
    )


def test_stages_above_the_wanted_levels_are_not_built() -> None:
    backbone = Backbone("resnet18", out=(3, 4))
    assert [level.name for level in backbone.levels] == ["c3", "c4"]
    assert not hasattr(backbone.net, "layer4")
    assert list(backbone(torch.zeros(1, 3, 32, 32))) == ["c3", "c4"]


def test_efficientnet_blocks_after_the_last_wanted_map_are_cut() -> None:
    backbone = Backbone("tf_efficientnet_lite0", out=(4,))
    assert len(backbone.net.blocks) == 5  # of seven
    assert backbone(torch.zeros(1, 3, 32, 32))["c4"].shape == (1, 112, 2, 2)


@pytest.mark.parametrize(
    ("stages", "first"),
    [
        (0, "net.conv1.weight"),
        (1, "net.layer1.0.conv1.weight"),
        (2, "net.layer2.0.conv1.weight"),
        (4, "net.layer4.0.conv1.weight"),
    ],
)
def test_frozen_stages_are_counted_from_the_stem(stages: int, first: str) -> None:
    assert trained(Backbone("resnet18", frozen_stages=stages))[0] == first


def test_all_five_stages_can_be_frozen() -> None:
    assert trained(Backbone("resnet18", frozen_stages=5)) == []


def test_the_stem_of_a_model_whose_first_map_is_c2_can_be_frozen_alone() -> None:
    names = trained(Backbone("convnext_atto", frozen_stages=1))
    assert not any(name.startswith("net.stem") for name in names)
    assert names[0].startswith("net.stages_0")


def test_norms_of_frozen_stages_are_frozen_even_where_the_others_are_not() -> None:
    net = Backbone("resnet18", frozen_stages=2, frozen_norm=False).net
    assert isinstance(net.bn1, FrozenNorm)
    assert isinstance(net.layer1[0].bn1, FrozenNorm)
    assert isinstance(net.layer2[0].bn1, nn.BatchNorm2d)


def test_frozen_norm_freezes_all_of_them() -> None:
    backbone = Backbone("resnet18", frozen_norm=True)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())


def test_frozen_norms_change_no_map() -> None:
    torch.manual_seed(0)
    backbone = Backbone("resnet18", frozen_norm=False).eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    frozen = Backbone("resnet18", frozen_norm=True)
    frozen.load_state_dict(backbone.state_dict())
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(frozen(pixels), backbone(pixels))


def test_a_saved_state_loads_into_a_new_backbone() -> None:
    first, second = Backbone("tf_efficientnet_lite0"), Backbone("tf_efficientnet_lite0")
    second.load_state_dict(first.state_dict())
    pixels = torch.randn(1, 3, 32, 32)
    assert torch.equal(first.eval()(pixels)["c5"], second.eval()(pixels)["c5"])


def test_pixel_statistics_are_those_of_the_models_weights() -> None:
    lite, resnet = Backbone("tf_efficientnet_lite0", out=(2,)), Backbone("resnet18", out=(2,))
    assert (lite.pixel_mean, lite.pixel_std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert (resnet.pixel_mean, resnet.pixel_std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_a_model_that_cuts_remainders_is_fed_padded_images() -> None:
    # ConvNeXt's 4x4 patches would lose the last row and column of 33 x 65.
    backbone = Backbone("convnext_atto").eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 33, 65))
    assert [tuple(m.shape[-2:]) for m in maps.values()] == [(9, 17), (5, 9), (3, 5), (2, 3)]


def test_a_model_that_keeps_remainders_is_fed_the_image_itself() -> None:
    backbone = Backbone("resnet18", out=(2,)).eval()
    pixels = torch.randn(1, 3, 33, 65)
    with torch.no_grad():
        assert torch.equal(backbone(pixels)["c2"], backbone.net(pixels)[1])


def test_maps_that_timm_emits_with_channels_last_come_out_with_channels_second() -> None:
    backbone = Backbone("swin_tiny_patch4_window7_224", out=(2, 3)).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 40, 72))
    assert maps["c2"].shape == (1, 96, 10, 18)
    assert maps["c3"].shape == (1, 192, 5, 9)


def test_rewriting_puts_another_network_in_place_unless_there_is_none() -> None:
    backbone = Backbone("resnet18", out=(2,)).eval()
    net = backbone.net
    assert not backbone.rewrite(lambda net, wanted: None)
    assert backbone.net is net
    twice = torch.nn.Sequential()
    twice.forward = lambda pixels: [2 * map_ for map_ in net(pixels)]
    pixels = torch.randn(1, 3, 32, 32)
    once = backbone(pixels)["c2"]
    assert backbone.rewrite(lambda net, wanted: twice)
    assert torch.equal(backbone(pixels)["c2"], 2 * once)


def test_channels_last_and_bfloat16_work_through_the_whole_backbone() -> None:
    backbone = Backbone("resnet18", out=(2, 3)).eval().to(memory_format=torch.channels_last)
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        exact = backbone(pixels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = backbone(pixels.contiguous(memory_format=torch.channels_last))
    assert rough["c3"].dtype == torch.bfloat16
    assert rough["c3"].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(rough["c3"].float(), exact["c3"], atol=0.1, rtol=0.1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet5O", {}, "timm has no such model. Did you mean 'resnet50'"),
        ("resnet18", {"out": (5, 6)}, "has levels c1, c2, c3, c4, c5, asked for c5, c6"),
        ("resnet18", {"out": (4, 3)}, "finest first"),
        ("resnet18", {"out": ()}, "asked for none"),
        ("resnet18", {"frozen_stages": 6}, "has 5 stages, frozen_stages is 6"),
        ("vit_tiny_patch16_224", {}, "has levels c4, asked for c2, c3, c4, c5. A plain transformer has no other"),
    ],
)
def test_what_can_not_be_a_bottom_up_path_is_said(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Backbone(name, **options)
