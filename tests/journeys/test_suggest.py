from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell import Shell
from written_sets import write_coco


def photos(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return folder


def test_chosen_images_come_with_reasons_and_drafts_that_check_reads(fpn: Shell, model: Path, tmp_path: Path) -> None:
    folder, out = photos(tmp_path / "in"), tmp_path / "out"
    ended = fpn("suggest", model, folder, "--count", 2, "--output", out, "--score", 0.2)
    assert (ended.status, ended.err) == (0, "")
    assert "chosen of 3 images" in ended.out
    ranking = json.loads((out / "suggestions.json").read_text())
    assert (len(ranking["chosen"]), len(ranking["others"])) == (2, 1)
    assert sorted(path.name for path in (out / "prelabels/images").iterdir()) == sorted(
        each["file_name"] for each in ranking["chosen"]
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert fpn("check", out / "prelabels").status == 0


def test_images_like_labelled_ones_are_not_chosen(fpn: Shell, model: Path, tmp_path: Path) -> None:
    labelled = write_coco(tmp_path / "labelled")
    folder = photos(tmp_path / "in", 1)
    (folder / "again.png").write_bytes((labelled / "images" / "a.png").read_bytes())
    ended = fpn("suggest", model, folder, "--labelled", labelled, "--output", tmp_path / "out", "--to", "yolo")
    assert ended.status == 0
    assert "labelled so far: 1 bolt, 1 nut, 1 washer" in ended.out
    assert "1 image chosen, not 20" in ended.err
    ranking = json.loads((tmp_path / "out" / "suggestions.json").read_text())
    assert ranking["aside"] == {"again.png": "shows what a.png shows, which is labelled"}


def test_an_unreadable_image_is_named_and_the_status_says_so(fpn: Shell, model: Path, tmp_path: Path) -> None:
    folder = photos(tmp_path / "in", 1)
    (folder / "text.jpg").write_text("cats")
    ended = fpn("suggest", model, folder, "--count", 1, "--output", tmp_path / "out", "--to", "label-studio")
    assert ended.status == 1
    assert "text.jpg: not an image" in ended.err
    (task,) = json.loads((tmp_path / "out/prelabels/label_studio.json").read_text())
    assert task["data"]["image"] == "/data/local-files/?d=0.png"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "no image in this folder"),
        (("--score", "calibrated"), "no thresholds yet"),
        (("--labelled", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    fpn: Shell, model: Path, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    folder = photos(tmp_path / "in", 1 if options else 0)
    assert message in fpn.fails("suggest", model, folder, *options, "--output", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_nothing_is_written_over(fpn: Shell, model: Path, tmp_path: Path) -> None:
    folder = photos(tmp_path / "in", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("labels")
    assert "is already there" in fpn.fails("suggest", model, folder, "--output", tmp_path / "out")


def test_no_image_that_can_be_read_leaves_nothing_but_a_message(fpn: Shell, model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.jpg").write_text("cats")
    message = fpn.fails("suggest", model, tmp_path / "in", "--output", tmp_path / "out")
    assert "none of 1 images can be read" in message
    assert not (tmp_path / "out").exists()
