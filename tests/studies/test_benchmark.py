"""`fpn benchmark` on tiny images: both sides compute the same, and what is shown adds up."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import children
import pytest
import torch
from shell import Shell
from torch import nn

import fpn
from fpn.errors import ConfigError
from fpn.shapes import Size
from fpn.structures import Detections
from fpn.studies.benchmark import inference, pooling, running, training
from fpn.studies.benchmark.agreement import share_with_twin
from fpn.studies.benchmark.images import draw_noise, draw_truth, write_jpegs
from fpn.studies.benchmark.machine import matmul_rates
from fpn.studies.benchmark.memory import peak_mebibytes
from fpn.studies.benchmark.running import BenchmarkSettings, run_benchmark
from fpn.studies.benchmark.stages import STAGES, Stopwatch, watched
from fpn.studies.benchmark.torchvision_pair import Pair, build_pair
from fpn.studies.benchmark.training import make_losses
from fpn.studies.benchmark.turns import Side, in_turns

SIZE = Size(64, 96)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pair() -> Pair:
    return build_pair("resnet18", SIZE, num_classes=3)


@pytest.fixture
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """A usual product takes a second, which here nobody needs."""
    monkeypatch.setattr(running, "matmul_rates", lambda device: matmul_rates(device, side=64, repeats=1))


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return write_jpegs(draw_noise(1, SIZE), tmp_path)


def test_ways_take_turns_and_the_first_turn_does_not_count():
    said: list[str] = []
    sides = in_turns({"a": lambda: said.append("a"), "b": lambda: said.append("b")}, repeats=2)
    assert said == ["a", "b", "a", "b", "a", "b"]
    assert [len(side.wall) for side in sides.values()] == [2, 2]


def test_both_sides_find_the_same_with_any_backbone(pair, paths):
    assert pair.equal
    ours = inference.our_detections(pair.ours.eval(), paths)
    theirs = inference.their_detections(pair.theirs.eval(), paths)
    assert len(ours[0]) == len(theirs[0]["boxes"]) > 0
    assert share_with_twin(ours, theirs) == 1.0
    torch.testing.assert_close(ours[0].scores, theirs[0]["scores"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["retinanet", "fcos"])
def test_both_sides_of_a_dense_detector_learn_and_find_the_same(kind, paths, monkeypatch):
    # torchvision's FCOS takes the smaller of two objects by 1e8 - area, which in float32 is a multiple of eight.
    monkeypatch.setattr(training, "draw_truth", partial(draw_truth, objects=1 if kind == "fcos" else 12))
    pair = build_pair("resnet18", SIZE, kind=kind, num_classes=3)
    pair.theirs.train()
    with torch.no_grad():
        told = {name: float(loss()) for name, loss in make_losses(pair, SIZE, batch=1, precision="float32").items()}
    assert told["fpn"] == pytest.approx(told["torchvision"], rel=1e-4)
    pair.theirs.eval()
    found = inference.time_detection({"eager": pair.ours.eval()}, pair.theirs, paths, repeats=1, first_label=0)
    assert len(found.sides["torchvision"].outcome[0]["boxes"]) > 0
    assert found.agreement == {"eager": 1.0}
    for side in ("torchvision", "eager"):
        assert {stage for stage in STAGES if not found.stages[side][stage]} == {"rpn", "pooling"}
    assert found.gigaflops["heads"] > 0


@pytest.mark.parametrize("kind", ["mask_rcnn", "keypoint_rcnn"])
def test_both_sides_find_the_same_masks_and_keypoints(kind, paths):
    pair = build_pair("resnet18", SIZE, kind=kind, num_classes=3)
    pair.theirs.eval().roi_heads.detections_per_img = 3  # what they do for each is slow
    box = pair.ours.eval().roi_heads.box
    box.config = box.config.changed(limit=3)
    [theirs] = inference.their_detections(pair.theirs, paths)
    [ours] = inference.our_detections(pair.ours, paths)
    assert len(ours) == len(theirs["boxes"]) == 3
    assert share_with_twin([ours], [theirs], first_label=pair.first_label) == 1.0
    if kind == "mask_rcnn":
        told = (theirs["masks"][:, 0] >= 0.5).sum(dim=(1, 2))
        assert (ours.masks.areas() - told).abs().max() <= 3
    else:
        torch.testing.assert_close(ours.keypoints[..., :2], theirs["keypoints"][..., :2], rtol=0, atol=1e-2)


def test_what_is_learned_from_has_all_that_a_kind_takes():
    pair = Pair(fpn.mask_rcnn(backbone="resnet18", weights=None, classes=["a"], channels=8), torch.nn.Identity(), False)
    [truth] = draw_truth(1, SIZE, pair.ours, objects=2)
    told = training.their_targets(truth, pair)
    assert told["labels"].tolist() == [1, 1]
    # An ellipse fills pi / 4 of its box; these boxes are a few pixels large.
    sides = truth.boxes[:, 2:] - truth.boxes[:, :2]
    filled = told["masks"].sum(dim=(1, 2)) / sides.prod(dim=1)
    torch.testing.assert_close(filled, torch.full((2,), 0.785), rtol=0, atol=0.1)


def test_a_kind_that_torchvision_lacks_is_refused_and_so_is_a_part_that_a_kind_lacks():
    with pytest.raises(ConfigError, match="'cascade_rcnn': torchvision has none such"):
        BenchmarkSettings(detector="cascade_rcnn")
    with pytest.raises(ConfigError, match="head_width 512: fcos has no such part"):
        BenchmarkSettings(detector="fcos", head_width=512)
    assert not BenchmarkSettings(detector="fcos").pools


def test_other_widths_are_said_to_be_unequal():
    assert not build_pair("resnet18", SIZE, num_classes=3, channels=16, head_width=32).equal


def test_a_twin_has_the_same_class_and_place():
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    theirs = {"boxes": boxes, "labels": torch.tensor([1, 2]), "scores": torch.tensor([0.9, 0.8])}
    same = Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 1]))
    other_class = Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 0]))
    moved = Detections(boxes + 5, torch.tensor([0.9, 0.8]), torch.tensor([0, 1]))
    assert [share_with_twin([found], [theirs]) for found in (same, other_class, moved)] == [1.0, 0.5, 0.0]


def test_a_stage_within_another_counts_once(monkeypatch):
    clock = iter([0.0, 1.0, 3.0, 7.0])
    monkeypatch.setattr("fpn.studies.benchmark.stages.time.perf_counter", lambda: next(clock))
    watch = Stopwatch(CPU)
    with watch.stage("outer"), watch.stage("inner"):
        pass
    assert dict(watch.wall) == {"outer": 1.0 + 4.0, "inner": 2.0}


def test_watched_methods_are_as_before_afterwards():
    layer = nn.ReLU()
    watch = Stopwatch(CPU)
    with watched(watch, [(layer, "forward", "heads")]):
        layer(torch.zeros(1))
    assert watch.wall["heads"] > 0
    assert "forward" not in layer.__dict__


def test_a_convolutions_arithmetic_is_counted(pair, paths):
    counted = inference.count_gigaflops(pair.ours.eval(), paths)
    # The RPN, by hand: a 3x3 of 256 to 256, and 1x1 to 3 + 12, on 16x24, 8x12, 4x6, 2x3 and 1x2 cells.
    cells = 16 * 24 + 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2
    assert counted["rpn"] == pytest.approx(2 * cells * 256 * (9 * 256 + 15) / 1e9)
    assert counted["backbone"] > 0 < counted["pyramid"]


def test_pooling_that_differs_is_no_result(monkeypatch):
    rois = pooling.draw_rois(4)
    assert pooling.compare("forward", torch.float32, rois, channels=2, repeats=1).difference < 4e-5
    monkeypatch.setattr(pooling, "ours", lambda maps, rois: pooling.torchvisions(maps, rois) + 1)
    with pytest.raises(Exception, match="no answer"):
        pooling.compare("forward", torch.float32, rois, channels=2, repeats=1)


def test_peak_memory_is_that_of_the_work():
    """Linux counts pages a processor at a time, so a peak may be a fraction of a MiB off."""
    assert 255 < peak_mebibytes(CPU, children.take_memory, 256) < 320


def test_the_rate_of_a_matrix_product_is_positive():
    assert set(matmul_rates(CPU, side=64, repeats=1)) == {"float32", "bf16"}


def test_settings_that_measure_nothing_are_refused():
    with pytest.raises(ConfigError, match="repeats 0"):
        BenchmarkSettings(repeats=0)


def test_other_widths_than_torchvisions_can_be_timed_but_not_compared():
    with pytest.raises(ConfigError, match="channels 96"):
        BenchmarkSettings(channels=96)
    assert BenchmarkSettings(channels=96, head_width=512, parts=("training", "memory")).channels == 96


def test_the_report_has_a_row_for_each_work_and_each_stage(small_products):
    common = {"backbone": "resnet18", "size": SIZE, "repeats": 1, "classes": 3}
    report = run_benchmark(BenchmarkSettings(**common, parts=("inference",)))
    works = [row.work for row in report.rows]
    assert works[:2] == ["inference x1, eager", "inference x1, optimized, float32"]
    assert min(row.ratio for row in report.rows) > 0
    assert set(report.stages) == {"torchvision", list(report.stages)[-1]}
    assert min(report.stages["torchvision"][stage] for stage in ("backbone", "pooling", "nms")) > 0
    assert any("No GPU" in note for note in report.notes)
    # A step has 512 RoIs an image; in torchvision's own widths it takes seconds.
    narrow = run_benchmark(BenchmarkSettings(**common, parts=("training",), channels=32, head_width=32))
    assert any(row.work.startswith("training x1") for row in narrow.rows)
    assert min(row.ratio for row in narrow.rows) > 0


def test_what_has_no_room_leaves_a_note_and_the_rows_before_it(pair, small_products, monkeypatch):
    def crowded(ways, theirs, paths, **options):
        if len(paths) == 2:
            raise torch.OutOfMemoryError("no room for 2 images")
        sides = {name: Side(wall=[1.0], busy=[1.0]) for name in (*ways, "torchvision")}
        return inference.Inference(sides, dict.fromkeys(ways, 1.0))

    monkeypatch.setattr(running, "make_pair", lambda settings: pair)
    monkeypatch.setattr(running, "ways", lambda pair, settings: {"eager": pair.ours})
    monkeypatch.setattr(inference, "time_detection", crowded)
    report = run_benchmark(BenchmarkSettings(size=SIZE, repeats=1, parts=("inference",), batches=(1, 2)))
    assert [row.work for row in report.rows] == ["inference x1, eager"]
    assert "No rows of inference x2: it needs more than the GPU's memory." in report.notes


def test_the_command_prints_tables_of_80_columns_and_writes_json(
    small_products: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("COLUMNS", "80")
    ended = Shell(capsys)(
        "benchmark", "--parts", "pooling", "--rois", "8", "--repeats", "1", "--device", "cpu",
        "--output", str(tmp_path / "figures.json"),
    )  # fmt: skip
    assert ended.status == 0
    assert max(map(len, ended.out.splitlines()[:-1])) <= 80
    assert "pooling 8 RoIs, forward" in ended.out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["settings"]["rois"] == 8
    works = [row["work"] for row in figures["rows"]]
    pooled = [work.removeprefix("pooling 8 RoIs, ") for work in works if work.startswith("pooling 8 RoIs, ")]
    assert pooled == [
        f"{work}, {dtype}, {maps}"
        for dtype in ("float32", "bfloat16")
        for work in ("forward", "forward + backward")
        for maps in ("channels-last", "contiguous")
    ]
