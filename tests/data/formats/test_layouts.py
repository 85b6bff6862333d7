"""Datasets as tools and people leave them: which layout it is, where its names are, and what is not read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
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

import fpn
from fpn.data import list_splits, open_dataset
from fpn.data.checks.inspection import check
from fpn.errors import DataError, DataNotFoundError

FEW = SHOTS[:1]
NAMES = "".join(f"{name}\n" for name in CLASSES)


def boxes(root: Path, **options: Any) -> dict[str, list[tuple[str, list[int]]]]:
    """Image -> its objects, rounded, in order."""
    dataset = open_dataset(root, **options)
    found = {}
    for number in range(len(dataset)):
        targets = dataset.targets(number)
        rows = zip(targets.labels.tolist(), targets.boxes.round().int().tolist(), strict=True)
        found[Path(dataset.path(number)).name] = sorted((dataset.classes[label], box) for label, box in rows)
    return found


A = {"a.png": [("bolt", [0, 0, 53, 37]), ("nut", [3, 4, 20, 30])]}
ALL = {**A, "b.png": [], "c.jpg": [("washer", [50, 2, 100, 6])]}


def messages(root: Path, kind: str, **options: Any) -> list[str]:
    return [finding.message for finding in check(root, **options).of(kind)]


# --- YOLO: where the names are ---


def _twins(root: Path) -> Path:
    for shot in SHOTS:
        save_image(root / "images" / shot.file, shot.width, shot.height)
        write_text(root / "labels" / f"{Path(shot.file).stem}.txt", yolo_lines(shot))
    return root


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("classes.txt", NAMES),
        ("obj.names", NAMES),
        ("my.names", NAMES),
        ("labels/classes.txt", NAMES),
        ("images/_darknet.labels", NAMES),
        ("settings.yaml", "names: [bolt, nut, washer]\n"),
        ("settings.yml", "\ufeffnames:\n  0: bolt\n  1: nut\n  2: washer\n"),
        ("notes.json", json.dumps({"categories": [{"id": k, "name": name} for k, name in enumerate(CLASSES)]})),
    ],
)
def test_names_are_found_whatever_tool_wrote_them(file: str, text: str, tmp_path: Path) -> None:
    write_text(_twins(tmp_path) / file, text)
    assert boxes(tmp_path) == ALL


def test_label_studios_notes_beside_its_classes_are_no_coco_json(tmp_path: Path) -> None:
    root = _twins(tmp_path)
    write_text(root / "classes.txt", NAMES)
    write_json(root / "notes.json", {"categories": [{"id": 0, "name": "bolt"}], "info": {"version": "1.0"}})
    assert boxes(root) == ALL


def test_a_json_that_counts_images_is_no_coco_json(tmp_path: Path) -> None:
    save_image(tmp_path / "scenes/images/1.png", 32, 32)
    shot = {"id": 1, "file_name": "images/1.png", "width": 32, "height": 32}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 8, 8], "area": 64, "iscrowd": 0}
    coco = {"images": [shot], "annotations": [box], "categories": [{"id": 1, "name": "disc"}]}
    (tmp_path / "scenes/annotations.json").write_text(json.dumps(coco))
    (tmp_path / "metrics.json").write_text(json.dumps({"images": 8, "ap": 0.5}))
    assert len(open_dataset(tmp_path)) == 1


def test_classes_without_any_names_are_numbers_and_told(tmp_path: Path) -> None:
    root = _twins(tmp_path)
    dataset = open_dataset(root)
    assert dataset.classes.names == ("0", "1", "2")
    assert "no file lists the names of its classes: they are called 0 to 2" in dataset.remarks[0]
    assert len(messages(root, "class-unnamed")) == 1


def test_a_broken_names_file_is_an_error_and_not_numbers(tmp_path: Path) -> None:
    root = _twins(tmp_path)
    write_text(root / "notes.json", json.dumps({"categories": [{"id": 4, "name": "bolt"}]}))
    with pytest.raises(DataError, match=r"notes\.json: 'categories' is"):
        open_dataset(root)


def test_names_that_differ_from_nc_are_refused(tmp_path: Path) -> None:
    root = write_yolo(tmp_path)
    write_text(root / "data.yaml", "train: images/train\nnc: 2\n")
    write_text(root / "classes.txt", NAMES)
    with pytest.raises(DataError, match=r"classes\.txt: 3 names, but nc is 2"):
        open_dataset(root)


def test_two_yaml_files_that_differ_have_to_be_told_apart(tmp_path: Path) -> None:
    root = write_yolo(tmp_path)
    write_text(root / "other.yaml", (root / "data.yaml").read_text())
    assert boxes(root) == ALL
    write_text(root / "other.yaml", "train: images/train\nnames: [screw, nut, washer]\n")
    with pytest.raises(DataError, match=r"several \.yaml files \(data\.yaml, other\.yaml\) describe it differently"):
        open_dataset(root)
    assert boxes(root / "data.yaml") == ALL


def test_a_yaml_with_a_byte_order_mark_has_its_names_and_splits(tmp_path: Path) -> None:
    root = write_yolo(tmp_path)
    write_text(root / "data.yaml", "\ufeffnames: [bolt, nut, washer]\ntrain: images/train\n")
    assert boxes(root) == ALL


# --- YOLO: what is a split, and what a dataset ---


def _parted(root: Path, *, config: bool = True) -> Path:
    """images/train, images/val and their labels: two images and one."""
    for split, shots in (("train", SHOTS[:2]), ("val", SHOTS[2:])):
        for shot in shots:
            save_image(root / "images" / split / shot.file, shot.width, shot.height)
            write_text(root / "labels" / split / f"{Path(shot.file).stem}.txt", yolo_lines(shot))
    if config:
        write_text(root / "data.yaml", f"train: images/train\nval: images/val\nnames: [{', '.join(CLASSES)}]\n")
    return root


@pytest.mark.parametrize("config", [True, False])
def test_a_set_one_folder_down_keeps_its_splits(config: bool, tmp_path: Path) -> None:
    _parted(tmp_path / "outer/ds", config=config)
    write_text(tmp_path / "outer/notes.md", "what unpacking an archive leaves beside the folder")
    assert list_splits(tmp_path / "outer") == list_splits(tmp_path / "outer/ds") == ("train", "val")
    assert boxes(tmp_path / "outer", split="train").keys() == {"a.png", "b.png"}
    with pytest.raises(DataError, match="has the splits train, val"):
        open_dataset(tmp_path / "outer")


def test_labels_beside_images_one_folder_down_keep_the_splits_of_their_yaml(tmp_path: Path) -> None:
    root = tmp_path / "outer/ds"
    for shot in SHOTS:
        save_image(root / shot.file, shot.width, shot.height)
        write_text(root / f"{Path(shot.file).stem}.txt", yolo_lines(shot))
    write_text(root / "data.yaml", f"train: train.txt\nval: val.txt\nnames: [{', '.join(CLASSES)}]\n")
    write_text(root / "train.txt", "a.png\nb.png\n")
    write_text(root / "val.txt", "c.jpg\n")
    assert list_splits(tmp_path / "outer") == ("train", "val")
    assert boxes(tmp_path / "outer", split="val").keys() == {"c.jpg"}


@pytest.mark.parametrize("config", [True, False])
def test_two_sets_in_one_folder_are_no_splits_of_one(config: bool, tmp_path: Path) -> None:
    _parted(tmp_path / "first", config=config)
    _parted(tmp_path / "second", config=config)
    with pytest.raises(DataError, match=r"datasets of their own \(first, second\)\. Give one folder, such as .*first"):
        list_splits(tmp_path)


def test_a_set_beside_a_folder_of_images_and_labels_is_no_split(tmp_path: Path) -> None:
    _parted(tmp_path / "ds")
    _twins(tmp_path / "more")
    with pytest.raises(DataError, match=r"a dataset of its own \(ds\), and beside it more\. Give one folder"):
        list_splits(tmp_path)


def test_folders_inside_of_a_split_leave_it_one(tmp_path: Path) -> None:
    for split, shot in (("train", SHOTS[0]), ("valid", SHOTS[2])):
        save_image(tmp_path / split / "images/film" / shot.file, shot.width, shot.height)
        write_text(tmp_path / split / "labels/film" / f"{Path(shot.file).stem}.txt", yolo_lines(shot))
    assert list_splits(tmp_path) == ("train", "valid")
    assert len(boxes(tmp_path, split="train")["a.png"]) == 2


def test_folders_of_images_and_labels_are_splits_by_their_names(tmp_path: Path) -> None:
    _twins(tmp_path / "left")
    _twins(tmp_path / "right")
    assert list_splits(tmp_path) == ("left", "right")


# --- CVAT, Darknet, Ultralytics ---


def _darknet(root: Path, prefix: str, subset: str = "train") -> Path:
    folder = f"obj_{subset}_data"
    for shot in SHOTS:
        save_image(root / folder / shot.file, shot.width, shot.height)
        write_text(root / folder / f"{Path(shot.file).stem}.txt", yolo_lines(shot))
    write_text(root / f"{subset}.txt", "".join(f"{prefix}{folder}/{shot.file}\n" for shot in SHOTS))
    write_text(root / "obj.names", NAMES)
    said = f"classes = 3\n{subset} = data/{subset}.txt\nnames = data/obj.names\nbackup = backup/\n"
    write_text(root / "obj.data", said)
    return root


@pytest.mark.parametrize("prefix", ["data/", "", "./", "/home/me/data/", "C:\\work\\data\\"])
def test_cvats_yolo_export_has_its_names_whatever_stands_before_its_paths(prefix: str, tmp_path: Path) -> None:
    assert boxes(_darknet(tmp_path, prefix)) == ALL


def test_cvats_export_of_two_subsets_has_two_splits(tmp_path: Path) -> None:
    _darknet(tmp_path, "data/", "valid")
    _darknet(tmp_path, "data/")
    assert sorted(fpn.list_splits(tmp_path)) == ["train", "valid"]
    assert boxes(tmp_path, split="val") == ALL


def test_an_obj_data_without_its_names_is_refused(tmp_path: Path) -> None:
    (_darknet(tmp_path, "data/") / "obj.names").unlink()
    with pytest.raises(DataNotFoundError, match=r"names of its classes should be in data/obj\.names"):
        open_dataset(tmp_path)


def test_a_list_of_another_machine_is_found_and_said(tmp_path: Path) -> None:
    root = write_yolo(tmp_path)
    write_text(root / "data.yaml", f"train: list.txt\nnames: [{', '.join(CLASSES)}]\n")
    write_text(root / "list.txt", "".join(f"/content/set/images/train/{shot.file}\n" for shot in SHOTS))
    assert boxes(root) == ALL
    assert "3 file names are not written as the files are called" in open_dataset(root).remarks[0]
    assert len(messages(root, "name-repaired")) == 3


@pytest.mark.parametrize("entry", ["/content/set/images/train", "../images/train", "D:\\set\\images\\train"])
def test_a_split_of_another_machine_is_found(entry: str, tmp_path: Path) -> None:
    root = write_yolo(tmp_path)
    write_text(root / "data.yaml", f"train: {entry}\nnames: [{', '.join(CLASSES)}]\n")
    assert boxes(root) == ALL


def test_a_missing_test_split_leaves_the_others_usable(tmp_path: Path) -> None:
    root = write_yolo(tmp_path)
    write_text(root / "data.yaml", f"train: images/train\ntest: ../test/images\nnames: [{', '.join(CLASSES)}]\n")
    assert fpn.list_splits(root) == ("train",)
    assert boxes(root) == ALL
    report = check(root)
    assert report.passed
    assert "the images of split 'test' should be in" in report.of("split-missing")[0].message
    with pytest.raises(DataNotFoundError, match="the images of split 'test' should be in"):
        open_dataset(root, split="test")


def test_a_missing_training_split_is_an_error(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, split="val")
    write_text(root / "data.yaml", f"train: images/train\nval: images/val\nnames: [{', '.join(CLASSES)}]\n")
    assert boxes(root) == ALL
    assert not check(root).passed


def test_the_folder_of_all_images_does_not_stand_in_for_a_missing_split(tmp_path: Path) -> None:
    root = write_yolo(tmp_path)
    write_text(root / "data.yaml", f"train: images/train\nval: val/images\nnames: [{', '.join(CLASSES)}]\n")
    assert fpn.list_splits(root) == ("train",)


# --- lines whose meaning is declared ---


def test_keypoints_behind_a_box_are_no_outline_where_the_yaml_says_so(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, FEW)
    write_text(root / "data.yaml", "train: images/train\nkpt_shape: [2, 2]\nnames: [bolt, nut, washer]\n")
    write_text(root / "labels/train/a.txt", "1 0.5 0.5 0.5 0.5 0.4 0.4 0.6 0.6\n")
    assert boxes(root) == {"a.png": [("nut", [13, 9, 40, 28])]}
    write_text(root / "labels/train/a.txt", "1 0.5 0.5 0.5 0.5 0.4 0.4 2 0.6 0.6 2\n")
    write_text(root / "data.yaml", "train: images/train\nkpt_shape: [2, 3]\nnames: [bolt, nut, washer]\n")
    assert boxes(root) == {"a.png": [("nut", [13, 9, 40, 28])]}


def test_lines_that_look_like_undeclared_keypoints_are_refused(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, FEW)
    write_text(root / "labels/train/a.txt", "1 0.5 0.5 0.5 0.5 0.4 0.4 0.6 0.6\n0 0.4 0.4 0.4 0.4 0.3 0.3 0 0\n")
    with pytest.raises(DataError, match=r"kpt_shape: \[2, 2\]"):
        open_dataset(root)


@pytest.mark.parametrize("line", ["1 0.5 0.5 0.2 0.2 0.9 3", "1 0.5 0.5 0.2 0.2 0.87 1"])
def test_a_confidence_and_a_track_are_no_triangle(line: str, tmp_path: Path) -> None:
    root = write_yolo(tmp_path, FEW)
    write_text(root / "labels/train/a.txt", f"{line}\n")
    with pytest.raises(DataError, match=r"a\.txt, line 1: .* may be a box with a confidence and a track"):
        open_dataset(root)


def test_a_triangle_is_an_outline(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, FEW)
    write_text(root / "labels/train/a.txt", "1 0 0 1 0 0.5 0.5\n")
    assert boxes(root) == {"a.png": [("nut", [0, 0, 53, 18])]}


def test_a_box_that_covers_its_image_and_reaches_far_out_is_in_pixels(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, FEW)
    write_text(root / "labels/train/a.txt", "1 0.5 0.5 53 37\n")
    with pytest.raises(DataError, match=r"a\.txt, line 1: box \(-26, -18, 27, 19\) reaches far out of the image"):
        open_dataset(root)


# --- data that nobody would read ---


def test_folders_with_a_dot_in_their_name_are_read(tmp_path: Path) -> None:
    for day in ("2024.05.01", "day2"):
        write_yolo(tmp_path, (FEW[0]._replace(file=f"{day}.png"),), split=f"train/{day}")
    write_text(tmp_path / "data.yaml", f"train: images/train\nnames: [{', '.join(CLASSES)}]\n")
    assert list(boxes(tmp_path)) == ["2024.05.01.png", "day2.png"]
    assert len(open_dataset(tmp_path).targets(0)) == 2


def test_labels_beside_images_are_read_where_there_is_no_folder_of_labels(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, FEW)
    (root / "labels/train/a.txt").rename(root / "images/train/a.txt")
    assert boxes(root) == A


@pytest.mark.parametrize("suffix", [".jfif", ".JPG", ".TIF", ".tiff", ".webp", ".avif", ".jpe", ".bmp"])
def test_images_of_other_suffixes_are_read(suffix: str, tmp_path: Path) -> None:
    root = write_yolo(tmp_path, FEW)
    image = root / "images/train/a.png"
    image.rename(image.with_suffix(suffix))  # what it is, its content says
    assert list(boxes(root)) == [f"a{suffix}"]


def test_what_is_left_aside_is_told_by_folder(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set")
    (root / "labels").rename(root / "label")
    save_image(root / "more/x.png", 8, 8)
    save_image(root / "more/y.png", 8, 8)
    write_text(root / "raw/z.NEF", "raw")
    save_image(root / ".thumbnails/a.png", 8, 8)
    report = check(root)
    assert [finding.message for finding in report.of("file-aside")] == [
        ".thumbnails/: its images are not read: a hidden folder, or one of a tool's own",
        "label/train/a.txt and 1 more: label files of YOLO that belong to no image that is read",
        "more/x.png and 1 more: images that are in no split",
        "raw/z.NEF: images of a kind (.nef) that is not read: save them as JPEG or PNG",
    ]
    assert [finding.message for finding in report.of("objects-none")] == ["train: no image has an object"]
    assert not report.passed


def test_crowds_alone_are_nothing_to_learn_from(tmp_path: Path) -> None:
    annotations = tuple(each._replace(ignore=True) for each in FEW[0].annotations)
    root = write_coco(tmp_path, (FEW[0]._replace(annotations=annotations),))
    assert messages(root, "objects-none") == ["all: all of its 2 objects are crowds or difficult"]


def test_what_predict_wrote_is_no_dataset_and_no_part_of_one(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set", FEW)
    said = {"info": {"made_by": "fpn predict"}, **coco_json(FEW)}
    for folder in (root / "images/train/predictions", root):
        folder.mkdir(exist_ok=True)
        (folder / "detections.json").write_text(json.dumps(said, indent=1))
    save_image(root / "images/train/predictions/a.jpg", 53, 37)
    assert boxes(root) == A
    found = messages(root, "file-aside")
    assert found == ["images/train/predictions/: its images are not read: what `fpn predict` wrote"]


# --- VOC ---


@pytest.mark.parametrize(
    ("annotations", "images"),
    [("annots", "images"), ("Annotations", "pics"), ("labels_xml", "photos"), ("all", "all"), ("xml", "JPEGImages")],
)
def test_voc_is_recognised_whatever_its_folders_are_called(annotations: str, images: str, tmp_path: Path) -> None:
    for shot in SHOTS:
        save_image(tmp_path / images / shot.file, shot.width, shot.height)
        write_text(tmp_path / annotations / f"{Path(shot.file).stem}.xml", voc_xml(shot))
    write_text(tmp_path / "README.md", "photos")
    assert boxes(tmp_path) == ALL


def test_nested_xml_finds_the_image_of_its_own_folder(tmp_path: Path) -> None:
    for folder, shot in (("", SHOTS[0]), ("cam2/", SHOTS[0]._replace(width=40, annotations=SHOTS[0].annotations[:1]))):
        save_image(tmp_path / "JPEGImages" / folder / shot.file, shot.width, shot.height)
        write_text(tmp_path / "Annotations" / folder / "a.xml", voc_xml(shot))
    dataset = open_dataset(tmp_path)
    assert [(dataset.size(k).width, len(dataset.targets(k))) for k in (0, 1)] == [(53, 2), (40, 1)]


def test_annotations_divided_by_folders_are_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        save_image(tmp_path / "images" / split / "a.png", 53, 37)
        write_text(tmp_path / "annotations" / split / "a.xml", voc_xml(FEW[0]))
    assert sorted(fpn.list_splits(tmp_path)) == ["train", "val"]
    assert boxes(tmp_path, split="val") == A


def test_xml_of_another_tool_is_no_voc(tmp_path: Path) -> None:
    root = write_yolo(tmp_path)
    write_text(root / "images/train/a.xml", "<?xml version='1.0'?><x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
    (root / "data.yaml").unlink()
    write_text(root / "classes.txt", NAMES)
    assert boxes(root) == ALL


def test_a_list_of_names_that_end_in_a_digit_is_a_split(tmp_path: Path) -> None:
    shots = [SHOTS[0]._replace(file=f"img {k}.png") for k in (0, 1)]
    root = write_voc(tmp_path, tuple(shots))
    write_text(root / "ImageSets/Main/train.txt", "img 0\nimg 1\n")
    write_text(root / "ImageSets/Main/nut_train.txt", "img -1\nother 1\n")
    assert fpn.list_splits(root) == ("train",)
    assert len(open_dataset(root)) == 2
    assert messages(root, "file-aside") == ["ImageSets/Main/nut_train.txt: one class's list of images"]


def test_filename_decides_between_images_of_one_stem(tmp_path: Path) -> None:
    write_text(tmp_path / "a.xml", voc_xml(FEW[0]))
    save_image(tmp_path / "a.jpg", 53, 37)
    save_image(tmp_path / "a.png", 53, 37)
    assert list(boxes(tmp_path)) == ["a.png"]
    write_text(tmp_path / "a.xml", voc_xml(FEW[0]._replace(file="stale.bmp")))
    with pytest.raises(DataError, match=r"a\.xml: a\.jpg, a\.png have its name, and <filename> says none of them"):
        open_dataset(tmp_path)


def test_xml_in_a_chinese_encoding_is_read_and_an_unknown_one_says_what_to_do(tmp_path: Path) -> None:
    root = write_voc(tmp_path, FEW)
    text = voc_xml(FEW[0]).replace("bolt", "\u87ba\u6813")
    (root / "Annotations/a.xml").write_bytes(b'<?xml version="1.0" encoding="gb2312"?>\n' + text.encode("gb2312"))
    assert "\u87ba\u6813" in open_dataset(root).classes.names
    (root / "Annotations/a.xml").write_bytes(b'<?xml version="1.0" encoding="hz"?>\n' + text.encode("gb2312"))
    with pytest.raises(DataError, match=r"a\.xml.*Save it again as UTF-8"):
        open_dataset(root)


def test_a_turned_rectangle_is_its_bounds(tmp_path: Path) -> None:
    # 20 wide and 10 high about (20, 15), turned by 90 degrees: 10 wide and 20 high.
    box = "<bndbox><xmin>10</xmin><ymin>10</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
    turn = "<attributes><attribute><name>rotation</name><value>90.0</value></attribute></attributes>"
    save_image(tmp_path / "v/JPEGImages/a.png", 53, 37)
    write_text(
        tmp_path / "v/Annotations/a.xml", f"<annotation><object><name>nut</name>{turn}{box}</object></annotation>"
    )
    assert boxes(tmp_path / "v") == {"a.png": [("nut", [15, 5, 25, 25])]}
    data = coco_json(FEW)
    data["annotations"] = [data["annotations"][0] | {"bbox": [10, 10, 20, 10], "attributes": {"rotation": 90.0}}]
    write_coco(tmp_path / "c", FEW)
    write_json(tmp_path / "c/annotations/instances.json", data)
    assert boxes(tmp_path / "c") == {"a.png": [("nut", [15, 5, 25, 25])]}
    assert "turned by 90 degrees" in messages(tmp_path / "c", "box-mended")[0]


# --- COCO ---


def test_keypoint_files_are_read_for_their_boxes_if_there_is_no_other(tmp_path: Path) -> None:
    for shot in SHOTS:
        save_image(tmp_path / "images/default" / shot.file, shot.width, shot.height)
    write_json(tmp_path / "annotations/person_keypoints_default.json", coco_json())
    assert boxes(tmp_path) == boxes(tmp_path / "annotations/person_keypoints_default.json") == ALL
    write_json(tmp_path / "annotations/instances_default.json", coco_json())
    assert fpn.list_splits(tmp_path) == ("default",)
    assert "annotations/person_keypoints_default.json: another task's" in messages(tmp_path, "file-aside")[0]


def test_json_files_of_split_folders_are_splits(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        for shot in SHOTS:
            save_image(tmp_path / split / "images" / shot.file, shot.width, shot.height)
        write_json(tmp_path / split / "labels.json", coco_json())
    assert sorted(fpn.list_splits(tmp_path)) == ["train", "valid"]
    assert boxes(tmp_path, split="val") == ALL


def _renamed(root: Path, written: list[str], **sizes: None) -> Path:
    data = coco_json()
    for entry, name in zip(data["images"], written, strict=True):
        entry.update(file_name=name, **sizes)
    write_json(root / "annotations/instances.json", data)
    return root


@pytest.mark.parametrize(
    "pattern",
    [
        "images\\{}",
        "C:\\Users\\me\\set\\images\\{}",
        "/home/me/set/images/{}",
        "file:///home/me/images/{}",
        "/data/local-files/?d=set/images/{}",
        "../images/{}",
        "set/images/{}",
    ],
)
def test_paths_of_other_systems_and_machines_are_found_and_said(pattern: str, tmp_path: Path) -> None:
    root = _renamed(write_coco(tmp_path), [pattern.format(shot.file) for shot in SHOTS], height=None, width=None)
    assert boxes(root) == ALL
    dataset = open_dataset(root)
    said = not pattern.startswith(("images\\", "../"))
    assert bool(dataset.remarks) or not said


def test_percent_signs_accents_case_and_suffixes_are_compared_as_people_mean_them(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    (root / "images/a.png").rename(root / "images/Scha\u0308den 1.png")  # a and two dots, as macOS writes it
    _renamed(root, ["Sch\u00e4den%201.png", "B.PNG", "c.jpeg"])
    dataset = open_dataset(root)
    names = [Path(dataset.path(k)).name for k in range(3)]
    assert names == ["Scha\u0308den 1.png", "b.png", "c.jpg"]
    assert "3 file names are not written as the files are called" in dataset.remarks[0]
    assert len(messages(root, "name-repaired")) == 3


def test_a_name_that_may_mean_two_files_is_missing(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    (root / "images/a.png").rename(root / "images/A.PNG")
    save_image(root / "images/a.PnG", 53, 37)
    with pytest.raises(DataNotFoundError, match=r"a\.png"):
        open_dataset(root)


def test_images_of_another_split_are_not_taken(tmp_path: Path) -> None:
    for shot in SHOTS:
        save_image(tmp_path / "val2/val" / shot.file, shot.width, shot.height)
    write_json(tmp_path / "annotations/instances_train.json", coco_json())
    with pytest.raises(DataNotFoundError, match="none of its 3 images was found"):
        open_dataset(tmp_path)


def test_half_of_a_set_in_another_folder_is_found(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    (root / "second").mkdir()
    (root / "images/b.png").rename(root / "second/b.png")
    assert boxes(root) == ALL
    assert messages(root, "name-repaired") == ["annotations/instances.json: 'b.png' is taken for second/b.png"]


@pytest.mark.parametrize("write", [write_coco, write_voc])
def test_images_elsewhere_are_named(write: Any, tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    (root / ("images" if write is write_coco else "JPEGImages")).rename(tmp_path / "photos")
    with pytest.raises(DataNotFoundError, match="--images"):
        open_dataset(root)
    assert boxes(root, images=tmp_path / "photos") == ALL
    assert check(root, images=tmp_path / "photos").passed
    with pytest.raises(DataNotFoundError, match="no such folder of images"):
        open_dataset(root, images=tmp_path / "none")


def test_labels_of_yolo_find_images_elsewhere(tmp_path: Path) -> None:
    root = _twins(tmp_path / "set")
    write_text(root / "classes.txt", NAMES)
    (root / "images").rename(tmp_path / "photos")
    write_text(root / "labels/classes.txt", NAMES)
    assert boxes(root, images=tmp_path / "photos") == ALL
    assert boxes(root / "labels", images=tmp_path / "photos") == ALL


def test_an_image_listed_once_for_each_object_has_all_of_them(tmp_path: Path) -> None:
    root = write_coco(tmp_path, FEW)
    data = coco_json(FEW)
    data["images"].append(data["images"][0] | {"id": 7})
    data["annotations"][1]["image_id"] = 7
    write_json(root / "annotations/instances.json", data)
    assert boxes(root) == A
    assert messages(root, "image-merged") == [
        "annotations/instances.json: images/a.png stands in 'images' 2 times (ids 100, 7): its objects are put together"
    ]


def test_an_outline_without_a_box_gives_it(tmp_path: Path) -> None:
    root = write_coco(tmp_path, FEW)
    data = coco_json(FEW)
    data["annotations"][0].update(bbox=None, segmentation=[[3, 4, 20, 4, 20, 30], [5, 5, 6, 5, 6, 6]])
    write_json(root / "annotations/instances.json", data)
    assert boxes(root) == A
    assert "has no bbox: the bounds of its outline are taken" in messages(root, "box-mended")[0]


@pytest.mark.parametrize("key", ["categories", "images"])
def test_negative_ids_are_refused_before_training(key: str, tmp_path: Path) -> None:
    root = write_coco(tmp_path, FEW)
    data = coco_json(FEW)
    data[key][0]["id"] = -1
    write_json(root / "annotations/instances.json", data)
    with pytest.raises(DataError, match="must be a whole number from 0 on"):
        open_dataset(root)
    assert not check(root).passed


def test_an_item_of_predict_is_no_annotation_file(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    said = {"info": {"made_by": "fpn predict"}, **coco_json()}
    (tmp_path / "annotations/detections.json").write_text(json.dumps(said, indent=1))
    with pytest.raises(DataError, match="no dataset of a known layout"):
        open_dataset(tmp_path)
