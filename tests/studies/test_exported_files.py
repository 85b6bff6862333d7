"""Files of one model, timed side by side."""

from __future__ import annotations

import json

import pytest

import fpn
from fpn.cli.app import run_command
from fpn.errors import ConfigError
from fpn.shapes import Size
from fpn.studies.benchmark import exported_files
from fpn.studies.benchmark.exported_files import compare_files


@pytest.fixture
def pair(small, tmp_path, monkeypatch):
    """The same model twice, and no torchvision: its detectors are 256 channels wide."""
    monkeypatch.setattr(exported_files, "_torchvision", lambda detector, size: (None, ("none here",)))
    monkeypatch.setattr(exported_files, "has_fast_bf16", lambda device: False)
    return [fpn.save(small, tmp_path / name) for name in ("a.safetensors", "b.safetensors")]


def test_each_file_gets_a_row_and_one_is_recommended(pair):
    report = compare_files(pair, size=Size(64, 96), batch=3, repeats=2)
    assert [row.name for row in report.rows] == [str(path) for path in pair]
    first, second = report.rows
    assert (first.ratio, first.agreement, first.their_ratio) == (1, 1, None)
    assert second.agreement == 1  # the same weights find the same
    assert second.ratio == pytest.approx(first.seconds / second.seconds)
    assert len(second.turns) == 2
    assert report.images == "4 drawn images 96x64"
    assert report.recommended == min(report.rows, key=lambda row: row.seconds).name
    told = report.table()
    assert [row[0] for row in told.rows] == [row.name for row in report.rows]
    assert f"Fastest here: {report.recommended}." in told.notes
    assert told.notes[-1] == "none here"


def test_where_the_processor_has_bf16_a_model_is_measured_in_it_too(pair, monkeypatch):
    monkeypatch.setattr(exported_files, "has_fast_bf16", lambda device: True)
    report = compare_files(pair[:1], size=Size(64, 96), repeats=1)
    assert [row.name for row in report.rows] == [str(pair[0]), f"{pair[0]} --precision bf16"]
    assert [row.works.split()[0] for row in report.rows] == ["float32", "bf16"]


def test_the_command_writes_figures_and_refuses_what_says_another_detector(pair, tmp_path, capsys):
    words = ["benchmark", "--exported", *map(str, pair), "--size", "64x48", "--repeats", "1"]
    assert run_command([*words, "--output", str(tmp_path / "a.json")]) == 0
    assert "Exported files" in capsys.readouterr().out
    figures = json.loads((tmp_path / "a.json").read_text())
    assert [row["name"] for row in figures["rows"]] == [str(path) for path in pair]
    assert (tmp_path / "a.csv").read_text().count("safetensors") == 2
    assert run_command([*words, "--backbone", "resnet18"]) == 1
    assert "the files say which detector it is" in capsys.readouterr().err


def test_files_of_two_models_are_refused(small, pair, tmp_path):
    with pytest.raises(ConfigError, match="repeats 0"):
        compare_files(pair, repeats=0)
    other = fpn.fcos(
        backbone="tf_efficientnet_lite0", weights=None, classes=["cell"], neck_channels=8, neck_output_channels=8
    )
    with pytest.raises(ConfigError, match=r"a fcos of 1 classes, .* a faster_rcnn of 2.*: name files of one model"):
        compare_files([pair[0], fpn.save(other, tmp_path / "other.safetensors")])
