from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from written_sets import SHOTS, write_text, write_voc, write_yolo

from fpn.data.checks import Report, check
from fpn.data.checks_outlines import crossing
from fpn.data.checks_pictures import look_at
from fpn.data.checks_twins import find_twins
from fpn.data.faults import KINDS
from fpn.errors import DataError, DataNotFoundError

WIDTH, HEIGHT = 64, 48
TRAIN, VAL = range(32), range(32, 36)


def paint(number: int, *, cells: int = 8) -> Image.Image:
    """A picture unlike any other: 8 x 8 grey cells out of a generator with this seed, blown up."""
    grey = np.random.default_rng(number).integers(0, 256, (cells, cells), dtype=np.uint8)
    return Image.fromarray(grey).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR).convert("RGB")


class Planted:
    """A sound COCO dataset in two splits, one bolt and one nut in each of 64 x 48 pictures, to be spoiled."""

    def __init__(self, root: Path) -> None:
        self.root = root
        categories = [{"id": 1, "name": "bolt"}, {"id": 2, "name": "nut"}]
        self.jsons = {
            name: {
                "images": [self._image(k) for k in numbers],
                "annotations": [note for k in numbers for note in self._notes(k)],
                "categories": [dict(entry) for entry in categories],
            }
            for name, numbers in (("train", TRAIN), ("val", VAL))
        }
        (root / "images").mkdir(parents=True)
        for k in (*TRAIN, *VAL):
            paint(k).save(self.picture(k))

    def _image(self, k: int) -> dict[str, Any]:
        return {"id": k, "file_name": f"p{k:02}.png", "width": WIDTH, "height": HEIGHT}

    def _notes(self, k: int) -> list[dict[str, Any]]:
        return [
            {"id": 2 * k + 1, "image_id": k, "category_id": 1, "bbox": [2, 3, 20, 30], "iscrowd": 0},
            {"id": 2 * k + 2, "image_id": k, "category_id": 2, "bbox": [30, 10, 16, 16], "iscrowd": 0},
        ]

    @property
    def train(self) -> dict[str, Any]:
        return self.jsons["train"]

    def picture(self, k: int) -> Path:
        return self.root / f"images/p{k:02}.png"

    def image(self, k: int) -> dict[str, Any]:
        return next(entry for entry in self.train["images"] if entry["id"] == k)

    def bolt(self, k: int) -> dict[str, Any]:
        return next(note for note in self.train["annotations"] if note["id"] == 2 * k + 1)

    def add(self, k: int, **fields: Any) -> None:
        number = 1000 + len(self.train["annotations"])
        self.train["annotations"].append({**self.bolt(k), "id": number, **fields})

    def save(self) -> Path:
        (self.root / "annotations").mkdir(exist_ok=True)
        for name, data in self.jsons.items():
            (self.root / f"annotations/instances_{name}.json").write_text(json.dumps(data))
        return self.root


def turned(path: Path) -> None:
    """Store a picture as 64 x 48 that is to be shown as 48 x 64: turned right by EXIF."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as opened:
        opened.load()
    opened.save(path, exif=exif)


def a_split_that_is_no_json(to: Planted) -> None:
    write_text(to.root / "annotations/instances_old.json", '{"images": [')


def a_picture_that_is_gone(to: Planted) -> None:
    to.picture(0).unlink()


def a_picture_cut_short(to: Planted) -> None:
    to.picture(1).write_bytes(to.picture(1).read_bytes()[:900])


def a_file_name_out_of_the_folder(to: Planted) -> None:
    to.image(2)["file_name"] = "../../p02.png"
    to.picture(2).unlink()


def boxes_drawn_on_a_picture_before_exif_turned_it(to: Planted) -> None:
    turned(to.picture(3))


def a_picture_scaled_after_it_was_labelled(to: Planted) -> None:
    paint(4).resize((32, 24)).save(to.picture(4))


def a_box_of_three_numbers(to: Planted) -> None:
    to.bolt(5)["bbox"] = [1, 2, 3]


def an_object_of_a_class_that_is_not_listed(to: Planted) -> None:
    to.bolt(6)["category_id"] = 9


def two_objects_with_one_id(to: Planted) -> None:
    to.bolt(7)["id"] = to.bolt(8)["id"]


def a_class_listed_twice(to: Planted) -> None:
    to.train["categories"].append({"id": 3, "name": "bolt"})


def a_class_spelled_in_two_ways(to: Planted) -> None:
    for data in to.jsons.values():
        data["categories"].append({"id": 4, "name": "Bolt "})
    to.bolt(9)["category_id"] = 4


def a_box_that_is_no_number(to: Planted) -> None:
    to.bolt(10)["bbox"] = [2, 3, float("nan"), 30]


def a_box_without_height(to: Planted) -> None:
    to.bolt(11)["bbox"] = [2, 3, 20, 0]


def a_box_beside_its_picture(to: Planted) -> None:
    to.bolt(12)["bbox"] = [70, 3, 20, 30]


def a_polygon_of_seven_numbers(to: Planted) -> None:
    to.bolt(13)["segmentation"] = [[2, 3, 22, 3, 22, 33, 2]]


def a_file_of_the_training_again_in_val(to: Planted) -> None:
    to.picture(32).write_bytes(to.picture(14).read_bytes())


def a_scene_of_the_training_again_in_val(to: Planted) -> None:
    paint(15).rotate(0, translate=(3, 2)).save(to.picture(33))


def a_file_twice_in_a_split(to: Planted) -> None:
    to.picture(17).write_bytes(to.picture(16).read_bytes())


def a_scene_twice_in_a_split(to: Planted) -> None:
    paint(18).point(lambda value: 255 - round(0.9 * (255 - value))).save(to.picture(19))


def a_turned_picture_whose_size_is_not_said(to: Planted) -> None:
    turned(to.picture(20))
    del to.image(20)["width"]


def a_jpeg_called_png(to: Planted) -> None:
    paint(21).save(to.picture(21), format="JPEG")


def a_picture_in_no_json(to: Planted) -> None:
    paint(99).save(to.root / "images/stray.png")


def a_box_over_the_edge(to: Planted) -> None:
    to.bolt(22)["bbox"] = [54, 3, 20, 30]


def a_box_one_pixel_wide(to: Planted) -> None:
    to.bolt(23)["bbox"] = [2, 3, 1, 30]


def a_box_drawn_again_half_a_pixel_beside(to: Planted) -> None:
    to.add(24, bbox=[2.5, 3, 20, 30])


def a_box_with_two_classes(to: Planted) -> None:
    to.add(25, category_id=2)


def a_polygon_of_two_points(to: Planted) -> None:
    to.bolt(26)["segmentation"] = [[2, 3, 22, 33]]


def a_polygon_like_an_eight(to: Planted) -> None:
    to.bolt(27)["segmentation"] = [[2, 3, 22, 33, 22, 3, 2, 33]]


def a_class_without_objects(to: Planted) -> None:
    for data in to.jsons.values():
        data["categories"].append({"id": 5, "name": "washer"})


def a_class_that_only_val_has(to: Planted) -> None:
    for data in to.jsons.values():
        data["categories"].append({"id": 6, "name": "rivet"})
    to.jsons["val"]["annotations"][0]["category_id"] = 6


def a_picture_without_objects(to: Planted) -> None:
    to.train["annotations"] = [note for note in to.train["annotations"] if note["image_id"] != 28]


def a_crowd(to: Planted) -> None:
    to.bolt(29)["iscrowd"] = 1


def a_gap_in_the_ids(to: Planted) -> None:
    to.train["categories"].append({"id": 8, "name": "hook"})
    to.bolt(30)["category_id"] = 8


def a_split_that_is_part_of_another(to: Planted) -> None:
    to.jsons["tiny"] = {**to.train, "images": to.train["images"][-1:], "annotations": to.train["annotations"][-2:]}


# What is done to the dataset, the kind that it is, words of the message.
FAULTS: list[tuple[Callable[[Planted], None], str, str]] = [
    (a_split_that_is_no_json, "annotations-unreadable", "instances_old.json, line 1, column"),
    (a_picture_that_is_gone, "picture-missing", "images/p00.png does not exist"),
    (a_picture_cut_short, "picture-unreadable", "images/p01.png: "),
    (a_file_name_out_of_the_folder, "path-outside", "'../../p02.png' leads out of the dataset's folder"),
    (boxes_drawn_on_a_picture_before_exif_turned_it, "exif-rotation", "images/p03.png: EXIF orientation 6"),
    (a_picture_scaled_after_it_was_labelled, "size-differs", "p04.png: the picture is 32 x 24, its annotation says 64"),
    (a_box_of_three_numbers, "entry-broken", "annotation id 11: bbox is a list; it must be [x, y, width, height]"),
    (an_object_of_a_class_that_is_not_listed, "id-unknown", "annotation id 13 has category_id 9"),
    (two_objects_with_one_id, "id-repeated", "annotation id 17 is given to entries 15 and 17"),
    (a_class_listed_twice, "class-broken", "bolt"),
    (a_class_spelled_in_two_ways, "class-spelling", "'bolt' (35 objects) and 'Bolt' (1 object)"),
    (a_box_that_is_no_number, "box-not-finite", "annotation id 21 of images/p10.png (bolt)"),
    (a_box_without_height, "box-empty", "annotation id 23 of images/p11.png (bolt) has box (2, 3, 22, 3): height 0"),
    (a_box_beside_its_picture, "box-outside", "annotation id 25 of images/p12.png (bolt) has box (70, 3, 90, 33)"),
    (a_polygon_of_seven_numbers, "outline-broken", "annotation id 27 of images/p13.png (bolt): a polygon has 7 num"),
    (a_file_of_the_training_again_in_val, "split-overlap", "p14.png (train) and images/p32.png (val) are the same"),
    (a_scene_of_the_training_again_in_val, "split-alike", "p15.png (train) and images/p33.png (val) look alike"),
    (a_file_twice_in_a_split, "pictures-equal", "images/p16.png and images/p17.png are the same file"),
    (a_scene_twice_in_a_split, "pictures-alike", "images/p18.png and images/p19.png look alike"),
    (a_turned_picture_whose_size_is_not_said, "exif-unclear", "images/p20.png: EXIF orientation 6"),
    (a_jpeg_called_png, "suffix-wrong", "images/p21.png: is a JPEG file"),
    (a_picture_in_no_json, "picture-unlabelled", "images/stray.png is in no annotation"),
    (a_box_over_the_edge, "box-over-edge", "of images/p22.png (bolt) has box (54, 3, 74, 33) in 64 x 48"),
    (a_box_one_pixel_wide, "box-tiny", "of images/p23.png (bolt) is 1 x 30 pixels"),
    (a_box_drawn_again_half_a_pixel_beside, "box-repeated", "of images/p24.png (bolt) has the same box as annotation"),
    (a_box_with_two_classes, "box-contradicted", "of images/p25.png (nut) has the same box as annotation id 51"),
    (a_polygon_of_two_points, "outline-short", "of images/p26.png (bolt) has a polygon of 2 points"),
    (a_polygon_like_an_eight, "outline-crossing", "annotation id 55 of images/p27.png (bolt)"),
    (a_class_without_objects, "class-unused", "'washer' has no object"),
    (a_class_that_only_val_has, "class-untrained", "'rivet' has 1 object, none in train"),
    (a_picture_without_objects, "picture-empty", "images/p28.png has no object"),
    (a_crowd, "crowd", "annotation id 59 of images/p29.png (bolt)"),
    (a_gap_in_the_ids, "id-gaps", "category ids 1 to 8 leave out 5"),
    (a_split_that_is_part_of_another, "split-contained", "tiny (1 picture) is part of train"),
]
# These faults show in two ways.
ALSO = {
    "a_file_name_out_of_the_folder": {"id-gaps"},
    "a_class_spelled_in_two_ways": {"class-untrained", "id-gaps"},
    "a_class_without_objects": {"id-gaps"},
    "a_class_that_only_val_has": {"id-gaps"},
}
BAD = [fault for fault in FAULTS if KINDS[fault[1]].severity != "information"]


def kinds(report: Report) -> set[str]:
    return {finding.kind for finding in report.findings}


def test_nothing_is_found_where_nothing_is_wrong(tmp_path: Path) -> None:
    report = check(Planted(tmp_path / "set").save())
    assert report.findings == []
    assert report.passed
    assert report.splits == {"train": {"pictures": 32, "objects": 64}, "val": {"pictures": 4, "objects": 8}}


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


def test_thirty_faults_of_thirty_kinds_in_one_dataset_are_all_found(tmp_path: Path) -> None:
    assert len(BAD) == len({kind for _, kind, _ in BAD}) == 30
    planted = Planted(tmp_path / "set")
    planted.save()
    for spoil, _, _ in BAD:
        spoil(planted)
    report = check(planted.save())
    for _, kind, words in BAD:
        assert any(words.split(" (")[0] in finding.message for finding in report.of(kind)), kind
    assert not report.passed


def test_a_voc_list_with_a_picture_twice_and_one_without_labels(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set")
    write_text(root / "ImageSets/Main/train.txt", "a\nb\na\nghost\nc\n")
    report = check(root)
    (twice,), (missing,) = report.of("picture-listed-twice"), report.of("labels-missing")
    assert "'a' is listed twice (entries 1 and 3)" in twice.message
    assert "lists 'ghost', but there is no Annotations/ghost.xml" in missing.message


def test_yolo_labels_without_picture_and_pixels_for_fractions(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set")
    write_text(root / "labels/train/ghost.txt", "0 0.5 0.5 0.2 0.2\n")
    write_text(root / "labels/train/b.txt", "1 20 30 10 10\n")
    report = check(root)
    assert [finding.message for finding in report.of("picture-missing")] == ["labels/train/ghost.txt has no picture"]
    (outside,) = report.of("box-outside")
    assert "labels/train/b.txt, line 1 (nut)" in outside.message
    assert "fractions from 0 to 1, not pixels" in outside.message


def test_a_yolo_box_of_a_picture_that_is_unreadable_is_not_measured(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set")
    (root / "images/train/c.jpg").write_bytes(b"no picture")
    report = check(root)
    assert [finding.file for finding in report.of("picture-unreadable")] == ["images/train/c.jpg"]
    assert report.of("box-tiny") == report.of("box-over-edge") == []
    assert report.sizes["objects"]["large"] + report.sizes["objects"]["medium"] + report.sizes["objects"]["small"] == 2


def test_a_hidden_fault_of_one_split_is_not_looked_for_when_another_is_asked(tmp_path: Path) -> None:
    planted = Planted(tmp_path / "set")
    a_box_without_height(planted)
    a_picture_in_no_json(planted)
    root = planted.save()
    assert kinds(check(root, split="val")) == set()
    assert kinds(check(root)) == {"box-empty", "picture-unlabelled"}


def test_bccd_has_two_bad_boxes_and_seven_pairs_of_near_duplicates(bccd_root: Path) -> None:
    report = check(bccd_root)
    errors = [finding for finding in report.findings if KINDS[finding.kind].severity == "error"]
    assert [(finding.kind, finding.message.split(" has box")[0]) for finding in errors] == [
        ("box-empty", "Annotations/BloodImage_00343.xml: object 4 (RBC)"),
        ("box-empty", "Annotations/BloodImage_00338.xml: object 13 (RBC)"),
    ]
    # Looked at one by one: each of these is one smear photographed twice, a little shifted.
    alike = {(finding.file, finding.kind) for kind in ("split-alike", "pictures-alike") for finding in report.of(kind)}
    assert alike == {
        ("JPEGImages/BloodImage_00260.jpg", "split-alike"),
        ("JPEGImages/BloodImage_00258.jpg", "split-alike"),
        ("JPEGImages/BloodImage_00386.jpg", "split-alike"),
        ("JPEGImages/BloodImage_00037.jpg", "split-alike"),
        ("JPEGImages/BloodImage_00230.jpg", "split-alike"),
        ("JPEGImages/BloodImage_00256.jpg", "pictures-alike"),
        ("JPEGImages/BloodImage_00395.jpg", "pictures-alike"),
    }
    assert len(report.of("box-repeated")) == 7
    assert report.splits["trainval"] == {"pictures": 292, "objects": 3941}


def test_crowds_empty_pictures_and_gaps_of_coco128_are_information(coco128_root: Path) -> None:
    report = check(coco128_root)
    assert report.passed
    assert [finding.file for finding in report.of("picture-empty")] == [
        "images/000000000250.jpg",
        "images/000000000508.jpg",
    ]
    assert len(report.of("crowd")) == 10
    assert [finding.message for finding in report.of("id-gaps")] == [
        "coco128: category ids 1 to 90 leave out 10",
        "coco128: image ids 9 to 650 leave out 514",
    ]
    assert {KINDS[kind].severity for kind in ("picture-empty", "crowd", "id-gaps")} == {"information"}


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
        "pictures": 35,
        "ignored": 1,
        "splits": {"train": 31, "val": 4},
    }


def test_sizes_are_counted_in_octaves_of_the_root_of_the_area(tmp_path: Path) -> None:
    # A bolt of 20 x 30 has a root of 24.5, a nut of 16 x 16 one of 16: 72 objects from 16 to 32.
    sizes = check(Planted(tmp_path / "set").save()).sizes
    assert sizes["objects"]["histogram"] == {"16": 72}
    assert (sizes["objects"]["small"], sizes["objects"]["medium"], sizes["objects"]["large"]) == (72, 0, 0)
    assert sizes["objects"]["height/width"] == {"0": 1, "5": 1, "25": 1, "50": 1.25, "75": 1.5, "95": 1.5, "100": 1.5}
    assert sizes["pictures"]["width"]["50"] == WIDTH


def test_progress_tells_how_many_pictures_were_looked_at(tmp_path: Path) -> None:
    seen: list[int] = []
    root = write_voc(tmp_path / "set")
    look_at([str(root / "JPEGImages" / shot.file) for shot in SHOTS], workers=2, progress=seen.append)
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


def test_twins_among_thousands_are_found_without_comparing_each_with_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fpn.data.checks_twins.COMPARED_SHIFTED", 4)
    for k in range(30):
        paint(k).save(tmp_path / f"{k:02}.png")
    paint(7).resize((128, 96)).save(tmp_path / "30.png")
    looks = look_at([str(path) for path in sorted(tmp_path.iterdir())])
    assert [(pair.first, pair.second, pair.equal) for pair in find_twins(looks)] == [(7, 30, False)]


def test_plain_pictures_are_not_called_alike(tmp_path: Path) -> None:
    for k, grey in enumerate((0, 90, 91, 255)):
        Image.new("RGB", (40, 40), (grey, grey, grey)).save(tmp_path / f"{k}.png")
    assert find_twins(look_at([str(path) for path in sorted(tmp_path.iterdir())])) == []
