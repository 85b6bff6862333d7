from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from planted_faults import paint
from shell import Shell
from written_sets import Annotation, Shot, write_text, write_yolo

from fpn.cli.terminal import warnings_as_lines
from fpn.image_io import ImageWarning

from .test_held_out import SETTINGS

SHOTS = tuple(Shot(f"{k}.jpg", 64, 48, (Annotation("bolt", (4, 4, 24, 24)),)) for k in range(6))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six JPEGs without a size in their labels: number 2 is none, number 4 lacks its end."""
    write_yolo(tmp_path / "set", SHOTS)
    for number in range(6):
        paint(number).save(tmp_path / f"set/images/train/{number}.jpg")
    (tmp_path / "set/images/train/2.jpg").write_bytes(b"no image")
    whole = (tmp_path / "set/images/train/4.jpg").read_bytes()
    (tmp_path / "set/images/train/4.jpg").write_bytes(whole[:-20])
    return tmp_path / "set"


def test_images_that_can_not_be_read_stop_a_run_before_its_first_step_or_are_named(
    fpn: Shell, tmp_path: Path, root: Path
) -> None:
    words = ["train", root, "--config", write_text(tmp_path / "small.yaml", SETTINGS), "--output", tmp_path / "run"]
    words += ["--validation", root, "--check-images", "--no-aspect-grouping"]
    message = fpn.fails(*words)
    assert "2.jpg" in message
    assert not (tmp_path / "run").exists()

    with pytest.warns(ImageWarning) as told:
        ended = fpn(*words, "--skip-unreadable")
    assert ended.status == 0
    assert "1 image can't be read; left out:\n  " in ended.err
    assert "1 image cut short, and used: " in ended.err
    assert any("left out: " in str(each.message) and "2.jpg" in str(each.message) for each in told)
    assert "5 of 6 images can be decoded" in ended.out
    assert f"1 image can't be read; all are named in {tmp_path / 'run'}/run.json:\n  {root}" in ended.err
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert [Path(path).name for path in record["unreadable"]] == ["2.jpg"]

    evaluate = ["evaluate", tmp_path / "run/best.safetensors", root, "--workers", 0]
    assert "2.jpg" in fpn.fails(*evaluate)
    with pytest.warns(ImageWarning, match=r"4\.jpg"):
        ended = fpn(*evaluate, "--skip-unreadable", "--output", tmp_path / "figures.json")
    assert ended.status == 0
    assert "5 images, 5 objects, 1 image could not be read" in " ".join(ended.out.split())
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["images"], figures["objects"], len(figures["unreadable"])) == (5, 5, 1)


def test_a_run_that_stops_at_an_image_says_how_to_go_on_without_it(fpn: Shell, tmp_path: Path, root: Path) -> None:
    words = ["train", root, "--config", write_text(tmp_path / "small.yaml", SETTINGS), "--output", tmp_path / "run"]
    message = fpn.fails(*words, "--no-aspect-grouping")
    assert "2.jpg" in message
    assert "--skip-unreadable goes on without such images, also with --resume" in message


def test_warnings_of_python_are_one_line_without_the_code_they_come_from() -> None:
    with warnings_as_lines():
        assert warnings.formatwarning("a.jpg is cut short", UserWarning, "run.py", 1) == "warning: a.jpg is cut short\n"
    assert "run.py" in warnings.formatwarning("a.jpg is cut short", UserWarning, "run.py", 1)
