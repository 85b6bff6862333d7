"""Necks alone: the originals' weights by their names, the same maps in, and every map that came out."""

import re

import pytest
import torch
from torch import nn

from fpn.heads.anchors import AnchorGenerator
from fpn.interop import import_weights
from fpn.shapes import Size
from fpn.structures import Features, Level
from parity.golden.cases import Case
from parity.golden.compare import BOX_TOLERANCE, assert_map, assert_near
from parity.golden.family import FAMILY, family_case, inputs, listed, made, weights_of
from parity.golden.files import import_file

# How MMDetection's options are called here.
EXTRAS = {
    "on_input": "convolutions_on_c5",
    "on_lateral": "convolutions_on_lateral",
    "on_output": "convolutions_on_p5",
}


def given(case: Case) -> Features:
    """Maps by the level that their names in the case's meta end with: mm:pafpn:c2 is c2."""
    names = [re.search(r"c\d$", name)[0] for name in case.meta["input"]["names"]]
    return dict(zip(names, inputs(case), strict=True))


@torch.no_grad()
def run(neck: nn.Module, maps: Features) -> list[torch.Tensor]:
    return list(neck(maps).values())


@torch.no_grad()
def run_named(module: nn.Module, given: Features | torch.Tensor) -> Features:
    return dict(module(given))


def test_mmdetection_pafpn():
    case = family_case("mm_9_pafpn")
    maps = run(import_file(case.name, weights_of(case)).module, given(case))
    names = [name for name in case.arrays if re.fullmatch(r"p\d", name)]
    assert len(maps) == len(names)
    for name, found in zip(names, maps, strict=True):
        assert_map(case, name, found)


def variants() -> list[str]:
    folder = FAMILY / "mm_9_fpn_variants"
    return list(Case(folder).meta["variants"]) if folder.is_dir() else ["absent"]


@pytest.mark.parametrize("variant", variants())
def test_mmdetection_variants_of_its_pyramids(variant):
    case = family_case("mm_9_fpn_variants")
    options = case.meta["variants"][variant]
    state = made(case, case.meta["names"][variant], case.meta["factors"], case.meta["weights_sha256"][variant])
    start, end = options.get("start_level", 0), options.get("end_level", len(case.meta["in_channels"]) - 1)
    extra = options["num_outs"] - (end - start + 1)
    made_of = EXTRAS.get(options.get("add_extra_convs"), "subsample")
    imported = import_file(
        case.name,
        state,
        neck_finest_level=2 + start,
        neck_extra_levels=made_of if extra else "none",
        neck_num_extra=extra or None,
        neck_extra_relu=options.get("relu_before_extra_convs", False),
        neck_norm_on_lateral=not options.get("no_norm_on_lateral", False),
        neck_relu="act_cfg" in options,
    )
    maps = run(imported.module, dict(zip(["c2", "c3", "c4", "c5"], inputs(case), strict=True)))
    names = [name for name in case.arrays if name.rpartition("_")[0] == variant]
    assert len(names) == len(maps) == options["num_outs"]
    for name, found in zip(names, maps, strict=True):
        assert_map(case, name, found)


FUSIONS = {"fastattn": "fast", "attn": "softmax", "sum": "sum"}


@pytest.mark.parametrize("name", ["bifpn_1", "bifpn_2_odd_sizes"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_efficientdet_bifpn(name, fusion):
    case = family_case(name)
    meta = case.meta
    state = made(case, listed(meta["names"][fusion]), meta["factors"][fusion], meta["weights_sha256"][fusion])
    imported = import_file(case.name, state, neck_fusion=FUSIONS[fusion])
    neck = imported.module
    assert all(each.endswith("num_batches_tracked") for each in imported.leftover)
    assert len(neck.cells) == meta["config"]["fpn_cell_repeats"]
    first: list[torch.Tensor] = []
    neck.cells[0].register_forward_hook(lambda _module, got, out: first.extend([*got[0], *out]))
    levels = [level.name for level in neck.levels]
    for level, found in zip(levels, run(neck, given(case)), strict=True):
        assert_map(case, f"{fusion}_{level}", found)
    for level, found in zip(levels, first[len(levels) :], strict=True):
        assert_map(case, f"{fusion}_cell0_{level}", found)
    for level, found in list(zip(levels, first, strict=False))[3:]:
        assert_map(case, f"in_{level}", found)


def test_efficientdet_anchors_whose_sides_are_rounded_factors():
    case = family_case("bifpn_3_anchors")
    meta = case.meta
    state = made(
        family_case("bifpn_1"),
        listed("names/effdet_d0_bifpn.json"),
        [],
        family_case("bifpn_1").meta["weights_sha256"]["fastattn"],
    )
    config = import_weights(state).dialect.anchors
    assert len(config.sizes[0]) == meta["num_scales"]
    height, width = meta["image_size"]
    levels = [Level(f"p{k}", 1, 2**k, k) for k in range(3, 8)]
    sizes = [Size(-(-height // level.stride), -(-width // level.stride)) for level in levels]
    grids = AnchorGenerator(config=config).grids(levels, sizes, Size(height, width), torch.device("cpu"))
    found = torch.cat(grids)[:, [1, 0, 3, 2]].numpy()
    assert_near(case.stored_part("anchors", found), case["anchors"], BOX_TOLERANCE)
    assert_near(found[: len(case["first18"])], case["first18"], BOX_TOLERANCE)


def test_vitdet_simple_pyramid():
    case = family_case("d2_20_simple_pyramid")
    state = {name: value for name, value in weights_of(case).items() if name.startswith("simfp_")}
    maps = run_named(import_file(case.name, state).module, {"c4": torch.from_numpy(case["last_feat"])})
    assert list(maps) == [name for name in case.arrays if re.fullmatch(r"p\d", name)]
    for name, found in maps.items():
        assert_map(case, name, found)


def test_vitdet_from_pixels_to_levels():
    case = family_case("d2_20_simple_pyramid")
    imported = import_weights(weights_of(case))
    assert (imported.leftover, imported.remarks) == ((), ())
    backbone = imported.module.backbone
    seen: Features = {}
    backbone.patches.register_forward_hook(lambda _m, _i, out: seen.update(patch_tokens=out.permute(0, 2, 3, 1)))
    backbone.positions.register_forward_hook(lambda _m, given, out: seen.update(abs_pos=out - given[0]))
    backbone.blocks[0].register_forward_hook(lambda _m, _i, out: seen.update(block0=out))
    backbone.register_forward_hook(lambda _m, _i, out: seen.update(last_feat=out["c4"]))
    maps = run_named(imported.module, torch.from_numpy(case.input()))
    for name in case.arrays:
        assert_map(case, name, (seen | maps)[name])
