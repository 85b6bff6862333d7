from __future__ import annotations

from pathlib import Path

import pytest
from shell import Shell

from fpn.cli.complaints import of_file, of_options


@pytest.mark.parametrize(
    ("message", "words", "told"),
    [
        ("batch_size 0: at least 1", "--batch-size 0", "--batch-size 0: at least 1"),
        ("batch_size 0: at least 1", "--batch-size=0", "--batch-size 0: at least 1"),
        ("batch_size 0: at least 1", "--seed 0", "batch_size 0: at least 1"),
        ("tracker.0 'wandbb': wrong", "--tracker wandbb", "--tracker 'wandbb': wrong"),
        ("pixels.short_side -1: wrong", "--short-side -1", "--short-side -1: wrong"),
        ("anchors.sizes 0.0: wrong", "--anchor-sizes 0", "--anchor-sizes 0.0: wrong"),
        ("anchors.sizes has 2 entries", "--anchor-sizes 1 2", "--anchor-sizes has 2 entries"),
        ("output is full", "--seed 1", "output is full"),
        ("plan and find_lr: choose one", "--plan --find-lr", "--plan and --find-lr: choose one"),
        ("repeats 0, rois 2048: at least 1", "--repeats 0", "--repeats 0, rois 2048: at least 1"),
        ("rpn.nms 7: wrong", "--set rpn.nms=7", "--set rpn.nms 7: wrong"),
        ("unknown setting 'rpn.nsm'. Did you mean 'rpn.nms'?", "--set rpn.nsm=7", None),
        ("images/images: no images", "--images no", "images/images: no images"),
        ("no --output: name one", "--plan", "no --output: name one"),
    ],
)
def test_a_setting_is_named_as_it_was_typed(message: str, words: str, told: str | None) -> None:
    assert of_options(message, words.split()) == (told or f"--set: {message}")


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("epochs 0: wrong", "run.toml, line 1: epochs 0: wrong"),
        ("batch_size 0: wrong", "run.toml, line 2: batch_size 0: wrong"),
        ("anchors.sizes 0: wrong", "run.toml, line 3: anchors.sizes 0: wrong"),
        ("rpn.nms 7: wrong", "run.toml, line 5: rpn.nms 7: wrong"),
        ("unknown setting 'rpn.nms'.", "run.toml, line 5: unknown setting 'rpn.nms'."),
        ("seed 0: wrong", "run.toml: seed 0: wrong"),
    ],
)
def test_in_a_file_its_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, told: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text("epochs = 0\nbatch-size = 0\nanchor_sizes = [0]\n[rpn]\nnms = 7\n")
    names = ["epochs", "batch_size", "anchor_sizes", "set"]
    assert of_file(message, Path("run.toml"), names) == told


def test_what_is_found_later_names_the_line_too(fpn: Shell, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('epochs = 2\nbest = "ap_smal"\n')
    said = fpn.fails("train", tmp_path, "--config", tmp_path / "run.toml", "--output", tmp_path / "run")
    assert "run.toml, line 2: best 'ap_smal': no such metric." in said
