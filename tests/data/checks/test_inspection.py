from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from planted_faults import (
    BAD,
    FAULTS,
    MORE_OUTLINES,
    WIDTH,
    Planted,
    a_box_without_height,
    a_crowd,
    a_image_in_no_json,
    paint,
)
from written_sets import SHOTS, write_text, write_voc, write_yolo

from fpn.data import open_dataset
from fpn.data.checks.duplicates import find_duplicates
from fpn.data.checks.images import inspect_images
from fpn.data.checks.inspection import CheckReport, check
from fpn.data.checks.polygons import crossing
from fpn.data.checks.repair import repair
from fpn.data.issues import KINDS
from fpn.errors import DataError, DataNotFoundError

# These faults show in two ways.
ALSO = {
    "a_file_name_out_of_the_folder": {"id-gaps"},
    "a_class_spelled_in_two_ways": {"class-untrained", "id-gaps"},
    "a_class_without_objects": {"id-gaps"},
    "a_class_that_only_val_has": {"id-gaps"},
}


def kinds(report: CheckReport) -> set[str]:
    return {finding.kind for finding in report.findings}


def test_nothing_is_found_where_nothing_is_wrong(tmp_path: Path) -> None:
    report = check(Planted(tmp_path / "set").save())
    assert report.findings == []
    assert report.passed
    assert report.splits == {"train": {"images": 32, "objects": 64}, "val": {"images": 4, "objects": 8}}


def test_objects_with_outlines_and_keypoints_are_counted(tmp_path: Path) -> None:
    square, points = [[1, 1, 9, 1, 9, 9]], {"keypoints": [2, 2, 2, 0, 0, 0], "num_keypoints": 1}
    more: list[dict[str, object]] = [{"segmentation": square}, points, {"keypoints": [0] * 6, "segmentation": []}]
    objects = [
        {"id": k, "image_id": 1, "category_id": 1, "bbox": [1, 1, 8 + k, 8], "area": 64, "iscrowd": 0, **each}
        for k, each in enumerate(more, start=1)
    ]
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
        "categories": [{"id": 1, "name": "bolt", "keypoints": ["head", "tip"], "skeleton": [[1, 2]]}],
        "annotations": objects,
    }
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    write_text(tmp_path / "annotations.json", json.dumps(truth))
    assert check(tmp_path).splits == {"all": {"images": 1, "objects": 3, "outlined": 1, "pointed": 1}}


def test_keypoints_that_no_category_names_are_told_and_not_read(tmp_path: Path) -> None:
    planted = Planted(tmp_path / "set")
    planted.save()
    planted.bolt(19)["keypoints"] = [4, 5, 2, 9, 5, 2]
    report = check(planted.save())
    (finding,) = report.findings
    assert finding.kind == "keypoints-unnamed"
    assert "1 object with 2 keypoints, and no category lists their names ('keypoints'): left out" in finding.message
    assert report.passed
    dataset = open_dataset(tmp_path / "set", split="train")
    assert dataset.skeleton is None
    assert any("no category lists their names" in remark for remark in dataset.remarks)


def test_images_in_a_linked_folder_that_an_annotation_names_are_not_called_unread(tmp_path: Path) -> None:
    root = Planted(tmp_path / "set").save()
    (root / "images").rename(tmp_path / "elsewhere")
    (root / "images").symlink_to(tmp_path / "elsewhere")
    assert check(root).findings == []


@pytest.mark.parametrize(("spoil", "kind", "words"), FAULTS, ids=[fault[0].__name__ for fault in FAULTS])
def test_a_planted_fault_is_found_and_nothing_else(
    tmp_path: Path, spoil: Callable[[Planted], None], kind: str, words: str
) -> None:
    planted = Planted(tmp_path / "set")
    planted.save()
    spoil(planted)
    report = check(planted.save())
    (finding,) = report.of(kind)
    assert words in finding.message
    assert kinds(report) - {kind} <= ALSO.get(spoil.__name__, set())
    assert report.passed == (KINDS[kind].severity != "error")


@pytest.mark.parametrize(("spoil", "words"), MORE_OUTLINES)
def test_an_outline_without_a_pixel_is_broken_and_can_be_mended(
    tmp_path: Path, spoil: Callable[[Planted], None], words: str
) -> None:
    planted = Planted(tmp_path / "set")
    spoil(planted)
    report = check(planted.save())
    (finding,) = report.of("outline-broken")
    assert words in finding.message
    assert not report.of("outline-elsewhere")
    repair(report, tmp_path / "mended")
    assert not check(tmp_path / "mended").of("outline-broken")


def test_33_faults_of_33_kinds_in_one_dataset_are_all_found(tmp_path: Path) -> None:
    assert len(BAD) == len({kind for _, kind, _ in BAD}) == 33
    planted = Planted(tmp_path / "set")
    planted.save()
    for spoil, _, _ in BAD:
        spoil(planted)
    report = check(planted.save())
    for _, kind, words in BAD:
        assert any(words.split(" (")[0] in finding.message for finding in report.of(kind)), kind
    assert not report.passed


def test_a_voc_list_with_a_image_twice_and_one_without_labels(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set")
    write_text(root / "ImageSets/Main/train.txt", "a\nb\na\nghost\nc\n")
    report = check(root)
    (twice,), (missing,) = report.of("image-listed-twice"), report.of("labels-missing")
    assert "'a' is listed twice (entries 1 and 3)" in twice.message
    assert "lists 'ghost', but there is no Annotations/ghost.xml" in missing.message


def test_yolo_labels_without_image_and_pixels_for_fractions(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set")
    write_text(root / "labels/train/ghost.txt", "0 0.5 0.5 0.2 0.2\n")
    write_text(root / "labels/train/b.txt", "1 20 30 10 10\n")
    report = check(root)
    assert [finding.message for finding in report.of("image-missing")] == ["labels/train/ghost.txt has no image"]
    (outside,) = report.of("box-outside")
    assert "labels/train/b.txt, line 1 (nut)" in outside.message
    assert "fractions from 0 to 1, not pixels" in outside.message


def test_a_yolo_box_of_a_image_that_is_unreadable_is_not_measured(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set")
    (root / "images/train/c.jpg").write_bytes(b"no image")
    report = check(root)
    assert [finding.file for finding in report.of("image-unreadable")] == ["images/train/c.jpg"]
    assert report.of("box-tiny") == report.of("box-over-edge") == []
    assert report.sizes["objects"]["large"] + report.sizes["objects"]["medium"] + report.sizes["objects"]["small"] == 2


def test_a_hidden_fault_of_one_split_is_not_looked_for_when_another_is_asked(tmp_path: Path) -> None:
    planted = Planted(tmp_path / "set")
    a_box_without_height(planted)
    a_image_in_no_json(planted)
    root = planted.save()
    assert kinds(check(root, split="val")) == set()
    assert kinds(check(root)) == {"box-empty", "image-unlabelled"}


def test_bccd_has_two_bad_boxes_and_seven_pairs_of_near_duplicates(bccd_root: Path) -> None:
    report = check(bccd_root)
    errors = [finding for finding in report.findings if KINDS[finding.kind].severity == "error"]
    assert [(finding.kind, finding.message.split(" has box")[0]) for finding in errors] == [
        ("box-empty", "Annotations/BloodImage_00343.xml: object 4 (RBC)"),
        ("box-empty", "Annotations/BloodImage_00338.xml: object 13 (RBC)"),
    ]
    # Looked at one by one: each of these is one smear photographed twice, a little shifted.
    alike = {(finding.file, finding.kind) for kind in ("split-alike", "images-alike") for finding in report.of(kind)}
    assert alike == {
        ("JPEGImages/BloodImage_00260.jpg", "split-alike"),
        ("JPEGImages/BloodImage_00258.jpg", "split-alike"),
        ("JPEGImages/BloodImage_00386.jpg", "split-alike"),
        ("JPEGImages/BloodImage_00037.jpg", "split-alike"),
        ("JPEGImages/BloodImage_00230.jpg", "split-alike"),
        ("JPEGImages/BloodImage_00256.jpg", "images-alike"),
        ("JPEGImages/BloodImage_00395.jpg", "images-alike"),
    }
    assert len(report.of("box-repeated")) == 7
    assert report.splits["trainval"] == {"images": 292, "objects": 3941}


def test_crowds_empty_images_and_gaps_of_coco128_are_information(coco128_root: Path) -> None:
    report = check(coco128_root)
    assert report.passed
    assert [finding.file for finding in report.of("image-empty")] == [
        "images/000000000250.jpg",
        "images/000000000508.jpg",
    ]
    assert len(report.of("crowd")) == 10
    assert [finding.message for finding in report.of("id-gaps")] == [
        "coco128: category ids 1 to 90 leave out 10",
        "coco128: image ids 9 to 650 leave out 514",
    ]
    assert {KINDS[kind].severity for kind in ("image-empty", "crowd", "id-gaps")} == {"information"}


def test_the_report_as_json(tmp_path: Path) -> None:
    planted = Planted(tmp_path / "set")
    a_box_without_height(planted)
    a_crowd(planted)
    report = json.loads(json.dumps(check(planted.save()).to_dict(), allow_nan=False))
    assert (report["dataset"], report["passed"]) == ("set", False)
    empty, crowd = report["findings"]
    assert (empty["kind"], empty["severity"], empty["count"]) == ("box-empty", "error", 1)
    assert empty["entries"][0]["file"] == "images/p11.png"
    assert (crowd["kind"], crowd["severity"], crowd["fix"]) == ("crowd", "information", None)
    assert report["classes"]["bolt"] == {
        "id": 1,
        "objects": 35,
        "images": 35,
        "ignored": 1,
        "splits": {"train": 31, "val": 4},
    }


def test_sizes_are_counted_in_octaves_of_the_root_of_the_area(tmp_path: Path) -> None:
    # A bolt of 20 x 30 has a root of 24.5, a nut of 16 x 16 one of 16: 72 objects from 16 to 32.
    sizes = check(Planted(tmp_path / "set").save()).sizes
    assert sizes["objects"]["histogram"] == {"16": 72}
    assert (sizes["objects"]["small"], sizes["objects"]["medium"], sizes["objects"]["large"]) == (72, 0, 0)
    assert sizes["objects"]["height/width"] == {"0": 1, "5": 1, "25": 1, "50": 1.25, "75": 1.5, "95": 1.5, "100": 1.5}
    assert sizes["images"]["width"]["50"] == WIDTH


def test_progress_tells_how_many_images_were_looked_at(tmp_path: Path) -> None:
    seen: list[int] = []
    root = write_voc(tmp_path / "set")
    inspect_images([str(root / "JPEGImages" / shot.file) for shot in SHOTS], workers=2, progress=seen.append)
    assert seen == [1, 2, 3]


def test_unknown_paths_and_splits_stop_the_check(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set")
    with pytest.raises(DataNotFoundError, match="no such file or folder"):
        check(tmp_path / "gone")
    with pytest.raises(DataNotFoundError, match="has no split 'tset'"):
        check(root, split="tset")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="the folder is empty"):
        check(tmp_path / "empty")


def test_edges_that_touch_do_not_cross() -> None:
    square = [[0, 0], [9, 0], [9, 9], [0, 9]]
    eight = [[0, 0], [9, 9], [9, 0], [0, 9]]
    # Two squares that share one corner, drawn in one line.
    touching = [[0, 0], [5, 0], [5, 5], [9, 5], [9, 9], [5, 9], [5, 5], [0, 5]]
    polygons = [np.array(corners, dtype=float) for corners in (square, eight, touching)]
    assert crossing(polygons).tolist() == [False, True, False]


def test_duplicates_among_thousands_are_found_without_comparing_each_with_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fpn.data.checks.duplicates.COMPARED_SHIFTED", 4)
    for k in range(30):
        paint(k).save(tmp_path / f"{k:02}.png")
    paint(7).resize((128, 96)).save(tmp_path / "30.png")
    infos = inspect_images([str(path) for path in sorted(tmp_path.iterdir())])
    assert [(pair.first, pair.second, pair.equal) for pair in find_duplicates(infos)] == [(7, 30, False)]


def test_plain_images_are_not_called_alike(tmp_path: Path) -> None:
    for k, grey in enumerate((0, 90, 91, 255)):
        Image.new("RGB", (40, 40), (grey, grey, grey)).save(tmp_path / f"{k}.png")
    assert find_duplicates(inspect_images([str(path) for path in sorted(tmp_path.iterdir())])) == []
