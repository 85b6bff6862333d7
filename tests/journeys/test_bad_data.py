from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from shell import Shell
from written_sets import SHOTS, coco_json, voc_xml, write_coco, write_text, write_voc, write_yolo

JSON = "annotations/instances.json"


def spoil_json(change: Callable[[dict], None]) -> Callable[[Path], Path]:
    def spoil(root: Path) -> Path:
        write_coco(root)
        data = coco_json()
        change(data)
        write_text(root / JSON, json.dumps(data))  # writes NaN as Python does
        return root

    return spoil


def broken_json(root: Path) -> Path:
    write_coco(root)
    write_text(root / JSON, json.dumps(coco_json())[:-40])
    return root


def broken_xml(root: Path) -> Path:
    write_voc(root)
    write_text(root / "Annotations" / "a.xml", voc_xml(SHOTS[0])[:-30])
    return root


def xml_with_entities(root: Path) -> Path:
    write_voc(root)
    entity = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>\n'
    text = entity + voc_xml(SHOTS[0]).replace("<name>nut</name>", "<name>&x;</name>")
    write_text(root / "Annotations" / "a.xml", text)
    return root


def missing_image(root: Path) -> Path:
    write_coco(root)
    (root / "images" / "a.png").unlink()
    return root


def unknown_yolo_class(root: Path) -> Path:
    write_yolo(root)
    write_text(root / "labels" / "train" / "a.txt", "9 0.5 0.5 0.2 0.2\n")
    return root


def empty_folder(root: Path) -> Path:
    root.mkdir()
    return root


def box(*values: float) -> Callable[[dict], None]:
    return lambda data: data["annotations"][0].update(bbox=list(values))


def twice(kind: str) -> Callable[[dict], None]:
    return lambda data: data[kind].append(dict(data[kind][0]))


BROKEN = {
    "broken JSON": (broken_json, "instances.json"),
    "broken XML": (broken_xml, "a.xml"),
    "XML with entities": (xml_with_entities, "a.xml"),
    "missing image": (missing_image, "a.png"),
    "box outside": (spoil_json(box(500, 500, 20, 20)), "a.png"),
    "box of NaN": (spoil_json(box(float("nan"), 1, 20, 20)), "a.png"),
    "negative width": (spoil_json(box(5, 5, -3, 20)), "a.png"),
    "annotation id twice": (spoil_json(twice("annotations")), "instances.json"),
    "image id twice": (spoil_json(twice("images")), "instances.json"),
    "unknown class": (spoil_json(lambda data: data["annotations"][0].update(category_id=99)), "99"),
    "unknown YOLO class": (unknown_yolo_class, "a.txt"),
    "empty folder": (empty_folder, "is empty"),
    "no such folder": (lambda root: root / "absent", "no such file or folder"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_data_stops_train_and_evaluate_before_any_work(
    fpn: Shell, model: Path, tmp_path: Path, what: str
) -> None:
    spoil, reason = BROKEN[what]
    data = spoil(tmp_path / "set")
    for words in (["train", data, "--output", tmp_path / "run"], ["evaluate", model, data]):
        message = fpn.fails(*words)
        assert reason in message
        assert "passwd" not in message
        assert "root:" not in message
    assert not (tmp_path / "run").exists()


def test_a_damaged_image_stops_measuring_and_is_named(fpn: Shell, model: Path, tmp_path: Path) -> None:
    data = write_coco(tmp_path / "set")
    (data / "images" / "b.png").write_bytes((data / "images" / "b.png").read_bytes()[:60])
    assert "b.png" in fpn.fails("evaluate", model, data, "--output", tmp_path / "metrics.json")
    assert not (tmp_path / "metrics.json").exists()


def test_a_wrong_split_lists_those_there_are(fpn: Shell, model: Path, tmp_path: Path) -> None:
    message = fpn.fails("evaluate", model, write_yolo(tmp_path / "set"), "--split", "trian")
    assert "'trian'" in message
    assert "train" in message


def test_figures_that_cannot_be_written_leave_what_is_there(fpn: Shell, model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    ended = fpn("evaluate", model, write_coco(tmp_path / "set"), "--output", tmp_path / "mine" / "metrics.json")
    assert ended.status == 1
    assert "can't write there" in ended.err
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_class_that_the_model_does_not_know_is_named_and_the_rest_is_measured(
    fpn: Shell, model: Path, tmp_path: Path
) -> None:
    data = spoil_json(lambda data: data["categories"].append({"id": 20, "name": "rivet"}))(tmp_path / "set")
    ended = fpn("evaluate", model, data)
    assert ended.status == 0
    assert "rivet" in ended.err


def test_training_into_a_folder_that_holds_something_is_refused(fpn: Shell, tmp_path: Path) -> None:
    write_text(tmp_path / "run" / "thesis.txt", "mine")
    words = ["--weights", "none", "--backbone", "tf_efficientnet_lite0", "--output", tmp_path / "run"]
    assert "is already there. Name a new or empty folder" in fpn.fails("train", write_coco(tmp_path / "set"), *words)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_training_needs_data_and_an_output(fpn: Shell, tmp_path: Path) -> None:
    assert "no DATA" in fpn.fails("train", "--output", tmp_path / "run")
    assert "no --output" in fpn.fails("train", write_coco(tmp_path / "set"))
