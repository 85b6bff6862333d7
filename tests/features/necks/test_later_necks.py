"""What came after the paper, on maps and weights whose effect is plain to see."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from features.given import C2, C3, given, incoming, times
from fpn.errors import ConfigError
from fpn.features.backbones.backbone import Backbone
from fpn.features.extractor import FeatureExtractor
from fpn.features.necks.bifpn import BiFPN
from fpn.features.necks.config import NeckConfig
from fpn.features.necks.pafpn import PathAggregation
from fpn.features.necks.simple_pyramid import SimplePyramid
from fpn.structures import Level


def one(**settings: object) -> NeckConfig:
    return NeckConfig(**{"channels": 1, "output_channels": 1, "extra_levels": "none", **settings})


def test_pafpn_climbs_from_the_finest_map() -> None:
    neck = PathAggregation(incoming(2, 3), config=one())
    for part in (*neck.laterals.values(), *neck.smooths.values(), *neck.downs.values()):
        times(part, 1.0)
    times(neck.outputs["p3"], 10.0)
    maps = {name: found[0, 0] for name, found in neck(given({2: C2, 3: C3})).items()}
    assert maps["p2"][0].tolist() == [101, 102, 203, 204]
    # N3 = c3 + every second cell of N2, then times 10: 10 * (100 + 101), 10 * (200 + 203), ...
    assert maps["p3"].tolist() == [[2010, 4030], [6090, 8110]]


def test_pafpn_makes_p6_of_what_comes_out() -> None:
    neck = PathAggregation(incoming(2, 3), config=one(extra_levels="subsample"))
    maps = neck(given({2: C2, 3: C3}))
    assert maps["p4"].item() == maps["p3"][0, 0, 0, 0].item()


def plain_bifpn(fusion: str, weights: list[float] | None = None) -> BiFPN:
    neck = BiFPN(incoming(2, 3), config=one(repeats=1, fusion=fusion, norm="none")).eval()
    for node in (*neck.cells[0].down, *neck.cells[0].up):
        node.after[0] = torch.nn.Identity()  # without the swish what remains are sums
        times(node.after[1], 1.0)
        times(node.after[2], 1.0)
        if weights is not None:
            node.weights.data = torch.tensor(weights)
    return neck


@pytest.mark.parametrize(
    ("fusion", "weights", "first"),
    [
        ("sum", None, 1.0 + 100.0),
        ("fast", [1.0, 3.0], (1.0 + 300.0) / 4.0001),
        ("fast", [-1.0, 2.0], 200.0 / 2.0001),  # below 0 counts as 0
        ("softmax", [0.0, 0.0], 50.5),
    ],
)
def test_bifpn_adds_by_its_weights(fusion: str, weights: list[float] | None, first: float) -> None:
    maps = plain_bifpn(fusion, weights)(given({2: C2, 3: C3}))
    assert maps["p2"][0, 0, 0, 0].item() == pytest.approx(first)


def test_bifpn_goes_down_then_up_by_pools() -> None:
    maps = plain_bifpn("sum")(given({2: C2, 3: C3}))
    down = C2 + C3.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert maps["p2"][0, 0].tolist() == down.tolist()
    # 3x3/2 pools padded at the right and bottom alone: the largest of rows 0..2 and columns 0..2 is 311 + 300 = 311.
    assert maps["p3"][0, 0].tolist() == [[100 + 411, 200 + 412], [300 + 415, 400 + 416]]


def test_bifpn_needs_two_levels() -> None:
    with pytest.raises(ConfigError, match=r"bifpn goes down and up between levels.*1 \(p5"):
        BiFPN(incoming(5), config=one())


def test_simple_pyramid_makes_every_level_of_the_last_map() -> None:
    levels = (*incoming(3), Level("c4", 6, 16, 4))
    neck = SimplePyramid(levels, config=one(output_channels=2, extra_levels="subsample", num_extra=1))
    assert [level.name for level in neck.incoming] == ["c4"]
    maps = neck({"c4": torch.randn(1, 6, 5, 3)})
    assert {name: tuple(found.shape[1:]) for name, found in maps.items()} == {
        "p2": (2, 20, 12),
        "p3": (2, 10, 6),
        "p4": (2, 5, 3),
        "p5": (2, 3, 2),
        "p6": (2, 2, 1),
    }
    widths = [part.in_channels for part in neck.scales["p2"] if isinstance(part, torch.nn.ConvTranspose2d)]
    assert widths == [6, 3]  # halved by each


@torch.no_grad()
def test_what_a_cell_reaches_beyond_the_image_is_cut() -> None:
    # 75 pixels are five patches of 16, of which four times four cells are one too many.
    backbone = Backbone("test_vit", out=(4,)).eval()
    features = FeatureExtractor(backbone=backbone, neck=SimplePyramid(backbone.levels, config=one()))
    pixels = torch.randn(1, 3, 75, 64)
    whole, cut = features.neck(backbone(pixels))["p2"], features(pixels)["p2"]
    assert whole.shape[2:] == (20, 16)
    assert torch.equal(cut, whole[:, :, :19])


@pytest.mark.parametrize("neck", [PathAggregation, BiFPN, SimplePyramid])
def test_none_can_emit_the_finest_alone(neck: type) -> None:
    with pytest.raises(ConfigError, match="'finest'"):
        neck(incoming(2, 3), config=one(emitted="finest"))


def test_a_plain_transformer_without_its_neck_is_told_which_one_it_needs() -> None:
    with pytest.raises(ConfigError, match=r"has levels c4, asked for c2, c3.*use neck simple_pyramid"):
        Backbone("test_vit", out=(2, 3))


def test_patches_of_another_size_are_resampled_also_from_a_file(tmp_path: Path) -> None:
    state = timm.create_model("test_vit", patch_size=8, img_size=80).state_dict()
    assert state["patch_embed.proj.weight"].shape[2:] == (8, 8)
    torch.save(state, tmp_path / "vit.pth")
    backbone = Backbone("test_vit", out=(4,), weights=tmp_path / "vit.pth")
    assert backbone.net.model.patch_embed.proj.weight.shape[2:] == (16, 16)
    assert torch.equal(backbone.net.model.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])


def test_stages_of_a_plain_transformer_are_its_patches_and_its_blocks() -> None:
    def trained(stages: int) -> set[str]:
        net = Backbone("test_vit", out=(4,), frozen_stages=stages).net
        return {name.split(".")[1] for name, weight in net.named_parameters() if weight.requires_grad}

    assert {"patch_embed", "blocks"} <= trained(0)
    assert trained(2) == {"blocks"}
    assert trained(4) == set()
