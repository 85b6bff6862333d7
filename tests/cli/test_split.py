from __future__ import annotations

from pathlib import Path

import pytest
from planted_faults import paint
from shell import Shell
from written_sets import Annotation, Shot, write_yolo

BOX = (4, 4, 24, 24)
SHOTS = tuple(
    Shot(f"{k}.png", 64, 48, (Annotation("bolt", BOX), Annotation("nut", BOX))[: 1 + k % 2]) for k in range(10)
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_yolo(tmp_path / "from", SHOTS)
    for number in range(10):
        paint(number).save(tmp_path / f"from/images/train/{number}.png")
    return tmp_path / "from"


def test_the_table_says_images_and_objects_of_each_class_in_each_part(fpn: Shell, tmp_path: Path, root: Path) -> None:
    ended = fpn("split", root, tmp_path / "to")
    assert ended.status == 0
    rows = [line.split() for line in ended.out.splitlines()]
    assert ["train", "val"] in rows
    assert ["images", "8", "80", "%", "2", "20", "%"] in rows
    assert ["objects", "12", "80", "%", "3", "20", "%"] in rows
    assert ["bolt", "8", "80", "%", "(8)", "2", "20", "%", "(2)"] in rows
    assert ["nut", "4", "80", "%", "(4)", "1", "20", "%", "(1)"] in rows
    assert f"{tmp_path / 'to'}: YOLO, 10 images, linked, which takes no space\n" in ended.out
    assert f"Next: fpn train {tmp_path / 'to'} --output NEW-FOLDER" in ended.out
    assert ended.err == ""


def test_options_of_the_command(fpn: Shell, tmp_path: Path, root: Path) -> None:
    words = ["--validation", 0, "--test", 0.3, "--to", "coco", "--copy", "--no-similar", "--by-group", r"(\d)\.png"]
    ended = fpn("split", root, tmp_path / "to", *words, "--seed", 4)
    assert "COCO, 10 images, copied\n" in ended.out
    assert "(there is no val to validate on)" in ended.out
    assert r"10 groups by '(\\d)\\.png'" in ended.err
    assert sorted(path.name for path in (tmp_path / "to/annotations").iterdir()) == [
        "instances_test.json",
        "instances_train.json",
    ]


def test_nothing_is_written_over(fpn: Shell, root: Path) -> None:
    assert "is already there. Name a new or empty folder" in fpn.fails("split", root, root)
