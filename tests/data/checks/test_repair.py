from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from planted_faults import BAD, Planted, paint
from written_sets import SHOTS, Annotation, Shot, write_text, write_voc, write_yolo

from fpn.data.checks.inspection import check
from fpn.data.checks.repair import repair
from fpn.data.formats.open import open_dataset
from fpn.data.issues import KINDS
from fpn.errors import DataError, OutputError
from fpn.ops.run_lengths import text_of_counts


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def repaired(root: Path, output: Path) -> list[str]:
    """Repair a dataset; its own files must stay, and the copy must pass a check and open."""
    before = files(root)
    changes = repair(check(root), output)
    assert files(root) == before
    assert (output / "CHANGES.txt").read_text().splitlines() == (changes or ["nothing"])
    assert check(output).passed
    return changes


def boxes(output: Path, row: int, split: str | None = None) -> list[list[float]]:
    found: list[list[float]] = open_dataset(output, split=split).targets(row).boxes.tolist()
    return found


def test_thirty_faults_at_once_are_repaired_or_left_out(tmp_path: Path) -> None:
    planted = Planted(tmp_path / "set")
    planted.save()
    for spoil, _, _ in BAD:
        spoil(planted)
    changes = repaired(planted.save(), tmp_path / "out")
    left = {finding.kind for finding in check(tmp_path / "out").findings}
    mended = {kind for _, kind, _ in BAD if KINDS[kind].repair} - {"class-broken"}
    assert not left & mended
    for said in (
        "left out: images/p00.png does not exist",
        "images/p03.png: boxes turned to 48 x 64",
        "images/p04.png: boxes scaled to 32 x 24",
        "annotations/instances_train.json: annotation id 27 of images/p13.png (bolt): a polygon has 7 numbers",
        "images/p14.png: taken out of train, it is in val",
        "images/p17.png: left out, it is the same file as images/p16.png",
        "images/p21.png: is a JPEG file, renamed to p21.jpg",
        "not copied: images/stray.png is in no annotation",
        "class 'Bolt' joined with 'bolt'",
    ):
        assert any(said in change for change in changes), said


def test_a_sound_dataset_comes_out_the_same(tmp_path: Path) -> None:
    root = Planted(tmp_path / "set").save()
    assert repaired(root, tmp_path / "out") == []
    for name in ("train", "val"):
        before, after = (
            json.loads((top / f"annotations/instances_{name}.json").read_text()) for top in (root, tmp_path / "out")
        )
        assert after["images"] == before["images"]
        assert after["categories"] == before["categories"]
        assert after["annotations"] == [
            {**note, "area": note["bbox"][2] * note["bbox"][3]} for note in before["annotations"]
        ]


# An image stored as 64 x 48 with a box at its left upper corner, 10 wide and 20 high.
@pytest.mark.parametrize("outline", ["polygon", "counts", "text"])
@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (5, [0, 0, 20, 10]),  # mirrored along the main diagonal: stays in that corner
        (6, [28, 0, 48, 10]),  # turned right: left upper becomes right upper
        (7, [28, 54, 48, 64]),  # mirrored along the other diagonal: the corner opposite
        (8, [0, 54, 20, 64]),  # turned left: left upper becomes left lower
    ],
)
def test_boxes_and_outlines_are_turned_as_exif_turns_the_image(
    tmp_path: Path, orientation: int, expected: list[float], outline: str
) -> None:
    # Ten columns of 48 pixels whose upper 20 are the object's.
    runs = {"size": [48, 64], "counts": [0, 20, *[28, 20] * 9, 28 + 54 * 48]}
    segmentation: object = {
        "polygon": [[0, 0, 10, 0, 10, 20, 0, 20]],
        "counts": runs,
        "text": {**runs, "counts": text_of_counts(np.array(runs["counts"]))},
    }[outline]
    planted = Planted(tmp_path / "set")
    grey = np.full((48, 64), 30, dtype=np.uint8)
    grey[:20, :10] = 220
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(grey).convert("RGB").save(planted.image(3), exif=exif)
    planted.bolt(3).update(bbox=[0, 0, 10, 20], segmentation=segmentation, keypoints=[1, 1, 2])
    changes = repaired(planted.save(), tmp_path / "out")
    dataset = open_dataset(tmp_path / "out", split="train")
    sample = dataset[3]
    assert sample.image.size == (48, 64)
    assert sample.targets.boxes[0].tolist() == expected
    # The bright part of the image as it is shown is where the box is.
    bright = np.asarray(sample.image.convert("L")) > 128
    ys, xs = np.nonzero(bright)
    assert [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] == expected
    masks = dataset.targets(3, masks=True).masks.dense()
    assert np.array_equal(masks[0].numpy(), bright)
    assert any("keypoints removed, it was drawn on another size" in change for change in changes)
    assert not any("outline removed" in change for change in changes)


def test_boxes_of_a_scaled_image_are_scaled_and_one_of_another_shape_is_left_out(tmp_path: Path) -> None:
    planted = Planted(tmp_path / "set")
    paint(4).resize((128, 96)).save(planted.image(4))
    paint(5).resize((50, 48)).save(planted.image(5))
    changes = repaired(planted.save(), tmp_path / "out")
    assert boxes(tmp_path / "out", 4, "train")[0] == [4, 6, 44, 66]
    assert changes == [
        "images/p04.png: boxes scaled to 128 x 96",
        "images/p05.png: left out, it is 50 x 48, annotated as 64 x 48",
    ]
    assert not (tmp_path / "out/images/p05.png").exists()


def test_a_box_over_the_edge_is_cut_and_one_drawn_twice_is_kept_once(tmp_path: Path) -> None:
    annotations = (
        Annotation("nut", (40, 4, 70, 30)),
        Annotation("nut", (3, 4, 20, 30)),
        Annotation("nut", (3, 4, 20, 30.5)),
    )
    root = write_voc(tmp_path / "set", (Shot("a.png", 50, 40, annotations),))
    assert len(repaired(root, tmp_path / "out")) == 2
    assert boxes(tmp_path / "out", 0) == [[40, 4, 50, 30], [3, 4, 20, 30]]


def test_a_image_of_test_and_train_stays_in_test(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set")
    write_text(root / "ImageSets/Main/train.txt", "a\nc\n")
    write_text(root / "ImageSets/Main/test.txt", "a\nb\n")
    assert repaired(root, tmp_path / "out") == ["JPEGImages/a.png: taken out of train, it is in test"]
    lists = tmp_path / "out/ImageSets/Main"
    assert (lists / "test.txt").read_text() == "a\nb\n"
    assert (lists / "train.txt").read_text() == "c\n"


def test_a_split_that_would_be_empty_is_left_to_a_person(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set")
    for split in ("train", "test"):
        write_text(root / f"ImageSets/Main/{split}.txt", "a\nb\nc\n")
    repair(check(root), tmp_path / "out")
    assert not check(tmp_path / "out").passed
    assert len(open_dataset(tmp_path / "out", split="train")) == 3


def test_a_name_that_no_list_can_hold_is_replaced_and_told(tmp_path: Path) -> None:
    write_yolo(tmp_path / "set", (Shot("a\x01b.png", 20, 10), *SHOTS[2:]))
    changes = repaired(tmp_path / "set", tmp_path / "out")
    assert any(r"a\x01b.png': renamed to a_b.png" in change for change in changes)
    assert (tmp_path / "out/images/train/a_b.png").exists()


def test_yolo_labels_without_image_and_broken_lines_go(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set")
    write_text(root / "labels/train/ghost.txt", "0 0.5 0.5 0.2 0.2\n")
    write_text(root / "labels/train/b.txt", "1 0.5 0.5 0.25 nothing\n1 0.5 0.5 0.25 0.25\n9 0.5 0.5 0.1 0.1\n")
    changes = repaired(root, tmp_path / "out")
    assert "left out: labels/train/ghost.txt has no image" in changes
    assert sum("labels/train/b.txt, line" in change for change in changes) == 2
    assert boxes(tmp_path / "out", 1) == [[11.625, 24, 19.375, 40]]


# Of BCCD: two images with a box without area, seven with a cell labelled twice, and eleven sound ones.
EMPTY_BOX, TWICE = (338, 343), (20, 100, 104, 251, 284, 331, 403)
SOUND = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)


def part_of_bccd(whole: Path, root: Path) -> Path:
    for number in (*EMPTY_BOX, *TWICE, *SOUND):
        for name in (f"Annotations/BloodImage_{number:05d}.xml", f"JPEGImages/BloodImage_{number:05d}.jpg"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(whole / name, root / name)
    return root


def objects_in(root: Path) -> int:
    return sum(path.read_text().count("<object>") for path in (root / "Annotations").iterdir())


def test_bccd_loses_its_two_bad_boxes_and_its_seven_doubles(tmp_path: Path, bccd_root: Path) -> None:
    root = part_of_bccd(bccd_root, tmp_path / "set")
    changes = repaired(root, tmp_path / "out")
    assert [int(number) for number in re.findall(r"left out: .*_(\d+)\.xml", "\n".join(changes))] == list(EMPTY_BOX)
    doubles = re.findall(r"_(\d+)\.xml.*: left out, labelled twice", "\n".join(changes))
    assert sorted(map(int, doubles)) == sorted(TWICE)
    assert len(changes) == 9
    assert objects_in(tmp_path / "out") == objects_in(root) - 9


def test_nothing_is_written_over_or_into_the_dataset(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set")
    before = files(root)
    for output in (root, root / "labels.txt", root / "Annotations"):
        if output.exists():
            with pytest.raises(OutputError, match="is already there"):
                repair(check(root), output)
    assert files(root) == before


def test_a_dataset_without_one_usable_image(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set", SHOTS[:1])
    (root / "JPEGImages/a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="no image is left that could be kept"):
        repair(check(root), tmp_path / "out")
    assert not (tmp_path / "out").exists()
