"""Weights by their original names, the original's input, and every map of its backbone and pyramid."""

import pytest
import torch
from torch import Tensor

from fpn.interop import ImportedWeights
from fpn.structures import Features, Level
from parity.golden.cases import Case, cases, same_weights
from parity.golden.compare import assert_map
from parity.golden.files import import_file


def pixels_of(case: Case) -> Tensor:
    pixels = torch.from_numpy(case.input())
    return pixels.permute(0, 3, 1, 2).contiguous() if case.meta.get("layout") == "NHWC" else pixels


@torch.no_grad()
def run(module: torch.nn.Module, case: Case) -> Features:
    maps = module(pixels_of(case))
    if case.meta.get("layout") == "NHWC":
        return {name: value.permute(0, 2, 3, 1).contiguous() for name, value in maps.items()}
    return maps


def pyramid(case: Case, names: str, heads: tuple[str, ...], **conventions: str) -> ImportedWeights:
    """The backbone and pyramid of a detector's weights alone."""
    state = {name: value for name, value in same_weights(case, names).items() if not name.startswith(heads)}
    return import_file(case.name, state, **conventions)


def assert_maps(case: Case, maps: Features, theirs: dict[str, str]) -> None:
    for ours, name in theirs.items():
        assert_map(case, name, maps[ours])


@pytest.mark.parametrize("case", cases("minimal"), ids=lambda case: case.name)
def test_three_level_pyramid_whose_p1_is_our_p3(case):
    imported = import_file(case.name, same_weights(case, "minimal_fpn.json"))
    maps = run(imported.module, case)
    assert list(maps) == ["p1", "p2", "p3"]
    assert_maps(case, maps, {"p3": "p1", "p2": "p2", "p1": "p3"})
    assert imported.leftover == ("latlayer1.weight", "latlayer1.bias")


@pytest.mark.parametrize("case", cases("kuangliu"), ids=lambda case: case.name)
def test_pytorch_fpn(case):
    top_down = "bilinear_corners" if case.meta["upsample_align_corners"] else "bilinear"
    imported = import_file(case.name, same_weights(case, "kuangliu_fpn101.json"), neck_top_down=top_down)
    assert_maps(case, run(imported.module, case), {f"p{k}": f"p{k}" for k in (2, 3, 4, 5)})
    assert all(name.endswith("num_batches_tracked") for name in imported.leftover)


MATTERPORT_HEADS = ("rpn_", "mrcnn_")


@pytest.mark.parametrize("case", cases("mrcnn_1"), ids=lambda case: case.name)
def test_matterport(case):
    names = case.meta["names"].removeprefix("names/")
    imported = pyramid(case, names, MATTERPORT_HEADS)
    assert_maps(case, run(imported.module, case), {f"p{k}": f"P{k}" for k in (2, 3, 4, 5, 6)})
    if "C2" in case.arrays:
        assert_maps(case, run(imported.module.backbone, case), {f"c{k}": f"C{k}" for k in (2, 3, 4, 5)})
    assert imported.leftover == ()


@pytest.mark.parametrize("case", cases("d2_5"), ids=lambda case: case.name)
def test_detectron2(case):
    imported = pyramid(case, "d2_faster.json", ("proposal_generator.", "roi_heads."))
    assert_maps(case, run(imported.module, case), {f"p{k}": f"p{k}" for k in (2, 3, 4, 5, 6)})
    assert_maps(case, run(imported.module.backbone, case), {f"c{k}": f"res{k}" for k in (2, 3, 4, 5)})


FPN_PYTORCH_HEADS = ("RCNN_rpn", "RCNN_top.", "RCNN_cls", "RCNN_bbox")


@pytest.mark.parametrize("case", cases("fpnpt_a"), ids=lambda case: case.name)
def test_fpn_pytorch(case):
    names = "fpnpt_resnet101.json" if "_r101_" in case.name else "fpnpt_resnet50.json"
    imported = pyramid(case, names, FPN_PYTORCH_HEADS)
    assert imported.dialect.neck.top_down == "bilinear_corners"
    assert_maps(case, run(imported.module, case), {f"p{k}": f"ac1_p{k}" for k in (2, 3, 4, 5, 6)})
    assert_maps(case, run(imported.module.backbone, case), {f"c{k}": f"c{k}" for k in (2, 3, 4, 5)})
    # P5 and P6 have half the stride that their anchors are laid with.
    assert imported.module.levels[3:] == (Level("p5", 256, 16, 5), Level("p6", 256, 32, 6))
    assert "RCNN_roi_feat_ds.weight" in imported.leftover


@pytest.mark.parametrize("case", cases("fpnpt_a_pyramid_r50"), ids=lambda case: case.name)
def test_fpn_pytorch_as_torch_runs_it_from_0_4_on(case):
    imported = pyramid(case, "fpnpt_resnet50.json", FPN_PYTORCH_HEADS, neck_top_down="bilinear")
    assert_maps(case, run(imported.module, case), {f"p{k}": f"ac0_p{k}" for k in (2, 3, 4)})
