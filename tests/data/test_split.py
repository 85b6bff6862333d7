from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from planted_faults import paint
from written_sets import CLASSES, Annotation, Shot, write_coco, write_json, write_text, write_voc, write_yolo

from fpn.data import Dataset, divide, list_splits, open_dataset, split_dataset
from fpn.data.split import image_name
from fpn.errors import ConfigError, DataError, OutputError

WRITERS = {"coco": write_coco, "voc": write_voc, "yolo": write_yolo}
BOX = (4, 4, 24, 24)
# Ten images in which every other has a nut and each fifth a washer beside.
SHOTS = tuple(
    Shot(f"film{k // 2}_{k}.png", 64, 48, tuple(Annotation(name, BOX) for name in ("bolt", "nut")[: 1 + k % 2]))
    for k in range(10)
)


def written(root: Path, family: str = "coco", shots: tuple[Shot, ...] = SHOTS) -> Path:
    """A dataset whose images are all different from each other."""
    WRITERS[family](root, shots)
    for path in sorted(root.rglob("*.png")):
        paint(int(path.stem.split("_")[1])).save(path)
    return root


def objects(dataset: Dataset) -> dict[str, list[tuple[str, list[float]]]]:
    found = {}
    for row in range(len(dataset)):
        targets = dataset.targets(row)
        boxes = [[round(value, 2) for value in box] for box in targets.boxes.tolist()]
        names = [dataset.classes[label] for label in targets.labels.tolist()]
        found[Path(dataset.path(row)).name] = list(zip(names, boxes, strict=True))
    return found


@pytest.mark.parametrize("family", ["coco", "voc", "yolo"])
def test_each_format_comes_out_as_it_went_in_with_all_objects_in_one_part(tmp_path: Path, family: str) -> None:
    whole = open_dataset(written(tmp_path / "from", family))
    result = split_dataset(tmp_path / "from", tmp_path / "to", validation=0.2, test=0.2)
    assert (result.format, list(result.losses)) == (family, [])
    parts = {split: open_dataset(tmp_path / "to", split=split) for split in ("train", "val", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 6, "val": 2, "test": 2}
    assert {name: each for part in parts.values() for name, each in objects(part).items()} == objects(whole)
    assert all("nut" in [name for each in objects(part).values() for name, _ in each] for part in parts.values())


def test_another_format_when_asked(tmp_path: Path) -> None:
    result = split_dataset(written(tmp_path / "from"), tmp_path / "to", validation=0.2, target="yolo")
    assert result.format == "yolo"
    assert sorted(list_splits(tmp_path / "to")) == ["train", "val"]
    assert "YOLO has no category ids: they become 0, 1, 2, ... in the order of the names" in result.losses


def test_images_are_linked_and_take_no_space_or_copied_when_asked(tmp_path: Path) -> None:
    root = written(tmp_path / "from")
    linked = split_dataset(root, tmp_path / "linked", validation=0.2)
    assert linked.linked == 10
    assert (tmp_path / "linked/images/film0_0.png").samefile(root / "images/film0_0.png")
    copied = split_dataset(root, tmp_path / "copied", validation=0.2, copy=True)
    assert copied.linked == 0
    assert not (tmp_path / "copied/images/film0_0.png").samefile(root / "images/film0_0.png")


def test_where_the_file_system_can_not_link_images_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    root = written(tmp_path / "from")
    monkeypatch.setattr(os, "link", refuse)
    assert split_dataset(root, tmp_path / "to", validation=0.2).linked == 0
    assert sum(len(open_dataset(tmp_path / "to", split=split)) for split in ("train", "val")) == 10


def test_images_that_look_alike_stay_together(tmp_path: Path) -> None:
    root = written(tmp_path)
    for number in range(1, 5):  # the first five of one scene, saved with other brightness
        paint(0).point(lambda value, k=number: value - 4 * k if value > 20 else value).save(
            root / f"images/{SHOTS[number].file}"
        )
    dataset = open_dataset(root)
    for seed in range(4):
        division = divide(dataset, validation=0.5, seed=seed)
        scene = {part for part, rows in division.parts.items() if set(rows) & set(range(5))}
        assert len(scene) == 1
    assert "5 images look like others: 1 groups that stay together" in division.remarks
    assert not any("look like" in remark for remark in divide(dataset, validation=0.5, similar=False).remarks)


def test_groups_are_what_an_expression_finds_in_the_path(tmp_path: Path) -> None:
    dataset = open_dataset(written(tmp_path))
    division = divide(dataset, validation=0.4, by_group=r"(film\d)_")
    films = {part: {SHOTS[row].file[:5] for row in rows} for part, rows in division.parts.items()}
    assert films["train"] | films["val"] == {f"film{k}" for k in range(5)}
    assert not films["train"] & films["val"]
    assert division.remarks[0] == r"5 groups by '(film\\d)_'"
    (told, *_) = divide(dataset, validation=0.2, by_group=r"film[0-3]").remarks
    assert told.startswith("4 groups by 'film[0-3]'; 2 images in whose path it is not found are their own group")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "validation 0 and test 0: expected shares"),
        ({"validation": 1.0}, "validation 1 and test 0: expected shares"),
        ({"validation": 0.5, "test": 0.5}, "together below 1"),
        ({"validation": -0.1, "test": 0.5}, "above 0"),
        ({"validation": 0.2, "seed": -1}, "seed -1: expected a whole number from 0"),
        ({"validation": 0.2, "by_group": "("}, r"by_group '\(': no regular expression"),
        ({"validation": 0.2, "by_group": "reel"}, "by_group 'reel': is found in no image's path, such as images/film0"),
    ],
)
def test_wishes_that_can_not_be_met_are_refused(tmp_path: Path, asked: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        divide(open_dataset(written(tmp_path)), similar=False, **asked)


def test_a_seed_that_is_none_is_refused_before_any_image_is_looked_at(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seed -1"):
        split_dataset(tmp_path / "not-there", tmp_path / "to", validation=0.2, seed=-1)


def test_a_part_without_an_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image is left for val: its 10 images are in 1 groups"):
        divide(open_dataset(written(tmp_path)), validation=0.2, by_group="film")
    with pytest.raises(DataError, match=r"Take a larger share or smaller groups\.$"):
        divide(open_dataset(tmp_path), validation=0.2, by_group="film", similar=False)


def test_rare_classes_and_parts_off_their_share_are_told(tmp_path: Path) -> None:
    shots = (*SHOTS[:9], Shot("film9_9.png", 64, 48, (Annotation("washer", BOX),)))
    dataset = open_dataset(written(tmp_path, "coco", shots))
    told = divide(dataset, validation=0.2, similar=False).remarks
    assert told == ["val has no object of 1 rare classes: washer (in 1 images of all)"]
    told = divide(dataset, validation=0.5, similar=False, by_group="(film)[0-3]").remarks
    assert told[1] == (
        "train has 80.0% of the images instead of 50.0%: the largest group that stays together has 8 of 10 images"
    )


def test_what_is_there_already_is_not_touched_and_nothing_is_left_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = written(tmp_path / "from")
    write_text(tmp_path / "to/mine.txt", "mine")
    with pytest.raises(OutputError, match="is already there"):
        split_dataset(root, tmp_path / "to", validation=0.2)
    (root / "images/film4_9.png").unlink()
    with pytest.raises(DataError, match=r"film4_9\.png"):
        split_dataset(root, tmp_path / "new", validation=0.2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from", "to"]
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["mine.txt"]


def test_invalid_boxes_stop_it_or_are_left_out(tmp_path: Path) -> None:
    shots = (Shot("film9_9.png", 64, 48, (Annotation("nut", (5, 5, 5, 9)), Annotation("nut", BOX))), *SHOTS[:9])
    root = written(tmp_path / "from", "voc", shots)
    with pytest.raises(DataError, match=r"width 0.*--drop-invalid leaves invalid boxes out"):
        split_dataset(root, tmp_path / "to", validation=0.2)
    result = split_dataset(root, tmp_path / "to", validation=0.2, drop_invalid=True)
    assert list(result.losses) == ["1 invalid boxes"]


def test_one_of_several_splits_is_divided(tmp_path: Path) -> None:
    root = written(tmp_path / "from", "voc")
    stems = [Path(shot.file).stem for shot in SHOTS]
    for split, names in {"train": stems[:8], "holiday": stems[8:]}.items():
        write_text(root / f"ImageSets/Main/{split}.txt", "".join(f"{name}\n" for name in names))
    with pytest.raises(DataError, match="has the splits holiday, train"):
        split_dataset(root, tmp_path / "to", validation=0.25)
    result = split_dataset(root, tmp_path / "to", validation=0.25, split="train")
    assert {name: len(rows) for name, rows in result.division.parts.items()} == {"train": 6, "val": 2}


def test_parts_in_memory_have_the_original_ids_and_a_name_of_their_own(tmp_path: Path) -> None:
    dataset = open_dataset(written(tmp_path))
    division = divide(dataset, validation=0.2)
    rows = division.parts["val"]
    held = dataset.subset(rows, name="held out")
    assert held.name == "held out"
    assert dataset.subset(rows).name == dataset.name
    assert [held.image_id(k) for k in range(2)] == [100 + row for row in rows]
    assert image_name(held, 0) == f"images/{SHOTS[rows[0]].file}"
    assert division.objects("train")[CLASSES.index("bolt")] + division.objects("val")[CLASSES.index("bolt")] == 10
    assert [sum(pair) for pair in zip(division.images("train"), division.images("val"), strict=True)] == [10, 5, 0]


def test_an_undivided_coco_json_of_another_tool_keeps_what_it_says_beside(tmp_path: Path) -> None:
    root = written(tmp_path / "from")
    path = root / "annotations/instances.json"
    said = json.loads(path.read_text())
    said["info"] = {"year": 2020}
    write_json(path, said)
    split_dataset(root, tmp_path / "to", validation=0.2)
    parts = [
        json.loads((tmp_path / f"to/annotations/instances_{split}.json").read_text()) for split in ("train", "val")
    ]
    assert [part["info"] for part in parts] == [{"year": 2020}] * 2
    assert sorted(each["id"] for part in parts for each in part["images"]) == [100 + k for k in range(10)]
    assert [each["id"] for each in parts[0]["categories"]] == [3, 7, 11]
