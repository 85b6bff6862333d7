"""Backbones, necks and extractors emit what they declare, at any size, and every neck fits every backbone.

A new kind of backbone, neck or extractor is one line in one of the tables.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from features.given import pyramid_of
from torch import nn
from torch.nn import functional

from fpn.errors import ConfigError
from fpn.features.backbones.backbone import Backbone
from fpn.features.backbones.resnet_variants import BackboneConfig
from fpn.features.backbones.teaching import ThreeLayerBackbone, resnet_backbone
from fpn.features.backbones.windowed_transformer import ViTConfig, WindowedTransformer
from fpn.features.extractor import BottomUp, Extractor, FeatureExtractor, Neck
from fpn.features.necks.bifpn import BiFPN
from fpn.features.necks.config import NeckConfig
from fpn.features.necks.designs import DESIGNS
from fpn.features.necks.pafpn import PathAggregation
from fpn.features.necks.simple_pyramid import SimplePyramid
from fpn.structures import Features, Level

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


def eight(**settings: object) -> NeckConfig:
    return NeckConfig(channels=8, output_channels=8, **settings)


class Coarsest(Neck):
    """A toy: one map, the coarsest that comes in, as wide as told."""

    def __init__(self, levels: tuple[Level, ...], *, channels: int) -> None:
        super().__init__(levels)
        top = self.incoming[-1]
        self.levels = (Level(f"p{top.number}", channels, top.stride, top.number),)
        self.mixing = nn.Conv2d(top.channels, channels, 1)

    def forward(self, features: Features) -> Features:
        return {self.levels[0].name: functional.relu(self.mixing(features[self.incoming[-1].name]))}


NECKS: dict[str, Callable[[tuple[Level, ...]], Neck]] = {
    "paper": lambda levels: pyramid_of(levels, channels=8),
    "retinanet": lambda levels: pyramid_of(levels, channels=8, extra_levels="convolutions_on_c5"),
    "fcos": lambda levels: pyramid_of(levels, channels=8, extra_levels="convolutions_on_p5"),
    "fpn_pytorch": lambda levels: pyramid_of(
        levels, channels=8, top_down="bilinear_corners", smoothed="all_but_top", smooth_before_merge=True
    ),
    "pytorch_fpn": lambda levels: pyramid_of(
        levels, channels=8, top_down="bilinear", smoothed="all_but_top", extra_levels="none"
    ),
    "matterport_128": lambda levels: pyramid_of(levels, channels=8, output_channels=4),
    "three levels": lambda levels: pyramid_of(levels, channels=8, top_kernel=3, extra_levels="none"),
    "p6 and p7 by subsampling": lambda levels: pyramid_of(levels, channels=8, num_extra=2),
    "batch norms": lambda levels: pyramid_of(levels, channels=8, norm="batch", norm_on_lateral=False, relu=True),
    "p6 of c5's lateral": lambda levels: pyramid_of(levels, channels=8, extra_levels="convolutions_on_lateral"),
    "pafpn": lambda levels: PathAggregation(levels, config=eight()),
    "pafpn of FCOS": lambda levels: PathAggregation(levels, config=eight(extra_levels="convolutions_on_p5")),
    "bifpn": lambda levels: BiFPN(levels, config=eight(repeats=2)),
    "bifpn to p7, sums": lambda levels: BiFPN(levels, config=eight(num_extra=2, repeats=1, fusion="sum")),
    "simple_pyramid": lambda levels: SimplePyramid(levels, config=eight()),
    "toy": lambda levels: Coarsest(levels, channels=8),
}
DESIGN_NECKS: dict[str, Callable[[tuple[Level, ...]], Neck]] = {
    **{
        f"design {name}": lambda levels, options=design.neck: pyramid_of(levels, channels=8, **options)
        for name, design in DESIGNS.items()
        if design.rival and design.kind == "pyramid"
    },
}

BACKBONES: dict[str, Callable[[], BottomUp]] = {
    **{name: lambda name=name: Backbone(name) for name in FAMILIES},
    "last three": lambda: Backbone("mobilenetv3_small_050", out=(3, 4, 5)),
    "coarsest alone": lambda: Backbone("mobilenetv3_small_050", out=(5,)),
    "c5 of c4's stride": lambda: resnet_backbone(26, config=BackboneConfig(last_stage_stride=1)),
    "plain transformer": lambda: Backbone("test_vit", out=(4,)),
    "windowed transformer": lambda: WindowedTransformer(config=ViTConfig(width=16, depth=2, heads=2, window=3)),
    "teaching": ThreeLayerBackbone,
}


def joined(backbone: BottomUp, neck: str) -> FeatureExtractor:
    return FeatureExtractor(backbone=backbone, neck=(NECKS | DESIGN_NECKS)[neck](backbone.levels))


EXTRACTORS: dict[str, Callable[[], Extractor]] = {
    **{f"neck {name}": lambda name=name: joined(Backbone("mobilenetv3_small_050"), name) for name in NECKS},
    **{
        f"design {name}": lambda design=design: design.build(Backbone("mobilenetv3_small_050", out=design.out), eight())
        for name, design in DESIGNS.items()
    },
    "three levels": lambda: joined(ThreeLayerBackbone(), "three levels"),
    "plain transformer": lambda: joined(Backbone("test_vit", out=(4,)), "simple_pyramid"),
    "windowed transformer": lambda: joined(BACKBONES["windowed transformer"](), "simple_pyramid"),
}
ALL: dict[str, Callable[[], nn.Module]] = {f"backbone {name}": make for name, make in BACKBONES.items()} | EXTRACTORS


@pytest.fixture(scope="module", params=ALL)
def features(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return ALL[request.param]().eval()


@pytest.fixture(scope="module", params=BACKBONES)
def backbone(request: pytest.FixtureRequest) -> BottomUp:
    """Its shapes alone: what a neck is built for."""
    with torch.device("meta"):
        return BACKBONES[request.param]().eval()


def assert_as_declared(maps: Features, levels: tuple[Level, ...], size: tuple[int, int]) -> None:
    assert list(maps) == [level.name for level in levels]
    for level in levels:
        rows, columns = -(-size[0] // level.stride), -(-size[1] // level.stride)
        assert maps[level.name].shape[1:] == (level.channels, rows, columns), f"{level} at {size}"


@pytest.mark.parametrize("size", [(64, 96), (75, 101), (33, 130)])
def test_maps_are_as_declared(features: nn.Module, size: tuple[int, int]) -> None:
    with torch.no_grad():
        maps = features(torch.randn(2, 3, *size))
    assert_as_declared(maps, features.levels, size)
    assert {len(map_) for map_ in maps.values()} == {2}


@pytest.mark.parametrize("neck", NECKS | DESIGN_NECKS)
def test_every_neck_goes_on_every_backbone(backbone: BottomUp, neck: str) -> None:
    # A neck knows no backbone: it is given maps of the declared shapes, and need not be given the network.
    size = (75, 101)
    maps = {
        level.name: torch.randn(1, level.channels, -(-size[0] // level.stride), -(-size[1] // level.stride))
        for level in backbone.levels
    }
    features = joined(backbone, neck)
    given = dict(maps)
    with torch.no_grad():
        made = features.read(maps, size)
        released = features.read(given, size, release=True)
    assert_as_declared(made, features.levels, size)
    assert maps.keys() == {level.name for level in backbone.levels}  # a caller's own stay
    assert all(torch.equal(map_, released[name]) for name, map_ in made.items())
    assert list(given) == ([] if features.neck.releases else list(maps))


def test_strides_grow_numbers_count_up_and_names_tell_them(features: nn.Module) -> None:
    levels = features.levels
    assert [level.name[1:] for level in levels] == [str(level.number) for level in levels]
    first = levels[0].number
    assert [level.number for level in levels] == list(range(first, first + len(levels)))
    assert [level.stride for level in levels] == sorted(level.stride for level in levels)
    assert levels[0].stride == 2**first


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


@pytest.mark.parametrize("name", ["neck toy", "design image_pyramid"])  # one of each class
def test_only_the_backbones_weights_are_told_to_be_its(name: str) -> None:
    with torch.device("meta"):
        extractor = EXTRACTORS[name]()
    told = {id(weight) for weight in extractor.backbone_parameters()}
    names = {path for path, weight in extractor.named_parameters() if id(weight) in told}
    assert names == {path for path, _ in extractor.named_parameters() if path.startswith("backbone.")}
    assert 0 < len(names) < len(list(extractor.parameters()))


def test_a_neck_of_another_backbone_is_refused() -> None:
    teaching = ThreeLayerBackbone()
    neck = pyramid_of(teaching.levels, channels=8)
    with pytest.raises(ConfigError, match=r"FeaturePyramid was built for .*'c1'.*Build the neck from levels"):
        FeatureExtractor(backbone=Backbone("resnet18"), neck=neck)
