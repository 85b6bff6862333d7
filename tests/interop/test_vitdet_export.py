"""ViTDet back to Detectron2: names and bytes as they came, a LazyConfig that says the same settings, and refusals."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import fpn
from fpn.detectors.presets import DIALECTS_OF
from fpn.detectors.recipe import RECIPES
from fpn.errors import ConfigError
from fpn.interop import assemble, import_weights
from fpn.interop.exporting import export_weights
from fpn.interop.importing import require_detector
from fpn.interop.key_rules import inverted, new_name
from fpn.interop.vitdet_export import describe_vitdet, name_for_vitdet

from .test_vitdet import PUBLISHED, SMALL, heads, meta, pyramid, transformer, whole

SQUARE = {**SMALL, "short_side": 64, "long_side": 64, "pixels_size_multiple": 64}


def checkpoint(*, cascade: bool, masks: bool) -> dict[str, Tensor]:
    """Whole; the row of the class token, which is not kept, comes back as zeros."""
    state = {name: value for name, value in whole(cascade=cascade).items() if masks or "mask_" not in name}
    state["backbone.net.pos_embed"][:, 0] = 0
    return state


@pytest.mark.parametrize(("cascade", "masks"), [(False, True), (True, False)], ids=["mask", "cascade"])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_it_comes_back_to_the_byte_and_finds_the_same(cascade: bool, masks: bool, ending: str, tmp_path: Path) -> None:
    state = checkpoint(cascade=cascade, masks=masks)
    detector = require_detector(import_weights(state, **SQUARE), "tiny")
    path = tmp_path / f"a{ending}"
    export_weights(detector, path, format="detectron2")
    written = torch.load(path, weights_only=True) if ending == ".pth" else load_file(path)
    assert written.keys() == state.keys()
    for name, value in state.items():
        assert (written[name].dtype, written[name].shape) == (value.dtype, value.shape), name
        assert written[name].numpy().tobytes() == value.numpy().tobytes(), name
    again = require_detector(import_weights(written, **SQUARE), "tiny")
    image = np.random.default_rng(0).integers(0, 256, (45, 83, 3), dtype=np.uint8)
    (found,), (wanted,) = again.predict([image]), detector.predict([image])
    assert len(found) == 5
    assert torch.equal(found.boxes, wanted.boxes)
    assert found.masks == wanted.masks


@pytest.mark.parametrize("cascade", [False, True], ids=["mask", "cascade"])
def test_all_names_and_shapes_of_the_published_sizes_come_back(cascade: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    width, depth, count, drop_path = PUBLISHED["large"]
    rows = tuple(127 if 4 * (k + 1) % depth == 0 else 27 for k in range(depth))
    names = transformer(rows, 197, width, count) | pyramid(width) | heads(cascade=cascade)
    taken: dict[str, Tensor] = {}
    monkeypatch.setattr(assemble, "fill_module", lambda _, state, toolkit: taken.update(state))
    with torch.device("meta"):
        recipe = require_detector(import_weights({"model": meta(names)}), "large").recipe
        found, left = name_for_vitdet(taken)
    text, unlike, _ = describe_vitdet(recipe)
    assert (left, unlike) == ([], [])
    assert {name: tuple(value.shape) for name, value in found.items()} == names
    assert text is not None
    net = updates(text)["model.backbone.net"]
    # As its mask_rcnn_vitdet_l_100ep.py has it: all but blocks 5, 11, 17 and 23.
    near = [*range(5), *range(6, 11), *range(12, 17), *range(18, 23)]
    assert (net["window_block_indexes"], net["drop_path_rate"]) == (near, drop_path)
    assert (net["img_size"], net["pretrain_img_size"], net["window_size"]) == (1024, 224, 14)


# --- the LazyConfig ---------------------------------------------------------------------------------------------------


def updates(text: str) -> dict[str, dict[str, object]]:
    """What is said by plain values in `place.update(name=value, ...)` and `place.name = value`."""
    told: dict[str, dict[str, object]] = {}
    for line in ast.parse(text).body:
        if isinstance(line, ast.Expr) and isinstance(line.value, ast.Call):
            place = ast.unparse(line.value.func).removesuffix(".update")
            plain = {each.arg: each.value for each in line.value.keywords if each.arg}
        elif isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Attribute):
            place = ast.unparse(line.targets[0].value)
            plain = {line.targets[0].attr: line.value}
        else:
            continue
        own = told.setdefault(place, {})
        for name, value in plain.items():
            try:
                own[name] = ast.literal_eval(value)
            except ValueError:
                own[name] = ast.unparse(value)
    return told


def recipe(kind: str = "mask_rcnn", **changed: object) -> fpn.Recipe:
    own = DIALECTS_OF[kind]["vitdet"]
    return RECIPES[kind](
        classes=("cat", "dog"),
        category_ids=(1, 2),
        backbone="vitdet",
        neck="simple_pyramid",
        dialect=own.changed(**changed),
    )


def config(kind: str = "mask_rcnn", **changed: object) -> dict[str, dict[str, object]]:
    text, unlike, _ = describe_vitdet(recipe(kind, **changed))
    assert text is not None
    assert unlike == []
    return updates(text)


def test_settings_are_where_detectron2_has_them() -> None:
    told = config(
        box={"score_limit": 0.2, "nms": 0.4, "limit": 7, "width": 512, "num_convolutions": 2},
        rpn={"before_nms": (900, 500), "nms": 0.6, "num_convolutions": 1},
        anchors={"sizes": ((8.0,), (16.0,), (32.0,), (64.0,), (128.0,))},
        mask={"class_agnostic": True, "convolutions": 3},
        pixels={"short_side": 512, "long_side": 768, "size_multiple": 768},
        neck={"norm": "group"},
    )
    assert told["model"]["pixel_std"] == [58.395, 57.12, 57.375]
    assert told["model.backbone"] == {"out_channels": 256, "norm": "GN", "square_pad": 768}
    assert told["model.proposal_generator.head"]["conv_dims"] == [-1]
    assert told["model.proposal_generator.anchor_generator"]["sizes"] == [[8.0], [16.0], [32.0], [64.0], [128.0]]
    assert told["model.proposal_generator"]["pre_nms_topk"] == (900, 500)
    assert told["model.proposal_generator"]["nms_thresh"] == 0.6
    box, predictor = told["model.roi_heads.box_head"], told["model.roi_heads.box_predictor"]
    assert (box["conv_dims"], box["fc_dims"], box["conv_norm"]) == ([256, 256], [512], "LN")
    assert (predictor["test_score_thresh"], predictor["test_nms_thresh"], predictor["test_topk_per_image"]) == (
        0.2,
        0.4,
        7,
    )
    mask = told["model.roi_heads.mask_head"]
    assert (mask["num_classes"], mask["conv_dims"], mask["conv_norm"]) == (1, [256] * 4, "LN")
    resize = told["dataloader.test.mapper"]["augmentations"]
    assert resize == "[L(T.ResizeShortestEdge)(short_edge_length=512, max_size=768)]"


def test_a_cascade_has_three_heads_and_a_detector_of_boxes_no_mask_head() -> None:
    told = config("cascade_rcnn")["model.roi_heads"]
    assert told["_target_"] == "CascadeROIHeads"
    assert "weights in ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))" in str(
        told["box_predictors"]
    )
    text, _, _ = describe_vitdet(recipe("faster_rcnn"))
    assert text is not None
    assert "for name in ('mask_in_features', 'mask_pooler', 'mask_head'):\n    model.roi_heads.pop(name)" in text
    assert "model.roi_heads.mask_head" not in updates(text)
    assert config("cascade_mask_rcnn")["model.roi_heads.mask_head"]["conv_dims"] == [256] * 5


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changed", "settings"),
    [
        ("mask_rcnn", {"pixels": {"size_multiple": 32}}, ["pixels.size_multiple"]),
        ("mask_rcnn", {"pixels": {"resize": "torch"}}, ["pixels.resize"]),
        ("mask_rcnn", {"neck": {"norm": "none"}}, ["neck.norm"]),
        ("mask_rcnn", {"neck": {"norm": "group", "output_channels": 48}}, ["neck.norm"]),
        ("mask_rcnn", {"mask": {"norm": "group", "channels": 40}}, ["mask.norm"]),
        ("faster_rcnn", {"rpn": {"min_size": None}}, ["rpn.min_size"]),
        ("mask_rcnn", {"box": {"suppression": "gaussian"}}, ["box.suppression"]),
        ("cascade_rcnn", {"box": {"class_agnostic": False}}, ["box.class_agnostic"]),
        ("cascade_mask_rcnn", {"cascade": {"mask_heads": "each_stage"}}, ["cascade.mask_heads"]),
    ],
    ids=["padding", "resize", "neck", "groups", "mask_groups", "small", "soft", "cascade", "masks"],
)
def test_what_detectron2_can_not_be_told_is_named(kind: str, changed: dict[str, object], settings: list[str]) -> None:
    _, unlike, _ = describe_vitdet(recipe(kind, **changed))
    assert [each.setting for each in unlike] == settings


def test_a_refusal_says_what_to_do(tmp_path: Path) -> None:
    detector = require_detector(import_weights(whole(), **SMALL), "tiny")
    told = (
        r"this mask_rcnn can't become Detectron2's ViTDet mask_rcnn, .*\n  pixels\.size_multiple is 32, there 96: "
        r"SimpleFeaturePyramid pads all images to one square[\s\S]*--dialect vitdet can\."
    )
    with pytest.raises(ConfigError, match=told):
        export_weights(detector, tmp_path / "a.pth", format="detectron2")
    assert list(tmp_path.iterdir()) == []


# --- rules turned round -----------------------------------------------------------------------------------------------


def test_rules_turn_round_with_groups_in_another_order_and_options_written() -> None:
    rules = ((r"(?:net\.)?a\.(\d+)\.b(\d)\.(.+)", r"x\2.y.\1.\3"), (r"skip\..*", None), (r"c\.(.+)", r"d.\1"))
    back = inverted(rules)
    assert new_name("a.12.b3.weight", rules) == "x3.y.12.weight"
    assert new_name("x3.y.12.weight", back) == "net.a.12.b3.weight"
    assert new_name("d.bias", back) == "c.bias"
    assert len(back) == 2
