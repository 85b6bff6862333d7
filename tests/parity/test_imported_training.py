"""What other toolkits' weights become can be trained: three steps, frozen parts left alone, saved, loaded, resumed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fpn
from fpn.data.synthetic.scenes import SceneDataset
from fpn.detectors import Detector
from fpn.detectors.builder import build_detector
from fpn.detectors.presets import DIALECTS_OF
from fpn.detectors.recipe import RECIPES, skeleton_fields
from fpn.interop import import_weights
from fpn.interop.detectron2_export import name_for_detectron2
from fpn.interop.importing import require_detector
from fpn.structures import Targets
from fpn.structures.keypoints import COCO_PERSON
from fpn.training.config import TrainConfig
from fpn.training.trainer import train

NAMES = Path(__file__).resolve().parents[3] / "shared" / "golden" / "names"
# Narrow, on a ResNet of two blocks a stage; FPN_ALL_IMPORTED=1 has every list of names beside the project, in minutes.
FEW = ("keypoint_rcnn", "retinanet")
LISTS = tuple(
    f"{kind}_{rest}"
    for kind, names in {
        "tv": "fasterrcnn_mobilenet_v3_large_fpn fasterrcnn_resnet50_fpn fasterrcnn_resnet50_fpn_v2 fcos_resnet50_fpn "
        "keypointrcnn_resnet50_fpn maskrcnn_resnet50_fpn maskrcnn_resnet50_fpn_v2 retinanet_resnet50_fpn "
        "retinanet_resnet50_fpn_v2",
        "d2": "faster mask keypoint cascade cascade_mask retinanet fcos new_baseline_mask",
        "mm": "faster_r50 faster_r50_caffe faster_r50_pafpn faster_x101_32x4d mask_r50 cascade_r50 cascade_mask_r50 "
        "retinanet_r50 retinanet_r101 fcos_r50_caffe fcos_r50_center atss_r50",
        "fpnpt": "resnet50",
        "matterport": "mrcnn_resnet50_h5",
    }.items()
    for rest in names.split()
)
NARROW = {"neck": {"channels": 16, "output_channels": 16}}
NARROW_HEADS = {"box": {"width": 16}}


class Labelled(SceneDataset):
    """Small scenes with a detector's classes, and keypoints in the middle of objects where it wants some."""

    def __init__(self, detector: Detector) -> None:
        super().__init__(3, seed=1, height=64, width=(64, 96), objects=(1, 3), extent=(16.0, 48.0))
        self.classes, self.skeleton = detector.classes, detector.skeleton

    def targets(self, index: int, *, masks: bool = False) -> Targets:
        own = super().targets(index, masks=masks)
        return Targets(own.boxes, own.labels % len(self.classes), masks=own.masks, keypoints=self._middles(own.boxes))

    def _middles(self, boxes: Tensor) -> Tensor | None:
        if self.skeleton is None:
            return None
        middle = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, torch.full((len(boxes), 1), 2.0)], dim=1)
        return middle[:, None].repeat(1, len(self.skeleton), 1)


def numbers(name: str, shape: tuple[int, ...]) -> Tensor:
    """Small enough that all maps and losses are finite."""
    leaf = name.removesuffix(":0").rpartition("/")[2].rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return torch.zeros((), dtype=torch.int64)
    if leaf in ("running_var", "moving_variance", "gamma") or (leaf in ("weight", "scale") and len(shape) == 1):
        return torch.empty(shape).uniform_(0.5, 0.7)
    if len(shape) > 1:
        fan = torch.Size(shape[:-1] if name.endswith(":0") else shape[1:]).numel()
        return torch.empty(shape).normal_(0, fan**-0.5)
    return torch.zeros(shape)


def of_list(name: str) -> dict[str, Tensor]:
    path = NAMES / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"needs ../shared/golden/names/{path.name}, which is not in this checkout")
    listed = json.loads(path.read_text())["entries"]
    entries = [(e[1], tuple(e[2])) if isinstance(e[1], str) else (e[0], tuple(e[1])) for e in listed]
    return {key: numbers(key, shape) for key, shape in entries}


def of_detectron2(kind: str) -> dict[str, Tensor]:
    """Narrow weights of a kind in Detectron2's names."""
    more = skeleton_fields(COCO_PERSON) if kind == "keypoint_rcnn" else {}
    heads: dict[str, Any] = {} if kind == "retinanet" else NARROW_HEADS
    if kind == "mask_rcnn":
        heads = {**heads, "mask": {"channels": 8}}
    if kind == "keypoint_rcnn":
        heads = {**heads, "keypoint": {"channels": 8, "convolutions": 2}}
    own = DIALECTS_OF[kind]["detectron2"].changed(**NARROW, **heads)
    names = ("one",) if kind == "keypoint_rcnn" else ("one", "two")
    recipe = RECIPES[kind](
        backbone="resnet26", classes=names, category_ids=tuple(range(len(names))), dialect=own, **more
    )
    state, left = name_for_detectron2(build_detector(recipe).state_dict(), recipe.dialect)
    assert not left
    return {name: numbers(name, tuple(value.shape)) for name, value in state.items()}


def read_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", LISTS if os.environ.get("FPN_ALL_IMPORTED") else FEW)
def test_an_imported_detector_is_trained_saved_loaded_and_gone_on_with(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = of_detectron2(name) if name in RECIPES else of_list(name)

    def imported() -> Detector:
        return require_detector(import_weights(state, short_side=64, long_side=96), name)

    detector = imported()
    data = Labelled(detector)
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    config = TrainConfig(steps=3, batch_size=1, workers=0, warmup_steps=0, learning_rate=1e-4, ema_decay=0)
    result = train(detector, data, config, output=tmp_path / "run", progress=False)
    assert result.steps == 3
    after = detector.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    net = "features.backbone.net."
    frozen = {key for key in after if key.startswith((f"{net}conv1.", f"{net}layer1.", f"{net}conv_stem."))}
    norms = {key for key in after if key.startswith(net) and ("running" in key or ".bn" in key)}
    assert frozen
    assert not changed & (frozen | norms)
    assert any(key.startswith((f"{net}layer4.", f"{net}blocks.5.")) for key in changed)
    assert any(key.startswith("features.neck.laterals.") for key in changed)
    assert any("bias" in key and not key.startswith("features.") for key in changed)
    assert all(torch.tensor(line["loss"]).isfinite() for line in read_lines(tmp_path) if "loss" in line)

    again = fpn.load(tmp_path / "run" / "best.safetensors", device="cpu")
    assert all(torch.equal(value, after[key]) for key, value in again.state_dict().items())
    fresh = imported()
    for weight in fresh.parameters():
        torch.nn.init.zeros_(weight)  # what it has afterwards is the checkpoint's
    longer = train(
        fresh,
        data,
        config.model_copy(update={"steps": 4}),
        resume=tmp_path / "run",
        allow_changes=True,
        progress=False,
    )
    assert longer.steps == 4
    ended = fresh.state_dict()
    assert all(value.isfinite().all() for value in ended.values())
    moved = {key for key, value in ended.items() if not torch.equal(value, after[key])}
    assert not moved & (frozen | norms)
    weights = moved & {key for key, _ in fresh.named_parameters()}
    assert weights
    assert all(float((ended[key] - after[key]).abs().max()) < 0.001 for key in weights)  # by one step of 0.0001
    assert [line["step"] for line in read_lines(tmp_path) if "loss" in line] == [3, 4]  # where a run or an epoch ends
