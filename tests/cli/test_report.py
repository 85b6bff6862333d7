from __future__ import annotations

import json
from pathlib import Path

import pytest
from shell import Shell
from written_sets import write_coco

import fpn
from fpn.structures import Classes


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Knows nut and bolt, of the dataset's nut, bolt and washer; a log of its training lies beside it."""
    detector = fpn.faster_rcnn(
        backbone="tf_efficientnet_lite0", weights=None, classes=Classes.of(["nut", "bolt"]), short_side=64,
        neck_channels=8, neck_output_channels=8, head_width=16, box_limit=10,
    )  # fmt: skip
    (tmp_path / "run").mkdir()
    lines = (json.dumps({"kind": "step", "step": step, "loss": 1 / step}) for step in (20, 40, 60))
    (tmp_path / "run/metrics.jsonl").write_text("\n".join(lines))
    return fpn.save(detector, tmp_path / "run/best.safetensors")


def test_a_report_of_a_model_file(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_coco(tmp_path / "data")
    ended = Shell(capsys)("report", model, data, "--output", tmp_path / "out", "--workers", 0, "--device", "cpu")
    assert ended.status == 0, ended
    assert f"report: {tmp_path / 'out/report.html'}" in ended.out.replace("\n", "")
    assert "does not know 'washer'" in ended.err
    figures = json.loads((tmp_path / "out/report.json").read_text())
    assert [each["step"] for each in figures["training"]["steps"]] == [20, 40, 60]
    assert figures["check"]["splits"] == {"all": {"images": 3, "objects": 3}}
    assert figures["budget"]["objects"] == 2
    names = {"report.html", "report.json", "figures.json", "figures.csv", "detections.json", "diagnosis.json"}
    assert names <= {path.name for path in (tmp_path / "out").iterdir()}


def test_what_it_cannot_do_is_said_before_it_works(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_coco(tmp_path / "data")
    fails = Shell(capsys).fails
    assert "is already there" in fails("report", model, data, "--output", data)
    assert "no such folder" in fails("report", model, data, "--output", tmp_path / "o", "--run-folder", tmp_path / "x")
    assert "is a folder" in fails("report", model.parent, data, "--output", tmp_path / "o")
    assert not (tmp_path / "o").exists()
