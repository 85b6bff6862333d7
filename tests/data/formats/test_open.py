from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image
from written_sets import (
    CLASSES,
    SHOTS,
    coco_json,
    save_image,
    voc_xml,
    write_coco,
    write_json,
    write_text,
    write_voc,
    write_yolo,
    yolo_lines,
)

from fpn.data import Limits, list_splits, open_dataset
from fpn.data.formats.open import usual_split
from fpn.errors import DataError, DataNotFoundError


def test_bccd_has_292_and_72_images_and_two_invalid_boxes(bccd_root: Path) -> None:
    with pytest.raises(DataError, match=r"BloodImage_00338.xml: object 13 \(RBC\) has box \(504, 337, 504, 337\)"):
        open_dataset(bccd_root, split="trainval")
    trainval = open_dataset(bccd_root, drop_invalid=True)
    assert (len(trainval), len(trainval.dropped)) == (292, 2)
    assert len(open_dataset(bccd_root, split="test", drop_invalid=True)) == 72
    assert trainval.classes.names == ("Platelets", "RBC", "WBC")


def test_coco128_keeps_its_80_ids_with_gaps_its_crowds_and_its_empty_images(coco128_root: Path) -> None:
    dataset = open_dataset(coco128_root)
    assert len(dataset) == 128
    assert (dataset.classes.ids[0], dataset.classes.ids[-1], len(dataset.classes)) == (1, 90, 80)
    assert int(dataset.table.ignore.sum()) == 10
    assert sum(len(dataset.targets(k)) == 0 for k in range(128)) == 2


def test_a_misspelt_path_names_its_neighbour(tmp_path: Path) -> None:
    write_coco(tmp_path / "screws")
    with pytest.raises(DataNotFoundError, match=r"screw: no such file or folder. Did you mean '.*screws'\?"):
        open_dataset(tmp_path / "screw")


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        open_dataset(tmp_path / "pipe.json")


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder is empty"):
        open_dataset(tmp_path)


def test_an_unknown_layout_says_what_was_looked_for(tmp_path: Path) -> None:
    save_image(tmp_path / "photos/a.png", 9, 9)
    save_image(tmp_path / "other/a.png", 9, 9)
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path)
    message = str(caught.value)
    for part in ("annotations/*.json", "Annotations/*.xml", ".yaml", "labels/", "has the folders other, photos"):
        assert part in message


def test_an_archive_is_to_be_unpacked_first(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Unpack it first"):
        open_dataset(write_text(tmp_path / "cells.zip", "PK"))


def test_a_single_folder_inside_is_opened(tmp_path: Path) -> None:
    write_voc(tmp_path / "screws-main")
    assert len(open_dataset(tmp_path)) == 3


def test_voc_lists_are_splits_and_trainval_is_taken_when_none_is_asked_for(tmp_path: Path) -> None:
    write_voc(tmp_path)
    for name, text in {"train": "a\n", "val": "b\n", "trainval": "a\nb\n", "bolt_train": "a  1\n"}.items():
        write_text(tmp_path / f"ImageSets/Main/{name}.txt", text)
    assert list_splits(tmp_path) == ("train", "trainval", "val")
    assert len(open_dataset(tmp_path)) == 2
    assert open_dataset(tmp_path, split="val").name == f"{tmp_path.name}/val"
    # Also a split without a single washer knows the class, so that labels mean the same everywhere.
    assert open_dataset(tmp_path, split="val").classes.names == CLASSES


def test_train_and_val_without_a_choice_is_an_error_that_lists_them(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    write_yolo(tmp_path, split="val")
    write_text(tmp_path / "data.yaml", "train: images/train\nval: images/val\nnames: [bolt, nut, washer]\n")
    with pytest.raises(DataError, match=r"has the splits train, val. Say which with --split"):
        open_dataset(tmp_path)


def test_a_split_that_is_not_there_names_the_nearest_and_all(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    with pytest.raises(DataNotFoundError, match=r"has no split 'trian'. Did you mean 'train'\? It has: train."):
        open_dataset(tmp_path, split="trian")


def test_an_undivided_set_says_to_leave_split_out(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"it is not divided. Leave --split out"):
        open_dataset(write_voc(tmp_path), split="train")


@pytest.mark.parametrize(("written", "asked"), [("train2017", "train"), ("valid", "val"), ("val", "validation")])
def test_usual_names_of_one_split_are_synonyms(written: str, asked: str, tmp_path: Path) -> None:
    write_json(tmp_path / f"annotations/instances_{written}.json", coco_json())
    for shot in SHOTS:
        save_image(tmp_path / written / shot.file, shot.width, shot.height)
    assert open_dataset(tmp_path, split=asked).name == f"{tmp_path.name}/{written}"


def test_several_coco_jsons_find_their_own_folder_of_images(tmp_path: Path) -> None:
    for split, shots in {"train2017": SHOTS[:2], "val2017": SHOTS[2:]}.items():
        write_json(tmp_path / f"annotations/instances_{split}.json", coco_json(shots))
        write_json(tmp_path / f"annotations/captions_{split}.json", {})
        for shot in shots:
            save_image(tmp_path / "images" / split / shot.file, shot.width, shot.height)
    assert list_splits(tmp_path) == ("train2017", "val2017")
    assert open_dataset(tmp_path, split="val").path(0) == str(tmp_path / "images/val2017/c.jpg")


def test_a_coco_json_opens_directly_beside_its_images(tmp_path: Path) -> None:
    write_coco(tmp_path)
    assert len(open_dataset(tmp_path / "annotations/instances.json")) == 3
    for shot in SHOTS:
        save_image(tmp_path / "flat" / shot.file, shot.width, shot.height)
    write_json(tmp_path / "flat/mine.json", coco_json())
    assert len(open_dataset(tmp_path / "flat/mine.json")) == 3
    assert len(open_dataset(tmp_path / "flat")) == 3


def test_roboflows_coco_export_drops_its_group_but_keeps_ids(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        data = coco_json(ids=(1, 2, 3))
        data["categories"] = [{**entry, "supercategory": "screws"} for entry in data["categories"]]
        data["categories"].insert(0, {"id": 0, "name": "screws", "supercategory": "none"})
        write_json(tmp_path / split / "_annotations.coco.json", data)
        for shot in SHOTS:
            save_image(tmp_path / split / shot.file, shot.width, shot.height)
    assert list_splits(tmp_path) == ("train", "valid")
    dataset = open_dataset(tmp_path, split="valid")
    assert (dataset.classes.names, dataset.classes.ids) == (CLASSES, (1, 2, 3))
    assert dataset.targets(0).labels.tolist() == [1, 0]


def test_xml_beside_images_opens(tmp_path: Path) -> None:
    for shot in SHOTS:
        save_image(tmp_path / shot.file, shot.width, shot.height)
        write_text(tmp_path / f"{Path(shot.file).stem}.xml", voc_xml(shot))
    assert len(open_dataset(tmp_path)) == 3


def test_xml_in_split_folders_opens(tmp_path: Path) -> None:
    for split, shots in {"train": SHOTS[:2], "valid": SHOTS[2:]}.items():
        for shot in shots:
            save_image(tmp_path / split / shot.file, shot.width, shot.height)
            write_text(tmp_path / split / f"{Path(shot.file).stem}.xml", voc_xml(shot))
    train, valid = (open_dataset(tmp_path, split=split) for split in ("train", "valid"))
    assert (len(train), len(valid)) == (2, 1)
    assert valid.classes == train.classes
    assert valid.targets(0).labels.tolist() == [2]


@pytest.mark.parametrize("lists", [True, False])
def test_yolo_folders_side_by_side_open_with_names_of_classes_txt_or_numbers(lists: bool, tmp_path: Path) -> None:
    write_yolo(tmp_path)
    (tmp_path / "data.yaml").unlink()
    if lists:
        write_text(tmp_path / "classes.txt", "bolt\nnut\nwasher\n")
    dataset = open_dataset(tmp_path)
    assert dataset.name == f"{tmp_path.name}/train"
    assert dataset.classes.names == (CLASSES if lists else ("0", "1", "2"))
    assert dataset.targets(0).labels.tolist() == [1, 0]


def test_yolo_labels_beside_the_images_open(tmp_path: Path) -> None:
    for shot in SHOTS:
        save_image(tmp_path / shot.file, shot.width, shot.height)
        write_text(tmp_path / f"{Path(shot.file).stem}.txt", yolo_lines(shot))
    write_text(tmp_path / "classes.txt", "bolt\nnut\nwasher\n")
    assert open_dataset(tmp_path).targets(2).labels.tolist() == [2]


def test_a_image_of_another_size_than_annotated_is_refused_when_read(tmp_path: Path) -> None:
    write_coco(tmp_path)
    Image.new("RGB", (37, 53)).save(tmp_path / "images/a.png")
    with pytest.raises(DataError, match="the image is 37 x 53 but its annotation says 53 x 37"):
        open_dataset(tmp_path)[0]


def test_a_file_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    write_coco(tmp_path)
    with pytest.raises(DataError, match="more than the limit of 0 MiB"):
        open_dataset(tmp_path, limits=Limits(json_bytes=100))
    with pytest.raises(DataError, match="more than 1 objects"):
        open_dataset(tmp_path, limits=Limits(objects_per_image=1))


@pytest.mark.parametrize(
    ("splits", "wanted", "taken"),
    [
        (("train", "val"), ("train",), "train"),
        (("train", "valid"), ("val", "test"), "valid"),
        (("train", "test"), ("val", "test"), "test"),
        (("train2017", "val2017"), ("train",), "train2017"),
        (("train", "val"), ("test",), None),
        (("train",), ("train",), None),
    ],
)
def test_where_nothing_was_asked_for_the_usual_split_is_named(
    tmp_path: Path, splits: tuple[str, ...], wanted: tuple[str, ...], taken: str | None
) -> None:
    for split in splits:
        write_json(tmp_path / "annotations" / f"instances_{split}.json", coco_json(SHOTS))
    for shot in SHOTS:
        save_image(tmp_path / "images" / shot.file, shot.width, shot.height)
    assert usual_split(tmp_path, *wanted) == taken
