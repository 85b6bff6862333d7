"""A sound COCO dataset, and 36 ways to spoil it, each another kind of fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from written_sets import write_text

from fpn.data.issues import KINDS

WIDTH, HEIGHT = 64, 48
TRAIN, VAL = range(32), range(32, 36)


def paint(number: int, *, cells: int = 8) -> Image.Image:
    """An image unlike any other: 8 x 8 grey cells out of a generator with this seed, blown up."""
    grey = np.random.default_rng(number).integers(0, 256, (cells, cells), dtype=np.uint8)
    return Image.fromarray(grey).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR).convert("RGB")


class Planted:
    """A sound COCO dataset in two splits, one bolt and one nut in each of 64 x 48 images, to be spoiled."""

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
            paint(k).save(self.image(k))

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

    def image(self, k: int) -> Path:
        return self.root / f"images/p{k:02}.png"

    def entry(self, k: int) -> dict[str, Any]:
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
    """Store an image as 64 x 48 that is to be shown as 48 x 64: turned right by EXIF."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as opened:
        opened.load()
    opened.save(path, exif=exif)


def a_split_that_is_no_json(to: Planted) -> None:
    write_text(to.root / "annotations/instances_old.json", '{"images": [')


def a_image_that_is_gone(to: Planted) -> None:
    to.image(0).unlink()


def a_image_cut_short(to: Planted) -> None:
    to.image(1).write_bytes(to.image(1).read_bytes()[:900])


def a_file_name_out_of_the_folder(to: Planted) -> None:
    to.entry(2)["file_name"] = "../../p02.png"
    to.image(2).unlink()


def boxes_drawn_on_a_image_before_exif_turned_it(to: Planted) -> None:
    turned(to.image(3))


def a_image_scaled_after_it_was_labelled(to: Planted) -> None:
    paint(4).resize((32, 24)).save(to.image(4))


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


def a_box_beside_its_image(to: Planted) -> None:
    to.bolt(12)["bbox"] = [70, 3, 20, 30]


def a_polygon_of_seven_numbers(to: Planted) -> None:
    to.bolt(13)["segmentation"] = [[2, 3, 22, 3, 22, 33, 2]]


def a_keypoint_too_few(to: Planted) -> None:
    to.train["categories"][0]["keypoints"] = ["head", "tip"]
    to.bolt(20)["keypoints"] = [4, 5, 2]


def a_file_of_the_training_again_in_val(to: Planted) -> None:
    to.image(32).write_bytes(to.image(14).read_bytes())


def a_scene_of_the_training_again_in_val(to: Planted) -> None:
    paint(15).rotate(0, translate=(3, 2)).save(to.image(33))


def a_file_twice_in_a_split(to: Planted) -> None:
    to.image(17).write_bytes(to.image(16).read_bytes())


def a_scene_twice_in_a_split(to: Planted) -> None:
    paint(18).point(lambda value: 255 - round(0.9 * (255 - value))).save(to.image(19))


def a_turned_image_whose_size_is_not_said(to: Planted) -> None:
    turned(to.image(20))
    del to.entry(20)["width"]


def a_jpeg_called_png(to: Planted) -> None:
    paint(21).save(to.image(21), format="JPEG")


def a_image_in_no_json(to: Planted) -> None:
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
    to.bolt(26)["segmentation"] = [[2, 3, 22, 33], [2, 3, 22, 3, 22, 33, 2, 33]]


def a_polygon_like_an_eight(to: Planted) -> None:
    to.bolt(27)["segmentation"] = [[2, 3, 22, 33, 22, 3, 2, 33]]


def a_polygon_beside_its_image(to: Planted) -> None:
    to.bolt(14)["segmentation"] = [[64, 3, 90, 3, 90, 33]]


def a_polygon_that_is_a_line(to: Planted) -> None:
    to.bolt(28)["segmentation"] = [[2, 3, 22, 33, 12, 18]]


def nothing_but_a_polygon_of_two_points(to: Planted) -> None:
    to.bolt(29)["segmentation"] = [[2, 3, 22, 33]]


def a_polygon_of_half_the_box(to: Planted) -> None:
    to.bolt(31)["segmentation"] = [[2, 3, 22, 3, 22, 18, 2, 18]]


def a_keypoint_beside_its_image(to: Planted) -> None:
    to.train["categories"][0]["keypoints"] = ["head", "tip"]
    to.bolt(1)["keypoints"] = [4, 5, 2, 4, 50, 1]


def a_class_without_objects(to: Planted) -> None:
    for data in to.jsons.values():
        data["categories"].append({"id": 5, "name": "washer"})


def a_class_that_only_val_has(to: Planted) -> None:
    for data in to.jsons.values():
        data["categories"].append({"id": 6, "name": "rivet"})
    to.jsons["val"]["annotations"][0]["category_id"] = 6


def a_image_without_objects(to: Planted) -> None:
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
    (a_image_that_is_gone, "image-missing", "images/p00.png does not exist"),
    (a_image_cut_short, "image-unreadable", "images/p01.png: "),
    (a_file_name_out_of_the_folder, "path-outside", "'../../p02.png' leads out of the dataset's folder"),
    (boxes_drawn_on_a_image_before_exif_turned_it, "exif-rotation", "images/p03.png: EXIF orientation 6"),
    (a_image_scaled_after_it_was_labelled, "size-differs", "p04.png: the image is 32 x 24, its annotation says 64"),
    (a_box_of_three_numbers, "entry-broken", "annotation id 11: bbox is a list; it must be [x, y, width, height]"),
    (an_object_of_a_class_that_is_not_listed, "id-unknown", "annotation id 13 has category_id 9"),
    (two_objects_with_one_id, "id-repeated", "annotation id 17 is given to entries 15 and 17"),
    (a_class_listed_twice, "class-broken", "bolt"),
    (a_class_spelled_in_two_ways, "class-spelling", "'bolt' (35 objects) and 'Bolt' (1 object)"),
    (a_box_that_is_no_number, "box-not-finite", "annotation id 21 of images/p10.png (bolt)"),
    (a_box_without_height, "box-empty", "annotation id 23 of images/p11.png (bolt) has box (2, 3, 22, 3): height 0"),
    (a_box_beside_its_image, "box-outside", "annotation id 25 of images/p12.png (bolt) has box (70, 3, 90, 33)"),
    (a_polygon_of_seven_numbers, "outline-broken", "annotation id 27 of images/p13.png (bolt): a polygon has 7 num"),
    (a_keypoint_too_few, "keypoints-broken", "annotation id 41: keypoints has 3 numbers, 2 keypoints need 6"),
    (a_file_of_the_training_again_in_val, "split-overlap", "p14.png (train) and images/p32.png (val) are the same"),
    (a_scene_of_the_training_again_in_val, "split-alike", "p15.png (train) and images/p33.png (val) look alike"),
    (a_file_twice_in_a_split, "images-equal", "images/p16.png and images/p17.png are the same file"),
    (a_scene_twice_in_a_split, "images-alike", "images/p18.png and images/p19.png look alike"),
    (a_turned_image_whose_size_is_not_said, "exif-unclear", "images/p20.png: EXIF orientation 6"),
    (a_jpeg_called_png, "suffix-wrong", "images/p21.png: is a JPEG file"),
    (a_image_in_no_json, "image-unlabelled", "images/stray.png is in no annotation"),
    (a_box_over_the_edge, "box-over-edge", "of images/p22.png (bolt) has box (54, 3, 74, 33) in 64 x 48"),
    (a_box_one_pixel_wide, "box-tiny", "of images/p23.png (bolt) is 1 x 30 pixels"),
    (a_box_drawn_again_half_a_pixel_beside, "box-repeated", "of images/p24.png (bolt) has the same box as annotation"),
    (a_box_with_two_classes, "box-contradicted", "of images/p25.png (nut) has the same box as annotation id 51"),
    (a_polygon_of_two_points, "outline-short", "of images/p26.png (bolt) has a polygon of 2 points"),
    (a_polygon_like_an_eight, "outline-crossing", "annotation id 55 of images/p27.png (bolt)"),
    (
        a_polygon_of_half_the_box,
        "outline-elsewhere",
        "its outline reaches from (2, 3) to (22, 18), its box from (2, 3) to (22, 33)",
    ),
    (a_keypoint_beside_its_image, "keypoint-elsewhere", "keypoint tip is at (4, 50), outside of the image"),
    (a_class_without_objects, "class-unused", "'washer' has no object"),
    (a_class_that_only_val_has, "class-untrained", "'rivet' has 1 object, none in train"),
    (a_image_without_objects, "image-empty", "images/p28.png has no object"),
    (a_crowd, "crowd", "annotation id 59 of images/p29.png (bolt)"),
    (a_gap_in_the_ids, "id-gaps", "category ids 1 to 8 leave out 5"),
    (a_split_that_is_part_of_another, "split-contained", "tiny (1 image) is part of train"),
]
BAD = [fault for fault in FAULTS if KINDS[fault[1]].severity != "information"]
# Further faults of a kind that is planted above.
MORE_OUTLINES = [
    (a_polygon_beside_its_image, "p14.png (bolt): the outline is wholly outside of the image"),
    (nothing_but_a_polygon_of_two_points, "p29.png (bolt): no polygon has three points"),
    (a_polygon_that_is_a_line, "p28.png (bolt): the outline is a line, without an area"),
]
