"""Detectron2's ViTDet: from the names and shapes of its files to a detector that goes on learning."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import fpn
from fpn.data.synthetic.scenes import SceneDataset
from fpn.detectors import Detector
from fpn.errors import ConfigError, ModelFileError
from fpn.interop import import_weights
from fpn.interop.importing import require_detector

WIDTH, HEADS, PYRAMID, CLASSES = 32, 2, 8, 3
# Rows of the tables of relative positions: windows of 3 tokens, and an image of 4 x 4 in every second block.
ROWS = (5, 7, 5, 7)


def normed(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    """A convolution of Detectron2's with a layer norm."""
    return {f"{name}.weight": shape, f"{name}.norm.weight": shape[:1], f"{name}.norm.bias": shape[:1]}


def layer(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def transformer(rows: tuple[int, ...], positions: int, width: int = WIDTH, heads: int = HEADS) -> dict[str, tuple]:
    """Of its ViT, in the order of its file; rows of 0: no relative positions."""
    names = {"pos_embed": (1, positions, width), **layer("patch_embed.proj", width, 3, 16, 16)}
    for number, count in enumerate(rows):
        block = f"blocks.{number}"
        names |= layer(f"{block}.norm1", width)
        if count:
            names |= {f"{block}.attn.rel_pos_{axis}": (count, width // heads) for axis in "hw"}
        names |= layer(f"{block}.attn.qkv", 3 * width, width) | layer(f"{block}.attn.proj", width, width)
        names |= layer(f"{block}.norm2", width) | layer(f"{block}.mlp.fc1", 4 * width, width)
        names |= layer(f"{block}.mlp.fc2", width, 4 * width)
    return {f"backbone.net.{name}": shape for name, shape in names.items()}


def pyramid(width: int = WIDTH) -> dict[str, tuple[int, ...]]:
    """Of its SimpleFeaturePyramid. A transposed convolution has its inputs first, and as many biases as outputs."""
    half, quarter = width // 2, width // 4
    names = {"simfp_2.0.weight": (width, half, 2, 2), "simfp_2.0.bias": (half,), **layer("simfp_2.1", half)}
    names |= {"simfp_2.3.weight": (half, quarter, 2, 2), "simfp_2.3.bias": (quarter,)}
    names |= {"simfp_3.0.weight": (width, half, 2, 2), "simfp_3.0.bias": (half,)}
    for level, place, inputs in ((2, 4, quarter), (3, 1, half), (4, 0, width), (5, 1, width)):
        names |= normed(f"simfp_{level}.{place}", PYRAMID, inputs, 1, 1)
        names |= normed(f"simfp_{level}.{place + 1}", PYRAMID, PYRAMID, 3, 3)
    return {f"backbone.{name}": shape for name, shape in names.items()}


def heads(*, cascade: bool = False, classes: int = CLASSES) -> dict[str, tuple[int, ...]]:
    """Of Mask R-CNN as configs/common/models/mask_rcnn_vitdet.py has it, or the cascade's; narrower."""
    rpn, width = "proposal_generator.rpn_head", 16
    names = layer(f"{rpn}.conv.conv0", PYRAMID, PYRAMID, 3, 3) | layer(f"{rpn}.conv.conv1", PYRAMID, PYRAMID, 3, 3)
    names |= layer(f"{rpn}.objectness_logits", 3, PYRAMID, 1, 1) | layer(f"{rpn}.anchor_deltas", 12, PYRAMID, 1, 1)
    for stage in (".0", ".1", ".2") if cascade else ("",):
        box = f"roi_heads.box_head{stage}"
        for number in range(4):
            names |= normed(f"{box}.conv{number + 1}", PYRAMID, PYRAMID, 3, 3)
        names |= layer(f"{box}.fc1", width, PYRAMID * 49)
        names |= layer(f"roi_heads.box_predictor{stage}.cls_score", classes + 1, width)
        names |= layer(f"roi_heads.box_predictor{stage}.bbox_pred", 4 if cascade else 4 * classes, width)
    for number in range(4):
        names |= normed(f"roi_heads.mask_head.mask_fcn{number + 1}", PYRAMID, PYRAMID, 3, 3)
    names |= layer("roi_heads.mask_head.deconv", PYRAMID, PYRAMID, 2, 2)
    return names | layer("roi_heads.mask_head.predictor", classes, PYRAMID, 1, 1)


def numbers(names: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in names.items()}
    return {name: value + (re.search(r"norm\d?\.weight", name) is not None) for name, value in state.items()}


def whole(rows: tuple[int, ...] = ROWS, positions: int = 10, *, cascade: bool = False) -> dict[str, Tensor]:
    return numbers(transformer(rows, positions) | pyramid() | heads(cascade=cascade))


# --- what is recognised -----------------------------------------------------------------------------------------------


def meta(names: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Shapes without memory."""
    with torch.device("meta"):
        return {f"model.{name}": torch.empty(shape) for name, shape in names.items()}


PUBLISHED = {"base": (768, 12, 12, 0.1), "large": (1024, 24, 16, 0.4), "huge": (1280, 32, 16, 0.5)}


@pytest.mark.parametrize("size", PUBLISHED)
@pytest.mark.parametrize("cascade", [False, True], ids=["mask", "cascade"])
def test_the_published_sizes_are_told_and_nothing_is_left_over(size: str, cascade: bool) -> None:
    width, depth, count, drop_path = PUBLISHED[size]
    rows = [127 if 4 * (k + 1) % depth == 0 else 27 for k in range(depth)]
    names = transformer(tuple(rows), 197, width, count) | pyramid(width) | heads(cascade=cascade)
    with torch.device("meta"):
        imported = import_weights({"model": meta(names), "__author__": "Detectron2"})
    recipe = require_detector(imported, size).recipe
    assert (imported.toolkit, imported.leftover, imported.missing, imported.remarks) == ("Detectron2", (), (), ())
    assert (recipe.kind, recipe.backbone, recipe.neck) == (
        "cascade_mask_rcnn" if cascade else "mask_rcnn",
        "vitdet",
        "simple_pyramid",
    )
    vit = recipe.dialect.backbone.vit
    assert (vit.width, vit.depth, vit.heads, vit.drop_path) == (width, depth, count, drop_path)
    assert (vit.window, vit.position_grid, vit.relative_grid, vit.global_blocks) == (14, 14, 64, None)
    assert recipe.frozen_stages == 0
    told = {finding.setting for finding in imported.findings}
    assert {name for name in told if name.startswith("backbone")} == (
        set() if size == "base" else {f"backbone.vit.{each}" for each in ("width", "depth", "heads", "drop_path")}
    )
    assert {"pixels.size_multiple", "backbone.vit.drop_path"} - told <= {each.setting for each in imported.assumed}
    assert (recipe.dialect.box.norm, recipe.dialect.mask.norm, recipe.dialect.rpn.num_convolutions) == (
        "layer",
        "layer",
        2,
    )


def vit_of(state: dict[str, Tensor], **conventions: object) -> tuple[object, tuple[str, ...]]:
    imported = import_weights(state, **conventions)
    return imported.dialect.backbone.vit, imported.remarks


def test_blocks_with_longer_tables_look_at_the_whole_image() -> None:
    vit, remarks = vit_of(numbers(transformer((5, 5, 9), 9) | pyramid()))
    assert (vit.window, vit.relative_grid, vit.global_blocks, vit.position_grid) == (3, 5, (2,), 3)
    assert remarks == ()


def test_what_tables_of_one_length_do_not_tell_is_said() -> None:
    vit, remarks = vit_of(numbers(transformer((27, 27, 27, 27), 9) | pyramid()))
    assert (vit.window, vit.relative_grid, vit.global_blocks) == (14, 14, None)
    assert remarks[0].startswith("relative positions of all blocks are made for 14 tokens, so none tells")
    vit, remarks = vit_of(numbers(transformer((9, 9), 9) | pyramid()))
    assert (vit.relative_grid, vit.global_blocks) == (5, (0, 1))
    assert "all do (--set backbone.vit.global_blocks says otherwise)" in remarks[0]
    vit, _ = vit_of(numbers(transformer((9, 9), 9) | pyramid()), backbone_vit_global_blocks=(1,), backbone_vit_window=5)
    assert (vit.window, vit.global_blocks) == (5, (1,))


def test_without_relative_positions_heads_are_said_to_be_a_guess() -> None:
    vit, remarks = vit_of(numbers(transformer((0, 0), 9, 128, 2) | pyramid(128)))
    assert (vit.relative_positions, vit.heads, vit.window, vit.global_blocks) == (False, 2, 14, None)
    assert "no weight tells heads and windows: 2 heads" in remarks[0]


def test_a_class_tokens_position_is_left_aside() -> None:
    state = numbers(transformer(ROWS, 10) | pyramid())
    table = import_weights(state).module.backbone.positions.table
    assert torch.equal(table.reshape(1, 9, WIDTH), state["backbone.net.pos_embed"][:, 1:])
    bare = {**state, "backbone.net.pos_embed": state["backbone.net.pos_embed"][:, 1:]}
    assert torch.equal(import_weights(bare).module.backbone.positions.table, table)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone.net.blocks.1.residual.conv1.weight": (16, WIDTH, 1, 1)}, r"blocks\.1\.residual.*no place here"),
        (
            {"roi_heads.box_predictor.cls_score.weight": (1204, 16)},
            "1203 classes: its configs of LVIS score .* sigmoid",
        ),
        ({"backbone.net.pos_embed": (1, 12, WIDTH)}, "pos_embed has 12 positions, which is no square"),
        ({"backbone.net.blocks.3.mlp.fc1.weight": (64, WIDTH)}, r"blocks\.3\.mlp\.0\.weight has shape \(64, 32\)"),
        ({"backbone.net.blocks.2.attn.qkv.weight": None}, r"nothing for features\.backbone\.blocks\.2\.attention\.qkv"),
        ({"backbone.net.patch_embed.proj.weight": (WIDTH, 3, 14, 14)}, r"patches\.weight has shape \(32, 3, 14, 14\)"),
        ({"backbone.net.patch_embed.proj.weight": None}, "one is missing or has another shape"),
        ({"backbone.simfp_4.0.weight": None}, "one is missing or has another shape"),
        ({"backbone.net.blocks.1.attn.rel_pos_w": (9, 16)}, r"blocks\.1\.attention\.columns has shape \(9, 16\)"),
        ({"backbone.net.norm.weight": (WIDTH,)}, r"1 names that have no place here: backbone\.net\.norm\.weight"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_other_transformers_and_files_that_are_not_whole_are_refused(
    changes: dict[str, tuple[int, ...] | None], message: str, tmp_path: Path
) -> None:
    state = whole()
    for name, shape in changes.items():
        state.pop(name, None)
        if shape is not None:
            state[name] = torch.zeros(shape)
    torch.save({"model": state}, tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match=rf"a\.pth: .*{message}"):
        import_weights(tmp_path / "a.pth")


def test_settings_of_another_backbone_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"backbone 'vitdet': of the settings backbone\.\* it has vit\.\* alone"):
        import_weights(whole(), backbone_stride_on="1x1")
    with pytest.raises(
        ConfigError, match=r"backbone 'resnet18': the settings backbone\.vit\.\* are of backbone vitdet"
    ):
        fpn.faster_rcnn(classes=["a"], backbone="resnet18", weights=None, backbone_vit_depth=3)
    with pytest.raises(ConfigError, match=r"asked for c2, c3, c4, c5.*use neck simple_pyramid"):
        fpn.faster_rcnn(classes=["a"], backbone="vitdet", weights=None)
    with pytest.raises(ConfigError, match="has no weights 'imagenet' to begin with"):
        fpn.faster_rcnn(classes=["a"], backbone="vitdet", neck="simple_pyramid")


# --- what it does afterwards ------------------------------------------------------------------------------------------

SMALL = {
    "short_side": 64,
    "long_side": 96,
    "pixels_size_multiple": 32,
    "rpn_before_nms": (50, 50),
    "rpn_after_nms": (20, 20),
    "box_sampling_count": 16,
    "box_score_limit": 0.0,
    "box_limit": 5,
}


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    detector = require_detector(import_weights(whole(cascade=True), **SMALL), "tiny")
    again = fpn.load(fpn.save(detector, tmp_path / "a.safetensors"), device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (45, 83, 3), dtype=np.uint8)
    (found,), (wanted,) = again.predict([image]), detector.predict([image])
    assert len(found) > 0
    assert torch.equal(found.boxes, wanted.boxes)
    assert found.masks == wanted.masks


class Scenes(SceneDataset):
    """Small ones, with as many classes as the weights have."""

    def __init__(self, detector: Detector) -> None:
        super().__init__(3, seed=1, height=64, width=(64, 96), objects=(1, 3), extent=(16.0, 48.0))
        self.classes = detector.classes

    def targets(self, index: int, *, masks: bool = False) -> fpn.structures.Targets:
        own = super().targets(index, masks=masks)
        return fpn.structures.Targets(own.boxes, own.labels % len(self.classes), masks=own.masks)


def test_three_steps_of_training_change_all_of_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector = require_detector(import_weights(whole(), **SMALL), "tiny")
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    config = fpn.TrainConfig(
        steps=3, batch_size=1, workers=0, warmup_steps=0, learning_rate=1e-3, ema_decay=0, device="cpu"
    )
    fpn.train(detector, Scenes(detector), config, output=tmp_path / "run", progress=False)
    after = detector.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    same = {name for name, value in after.items() if torch.equal(value, before[name])}
    assert not {name for name in same if name.startswith("features.")}
    again = fpn.load(tmp_path / "run" / "best.safetensors", device="cpu")
    assert all(torch.equal(value, after[name]) for name, value in again.state_dict().items())
