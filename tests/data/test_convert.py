from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from written_sets import (
    CLASSES,
    SHOTS,
    Annotation,
    Shot,
    coco_json,
    save_image,
    voc_xml,
    write_coco,
    write_json,
    write_text,
    write_voc,
    write_yolo,
)

from fpn.data.checks.inspection import check
from fpn.data.convert import convert
from fpn.data.dataset import Dataset
from fpn.data.formats.open import list_splits, open_dataset
from fpn.errors import DataError, OutputError

WRITERS = {"coco": write_coco, "voc": write_voc, "yolo": write_yolo}
NOT_IN_YOLO = [
    "YOLO has no category ids: they become 0, 1, 2, ... in the order of the names",
    "YOLO has no ids of images: they become 1, 2, 3, ... in order; and none of objects",
    "YOLO has no place for what the json says beside (info, licences, supercategories)",
]
NOT_IN_VOC = [
    "VOC has no category ids: they become 1, 2, 3, ... in the order of labels.txt",
    "VOC has no ids of images: they become 1, 2, 3, ... in order; and none of objects",
    "VOC has no place for what the json says beside (info, licences, supercategories)",
]


def objects(dataset: Dataset) -> dict[str, list[tuple[str, tuple[float, ...], bool]]]:
    """Image's name -> its objects: class, box to 1/1000 of a pixel, ignored or not."""
    found = {}
    for row in range(len(dataset)):
        targets = dataset.targets(row)
        boxes = [tuple(round(value, 3) for value in box) for box in targets.boxes.tolist()]
        names = [dataset.classes[label] for label in targets.labels.tolist()]
        found[Path(dataset.path(row)).name] = list(zip(names, boxes, targets.ignore.tolist(), strict=True))
    return found


def loaded(root: Path, name: str = "instances.json") -> Any:
    return json.loads((root / "annotations" / name).read_text())


@pytest.mark.parametrize("source", ["coco", "voc", "yolo"])
@pytest.mark.parametrize("target", ["coco", "voc", "yolo"])
def test_boxes_classes_and_images_arrive_from_every_format_in_every_other(
    tmp_path: Path, source: str, target: Any
) -> None:
    root = WRITERS[source](tmp_path / "from")
    split = "train" if source == "yolo" else None
    convert(root, target, tmp_path / "to")
    arrived = open_dataset(tmp_path / "to", split=split)
    assert objects(arrived) == {
        shot.file: [(each.name, tuple(each.box), False) for each in shot.annotations] for shot in SHOTS
    }
    assert arrived.classes.names == ("bolt", "nut", "washer")
    for row, shot in enumerate(SHOTS):
        (original,) = root.rglob(shot.file)
        assert Path(arrived.path(row)).read_bytes() == original.read_bytes()
    assert check(tmp_path / "to").passed


def test_coco_to_coco_keeps_the_json_whatever_it_says_beside(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "from")
    data = coco_json()
    data["info"] = {"year": 2026, "contributor": "Ärzte"}
    data["licenses"] = [{"id": 4, "name": "CC"}]
    data["images"][0] |= {"license": 4, "coco_url": "u", "attributes": {"lens": "40x"}}
    data["categories"][0]["supercategory"] = "parts"
    first, second, third = data["annotations"]
    first |= {"id": 77, "area": 321.5, "segmentation": [[3, 4, 20, 4, 20, 30, 3, 30]], "keypoints": [5, 6, 2]}
    second |= {"id": 900100000149, "iscrowd": 1, "segmentation": {"size": [37, 53], "counts": [0, 37 * 53]}}
    second |= {"area": 1961.0}
    third |= {"id": 5, "iscrowd": 0, "ignore": 1, "area": 222.75, "score": 0.5}
    write_json(root / "annotations/instances.json", data)
    converted = convert(root, "coco", tmp_path / "to")
    assert converted.losses == []
    assert loaded(tmp_path / "to") == data


def test_the_real_coco128_is_the_same_after_coco_to_coco(tmp_path: Path, coco128_root: Path) -> None:
    assert convert(coco128_root, "coco", tmp_path / "to").losses == []
    before, after = loaded(coco128_root), loaded(tmp_path / "to")
    assert after["images"] == before["images"]
    assert after["categories"] == before["categories"]
    by_id = {record["id"]: record for record in after["annotations"]}
    assert len(by_id) == len(before["annotations"]) == 939
    for record in before["annotations"]:
        assert by_id[record["id"]] == record


def test_voc_to_coco_to_voc_keeps_pose_parts_source_and_difficult(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "from")
    said = "<source><database>bench</database></source><segmented>0</segmented>"
    extra = "<pose>Left</pose><truncated>1</truncated>"
    part = (
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></part>"
        "<part><name>foot</name></part>"
    )
    text = voc_xml(SHOTS[0]).replace("<object>", f"{said}<object>{extra}{part}", 1)
    write_text(root / "Annotations/a.xml", text.replace("<difficult>0", "<difficult>1", 1))
    to_coco = convert(root, "coco", tmp_path / "coco")
    assert to_coco.losses == ["COCO has no word for VOC's difficult: such objects are marked iscrowd"]
    image, record = loaded(tmp_path / "coco")["images"][0], loaded(tmp_path / "coco")["annotations"][0]
    assert image["attributes"] == {"source": {"database": "bench"}, "segmented": "0"}
    assert record["attributes"]["pose"] == "Left"
    assert [each["name"] for each in record["attributes"]["part"]] == ["head", "foot"]
    convert(tmp_path / "coco", "voc", tmp_path / "voc")
    tree = ElementTree.parse(tmp_path / "voc/Annotations/a.xml").getroot()
    assert (tree.findtext("source/database"), tree.findtext("segmented")) == ("bench", "0")
    first = tree.find("object")
    assert first is not None
    assert [first.findtext(key) for key in ("name", "pose", "truncated", "difficult")] == ["nut", "Left", "1", "1"]
    assert first.findtext("part/bndbox/ymax") == "4"
    assert [each.findtext("name") for each in first.findall("part")] == ["head", "foot"]
    assert len(tree.findall("object")) == 2


def test_bccd_keeps_every_object_on_the_way_to_coco_and_back(tmp_path: Path, bccd_root: Path) -> None:
    split = "test"  # without the two bad boxes
    convert(bccd_root, "coco", tmp_path / "coco", split=split)
    convert(tmp_path / "coco", "voc", tmp_path / "voc")
    before, after = open_dataset(bccd_root, split=split), open_dataset(tmp_path / "voc", split=split)
    assert objects(after) == objects(before)
    name = Path(before.path(0)).stem
    texts = [
        sorted((e.tag, (e.text or "").strip()) for e in ElementTree.parse(root / f"Annotations/{name}.xml").iter())
        for root in (bccd_root, tmp_path / "voc")
    ]
    own = {"folder", "path", "filename", "annotation", "depth"}
    mine, theirs = ([pair for pair in each if pair[0] not in own and pair[1]] for each in texts)
    assert mine == theirs


def coco_with_outlines(root: Path) -> Path:
    write_coco(root)
    data = coco_json()
    first, second, third = data["annotations"]
    first["segmentation"] = [[3, 4, 20, 4, 20, 30, 3, 30]]
    second["segmentation"] = [[0, 0, 53, 0, 53, 10, 0, 10], [0, 27, 53, 27, 53, 37, 0, 37]]
    third |= {"iscrowd": 1, "segmentation": {"size": [7, 101], "counts": [100, 607]}, "caption": "heap", "track": 4}
    write_json(root / "annotations/instances.json", data)
    return root


def test_what_voc_cannot_hold_is_listed(tmp_path: Path) -> None:
    losses = convert(coco_with_outlines(tmp_path / "from"), "voc", tmp_path / "to").losses
    assert sorted(losses) == sorted(
        [
            *NOT_IN_VOC,
            "outlines, which VOC's XML can't hold: 3",
            "field 'caption' of objects",
            "field 'track' of objects",
            "VOC has no word for COCO's iscrowd: such objects are marked difficult",
        ]
    )


def test_what_yolo_cannot_hold_is_listed_and_the_rest_arrives(tmp_path: Path) -> None:
    converted = convert(coco_with_outlines(tmp_path / "from"), "yolo", tmp_path / "to")
    assert sorted(converted.losses) == sorted(
        [
            *NOT_IN_YOLO,
            "outlines of several polygons, joined to one by lines without width",
            "crowds and difficult objects, which YOLO can't mark, left out",
            "field 'caption' of objects",
            "field 'track' of objects",
        ]
    )
    arrived = open_dataset(tmp_path / "to")
    first, second = arrived.targets(0, masks=True).masks.dense()
    # The first is a rectangle; the second two of 53 x 10 pixels, still apart though drawn in one line.
    assert int(first.sum()) == 17 * 26
    assert abs(int(second.sum()) - 2 * 53 * 10) <= 30
    assert int(second[11:26].sum()) <= 15
    assert len(arrived.targets(2)) == 0


def test_a_run_length_code_becomes_its_box_in_yolo_and_is_listed(tmp_path: Path) -> None:
    root = coco_with_outlines(tmp_path / "from")
    data = loaded(root)
    data["annotations"][2]["iscrowd"] = 0
    write_json(root / "annotations/instances.json", data)
    converted = convert(root, "yolo", tmp_path / "to")
    assert "outlines that are run-length codes: their boxes are kept" in converted.losses
    assert objects(open_dataset(tmp_path / "to"))["c.jpg"] == [("washer", (50.25, 1.5, 99.75, 6.0), False)]


def test_a_triangle_with_a_corner_at_the_images_edge_is_read_back_as_an_outline(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "from", SHOTS[:1])
    data = coco_json(SHOTS[:1])
    # In fractions 0.5 0.5 1 0.25 1 1: a box in the image, a fraction and a whole number, as trackers write them.
    data["annotations"] = [
        data["annotations"][0] | {"bbox": [26.5, 9.25, 26.5, 27.75], "segmentation": [[26.5, 18.5, 53, 9.25, 53, 37]]}
    ]
    write_json(root / "annotations/instances.json", data)
    convert(root, "yolo", tmp_path / "to")
    assert objects(open_dataset(tmp_path / "to"))["a.png"] == [("nut", (26.5, 9.25, 53.0, 37.0), False)]


def test_a_box_over_the_edge_stays_in_voc_and_is_cut_and_listed_in_yolo(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "from", (Shot("a.png", 50, 40, (Annotation("nut", (-10, 4, 20, 30)),)),))
    assert convert(root, "coco", tmp_path / "coco").losses == []
    assert loaded(tmp_path / "coco")["annotations"][0]["bbox"] == [-10, 4, 30, 26]
    losses = convert(root, "yolo", tmp_path / "yolo").losses
    assert "parts of boxes outside of their image, which many YOLO programs refuse, cut off" in losses
    assert objects(open_dataset(tmp_path / "yolo"))["a.png"] == [("nut", (0, 4, 20, 30), False)]


def two_splits(root: Path) -> Path:
    write_voc(root)
    for split, names in {"train": "ab", "test": "c", "trainval": "abc", "tiny": "a"}.items():
        write_text(root / f"ImageSets/Main/{split}.txt", "\n".join(names))
    return root


def test_splits_arrive_with_their_names(tmp_path: Path) -> None:
    root = two_splits(tmp_path / "from")
    assert convert(root, "coco", tmp_path / "coco").splits == {"test": 1, "tiny": 1, "train": 2, "trainval": 3}
    assert set(list_splits(tmp_path / "coco")) == {"train", "test", "trainval", "tiny"}
    assert len(open_dataset(tmp_path / "coco", split="trainval")) == 3
    assert len(list((tmp_path / "coco/images").iterdir())) == 3  # each image once


def test_yolo_takes_overlapping_splits_as_lists_and_leaves_out_unions(tmp_path: Path) -> None:
    converted = convert(two_splits(tmp_path / "from"), "yolo", tmp_path / "to")
    assert "split trainval, which is others together" in converted.losses
    assert any(loss.startswith("a data.yaml, which has train, val and test only") for loss in converted.losses)
    assert (tmp_path / "to/tiny.txt").read_text() == "./images/a.png\n"


def test_one_split_alone(tmp_path: Path) -> None:
    convert(two_splits(tmp_path / "from"), "coco", tmp_path / "to", split="test")
    assert [path.name for path in (tmp_path / "to/annotations").iterdir()] == ["instances_test.json"]
    assert [path.name for path in (tmp_path / "to/images").iterdir()] == ["c.jpg"]


@pytest.mark.parametrize("target", ["voc", "yolo"])
def test_a_image_that_two_splits_label_differently_is_listed_where_it_has_one_file_of_labels(
    tmp_path: Path, target: Any
) -> None:
    root = write_coco(tmp_path / "from")
    data = coco_json()
    write_json(root / "annotations/instances_train.json", data)
    data["annotations"] = data["annotations"][:1]
    write_json(root / "annotations/instances_val.json", data)
    (root / "annotations/instances.json").unlink()
    losses = convert(root, target, tmp_path / "to").losses
    # a.png and c.jpg have an object less in val; the labels of train are those that are kept.
    assert "labels of images that another split labels differently: the first are kept: 2" in losses
    assert len(open_dataset(tmp_path / "to", split="val").targets(0)) == 2


def test_images_of_one_name_in_two_folders_are_renamed_and_told(tmp_path: Path) -> None:
    root = tmp_path / "from"
    for folder, size in (("left", 40), ("right", 50)):
        save_image(root / f"images/{folder}/a.png", size, 30)
    images = [
        {"id": k, "file_name": f"{folder}/a.png", "width": 40 + 10 * k, "height": 30}
        for k, folder in enumerate(("left", "right"))
    ]
    notes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}]
    write_json(root / "annotations/instances.json", {**coco_json(), "images": images, "annotations": notes})
    data = loaded(root)
    data["annotations"][0]["category_id"] = 3
    write_json(root / "annotations/instances.json", data)
    converted = convert(root, "voc", tmp_path / "to")
    assert converted.renamed == {"images/left/a.png": "left_a.png", "images/right/a.png": "right_a.png"}
    assert objects(open_dataset(tmp_path / "to")) == {
        "left_a.png": [],
        "right_a.png": [("bolt", (1, 1, 10, 10), False)],
    }


@pytest.mark.parametrize("family", ["coco", "voc", "yolo"])
@pytest.mark.parametrize("name", ["a\nb.jpg", "c\x85d.jpg", " e .jpg", b"f\xff.jpg".decode(errors="surrogateescape")])
def test_a_name_that_no_list_can_hold_is_replaced_and_told(name: str, family: Any, tmp_path: Path) -> None:
    shot = Shot(name, 20, 10, (Annotation("nut", (1, 2, 11, 7)),))
    try:
        write_yolo(tmp_path / "from", (shot,))
    except OSError:
        pytest.skip("this file system takes no such name")
    # Both splits have all images, so that YOLO needs lists of them, too.
    write_text(tmp_path / "from/data.yaml", f"train: images/train\nval: images/train\nnames: [{', '.join(CLASSES)}]\n")
    converted = convert(tmp_path / "from", family, tmp_path / "to")
    assert [Path(old).name for old in converted.renamed] == [name]
    for split in ("train", "val"):
        assert open_dataset(tmp_path / "to", split=split)[0].targets.boxes.round().tolist() == [[1, 2, 11, 7]]


def test_broken_datasets_are_not_converted(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "from", (Shot("a.png", 50, 40, (Annotation("nut", (5, 5, 5, 9)),)),))
    with pytest.raises(DataError, match=r"object 1 \(nut\) has box \(5, 5, 5, 9\): width 0.*--fix OUT"):
        convert(root, "coco", tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_nothing_is_left_where_a_image_turns_out_missing(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "from")
    (root / "images/c.jpg").unlink()
    with pytest.raises(DataError, match=r"c\.jpg: can't be read \(No such file or directory\)"):
        convert(root, "voc", tmp_path / "to")
    assert [path.name for path in tmp_path.iterdir()] == ["from"]


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "from")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for place in (root, root / "annotations/instances.json"):
        with pytest.raises(OutputError, match="is already there"):
            convert(root, "voc", place)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_an_empty_folder_may_be_the_target(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    convert(write_coco(tmp_path / "from"), "voc", tmp_path / "to")
    assert len(open_dataset(tmp_path / "to")) == 3
