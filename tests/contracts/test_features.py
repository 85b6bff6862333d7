"""Every features module emits what it declares, at any size, in training and after saving."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from fpn.features.backbones.backbone import Backbone
from fpn.features.backbones.teaching import ThreeLayerBody
from fpn.features.necks.fpn import FeaturePyramid
from fpn.features.necks.paper_designs import DESIGNS

# One of each family: what timm emits differs between them.
FAMILIES = [
    "resnet18",
    "tf_efficientnet_lite0",  # convolutions padded like TensorFlow's
    "mobilenetv3_small_050",
    "regnetx_002",
    "convnext_atto",  # patches: remainders are cut
    "densenet121",  # floor at odd sizes
    "vgg11",  # c1 has stride 1, two stages of one width
    "hrnet_w18_small",  # fails at odd sizes by itself
    "pvt_v2_b0",
    "swin_tiny_patch4_window7_224",  # channels last, one size unless told otherwise
]

PYRAMIDS: dict[str, dict[str, object]] = {
    "paper": {},
    "retinanet": {"extra_levels": "convolutions_on_c5"},
    "fcos": {"extra_levels": "convolutions_on_p5"},
    "fpn_pytorch": {"top_down": "bilinear_corners", "smoothed": "all_but_top", "smooth_before_merge": True},
    "pytorch_fpn": {"top_down": "bilinear", "smoothed": "all_but_top", "extra_levels": "none"},
    "matterport_128": {"output_channels": 4},
    "p6_and_p7_by_subsampling": {"num_extra": 2},
}

FEATURES: dict[str, Callable[[], nn.Module]] = {
    **{f"backbone {name}": lambda name=name: Backbone(name) for name in FAMILIES},
    **{
        f"pyramid {name}": lambda options=options: FeaturePyramid(
            body=Backbone("mobilenetv3_small_050"), channels=8, **options
        )
        for name, options in PYRAMIDS.items()
    },
    **{
        f"design {name}": lambda design=design: design.build(Backbone("mobilenetv3_small_050", out=design.out), 8)
        for name, design in DESIGNS.items()
    },
    "three levels": lambda: FeaturePyramid(body=ThreeLayerBody(), channels=8, top_kernel=3, extra_levels="none"),
}


@pytest.fixture(scope="module", params=FEATURES)
def features(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return FEATURES[request.param]().eval()


@pytest.mark.parametrize("size", [(64, 96), (75, 101), (33, 130)])
def test_maps_are_as_declared(features: nn.Module, size: tuple[int, int]) -> None:
    with torch.no_grad():
        maps = features(torch.randn(2, 3, *size))
    assert list(maps) == [level.name for level in features.levels]
    for level in features.levels:
        rows, columns = -(-size[0] // level.stride), -(-size[1] // level.stride)
        assert maps[level.name].shape == (2, level.channels, rows, columns), f"{level} at {size}"


def test_strides_grow_and_names_count_up(features: nn.Module) -> None:
    assert [level.stride for level in features.levels] == [2 ** int(level.name[1:]) for level in features.levels]
    assert [level.stride for level in features.levels] == sorted(level.stride for level in features.levels)


def test_a_batch_equals_its_images_one_by_one(features: nn.Module) -> None:
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        together, alone = features(pixels), features(pixels[1:])
    for name, map_ in alone.items():
        torch.testing.assert_close(together[name][1:], map_, atol=1e-4, rtol=1e-4)


def test_every_trained_parameter_gets_a_gradient(features: nn.Module) -> None:
    features.zero_grad()
    maps = features(torch.randn(1, 3, 64, 64))
    sum(map_.square().mean() for map_ in maps.values()).backward()
    idle = [name for name, value in features.named_parameters() if value.requires_grad and value.grad is None]
    # Distributed training stops at parameters that take no part.
    assert idle == []
