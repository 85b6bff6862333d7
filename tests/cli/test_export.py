"""`fpn export`: what goes to another toolkit, what stands in its way, and what it is told."""

import pytest
import torch

import fpn
from fpn.cli.app import run_command


def test_a_model_is_written_compared_live_and_its_call_is_printed(tmp_path, capsys, monkeypatch):
    torch.manual_seed(0)
    detector = fpn.faster_rcnn(
        classes=["cat", "dog"],
        weights=None,
        dialect="torchvision",
        short_side=64,
        long_side=96,
        box_score_limit=0.2,
        rpn_after_nms=(50, 50),
    ).eval()
    monkeypatch.setattr("fpn.detectors.load", lambda *_, **__: detector)
    output = tmp_path / "cells.pth"
    (tmp_path / "model.safetensors").touch()
    words = ["export", str(tmp_path / "model.safetensors"), "--format", "torchvision", "--output", str(output)]
    assert run_command(words) == 0
    said = capsys.readouterr().out
    assert f"# {output}: 348 arrays for torchvision's fasterrcnn_resnet50_fpn" in said
    assert "# compared with torchvision on 3 images (320x240, 200x333, 416x416): " in said
    assert "    num_classes=3,\n    min_size=64,\n    max_size=96,\n    box_score_thresh=0.2," in said
    assert "# labels: 1 'cat', 2 'dog'; 0 is background" in said
    compile(said, "cells.py", "exec")  # all that is printed is Python
    output.write_bytes(b"mine")
    assert run_command(words) == 1
    assert "is already there" in capsys.readouterr().err
    assert output.read_bytes() == b"mine"


def test_what_the_other_side_has_not_is_named_before_anything_is_written(small, tmp_path, capsys):
    model = fpn.save(small, tmp_path / "small.safetensors")
    output = tmp_path / "out.safetensors"
    assert run_command(["export", str(model), "--format", "detectron2", "--output", str(output)]) == 1
    said = capsys.readouterr().err
    assert "this faster_rcnn can't become Detectron2's faster_rcnn" in said
    assert "  backbone is " in said
    assert not output.exists()


@pytest.mark.parametrize("words", [["--format", "onnyx"], []])
def test_an_unknown_format_is_a_misuse(words, tmp_path, capsys):
    assert run_command(["export", "a.safetensors", "--output", str(tmp_path / "a.pth"), *words]) == 2
    assert "--format" in capsys.readouterr().err
