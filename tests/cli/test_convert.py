from __future__ import annotations

from pathlib import Path

import pytest
from shell import Shell
from written_sets import Annotation, Shot, save_image, write_coco, write_text, write_voc

from fpn.data.formats.open import open_dataset


def test_splits_and_losses_are_told(fpn: Shell, tmp_path: Path) -> None:
    root = write_coco(tmp_path / "from")
    ended = fpn("convert", root, tmp_path / "to", "--to", "voc")
    assert ended.status == 0
    assert ended.out == f"{tmp_path / 'to'}: VOC, images: all 3\n"
    assert "warning: not kept: VOC has no category ids" in ended.err
    assert len(open_dataset(tmp_path / "to")) == 3


def test_where_nothing_is_lost_that_is_told(fpn: Shell, tmp_path: Path) -> None:
    ended = fpn("convert", write_voc(tmp_path / "from"), tmp_path / "to", "--to", "coco")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.endswith("COCO, images: all 3\nNothing was lost.\n")


def test_one_split(fpn: Shell, tmp_path: Path) -> None:
    root = write_voc(tmp_path / "from")
    for split, names in {"train": "a\nb\n", "test": "c\n"}.items():
        write_text(root / f"ImageSets/Main/{split}.txt", names)
    ended = fpn("convert", root, tmp_path / "to", "--to", "yolo", "--split", "test")
    assert "YOLO, images: test 1\n" in ended.out


def test_renamed_images_are_told(fpn: Shell, tmp_path: Path) -> None:
    for folder in ("left", "right"):
        save_image(tmp_path / "from/images" / folder / "a.png", 40, 30)
        write_text(tmp_path / "from/labels" / folder / "a.txt", "0 0.5 0.5 0.25 0.5\n")
    ended = fpn("convert", tmp_path / "from", tmp_path / "to", "--to", "coco")
    assert "2 images renamed so that lists can hold their names and no two share one, such as" in ended.err
    assert "images/left/a.png: now left_a.png" in ended.err


def test_broken_data_stop_with_the_way_to_repair_it(fpn: Shell, tmp_path: Path) -> None:
    root = write_voc(tmp_path / "from", (Shot("a.png", 50, 40, (Annotation("nut", (5, 5, 5, 9)),)),))
    message = fpn.fails("convert", root, tmp_path / "to", "--to", "coco")
    assert "object 1 (nut) has box (5, 5, 5, 9): width 0" in message
    assert "--fix OUT" in message
    assert not (tmp_path / "to").exists()


def test_nothing_is_written_over(fpn: Shell, tmp_path: Path) -> None:
    root = write_voc(tmp_path / "from")
    before = sorted(path.name for path in root.rglob("*"))
    assert "is already there. Name a new or empty folder" in fpn.fails("convert", root, root, "--to", "coco")
    assert sorted(path.name for path in root.rglob("*")) == before


@pytest.mark.parametrize("words", [["--to", "kitti"], []])
def test_an_unknown_or_no_format_is_refused(fpn: Shell, tmp_path: Path, words: list[str]) -> None:
    root = write_voc(tmp_path / "from")
    assert fpn("convert", root, tmp_path / "to", *words).status == 2
    assert not (tmp_path / "to").exists()
