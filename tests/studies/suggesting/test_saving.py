from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from PIL import Image

from fpn.data import open_dataset
from fpn.errors import OutputError
from fpn.shapes import Size
from fpn.structures import Classes, Detections
from fpn.studies.suggesting.saving import Target, save_suggestions
from fpn.studies.suggesting.suggest import Suggestion, Suggestions

CLASSES = Classes(("bolt", "<nut> & co"), (3, 7))
FOUND = Detections(
    torch.tensor([[10.0, 5.0, 30.0, 35.0], [0.0, 0.0, 60.0, 20.0], [1.0, 1.0, 2.0, 2.0]]),
    torch.tensor([0.75, 0.5, 0.25]),
    torch.tensor([1, 0, 0]),
)


def suggestions(folder: Path) -> Suggestions:
    (folder / "a b").mkdir(parents=True)
    chosen = []
    for number, name in enumerate(("a b/one.png", "two.png")):
        Image.new("RGB", (60, 40), (number, 2, 3)).save(folder / name)
        found = FOUND if number == 0 else FOUND[:0]
        chosen.append(
            Suggestion(folder / name, name, Size(40, 60), 2.0 - number, 1.0, 1 - number, found, "=1 detection")
        )
    return Suggestions(CLASSES, chosen, [], {"three.png": "is the same file as two.png"}, {}, None, {"count": 2})


def saved(tmp_path: Path, target: Target, **options: object) -> Path:
    save_suggestions(suggestions(tmp_path / "in"), tmp_path / "out", target=target, **options)  # type: ignore[arg-type]
    return tmp_path / "out" / "prelabels"


@pytest.mark.parametrize("target", ["coco", "voc", "yolo"])
def test_drafts_are_a_dataset_that_loads_again(tmp_path: Path, target: Target) -> None:
    dataset = open_dataset(saved(tmp_path, target))
    assert [Path(dataset.path(row)).name for row in range(2)] == ["one.png", "two.png"]
    # From a score of 0.5 on.
    objects = dataset.targets(0)
    assert [dataset.classes[label] for label in objects.labels.tolist()] == ["<nut> & co", "bolt"]
    assert objects.boxes.tolist() == [pytest.approx([10, 5, 30, 35], abs=1e-3), pytest.approx([0, 0, 60, 20], abs=1e-3)]
    assert len(dataset.targets(1)) == 0
    assert dataset.image(0).size == (60, 40)


def test_coco_keeps_ids_scores_and_reasons(tmp_path: Path) -> None:
    data = json.loads((saved(tmp_path, "coco", score=0.7) / "annotations" / "instances.json").read_text())
    assert [(each["id"], each["name"]) for each in data["categories"]] == [(3, "bolt"), (7, "<nut> & co")]
    assert [(each["category_id"], each["score"]) for each in data["annotations"]] == [(7, 0.75)]
    assert [each["fpn_reason"] for each in data["images"]] == ["=1 detection"] * 2


def test_label_studio_gets_percent_of_the_image_and_names_that_fit_its_interface(tmp_path: Path) -> None:
    folder = saved(tmp_path, "label-studio", prefix="https://example.org/", model="cells")
    first, second = json.loads((folder / "label_studio.json").read_text())
    assert first["data"] == {"image": "https://example.org/a%20b/one.png", "rank": 1, "reason": "=1 detection"}
    (prediction,) = first["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("cells", 0.625)
    region, _ = prediction["result"]
    # 10 of 60 and 5 of 40 pixels, 20 wide and 30 high.
    value = region["value"]
    assert [value[key] for key in ("x", "y", "width", "height")] == pytest.approx(
        [16.6667, 12.5, 33.3333, 75], abs=1e-3
    )
    assert (value["rectanglelabels"], value["rotation"], region["score"]) == (["<nut> & co"], 0, 0.75)
    assert (region["original_width"], region["original_height"], region["image_rotation"]) == (60, 40, 0)
    assert second["predictions"] == [{"model_version": "cells", "score": 0.0, "result": []}]
    interface = ET.parse(folder / "label_studio.xml").getroot()
    labels, image = interface.find("RectangleLabels"), interface.find("Image")
    assert labels is not None
    assert image is not None
    assert (region["from_name"], region["to_name"]) == (labels.get("name"), labels.get("toName"))
    assert (image.get("name"), image.get("value")) == (region["to_name"], "$image")
    assert [each.get("value") for each in labels] == ["bolt", "<nut> & co"]
    assert region["type"] == labels.tag.lower()


def test_the_ranking_is_written_as_json_and_csv(tmp_path: Path) -> None:
    saved(tmp_path, "coco")
    ranking = json.loads((tmp_path / "out" / "suggestions.json").read_text())
    assert [each["file_name"] for each in ranking["chosen"]] == ["a b/one.png", "two.png"]
    assert ranking["chosen"][0]["detections"][0] == {
        "class": "<nut> & co",
        "score": 0.75,
        "box": [10.0, 5.0, 30.0, 35.0],
    }
    with (tmp_path / "out" / "suggestions.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["rank"], row["chosen"], row["file_name"]) for row in rows] == [
        ("1", "yes", "a b/one.png"),
        ("2", "yes", "two.png"),
        ("", "no", "three.png"),
    ]
    # No spreadsheet takes it for a formula.
    assert rows[0]["reason"] == "'=1 detection"


def test_images_are_linked_or_copied(tmp_path: Path) -> None:
    linked = saved(tmp_path, "coco") / "images" / "one.png"
    assert linked.samefile(tmp_path / "in" / "a b" / "one.png")
    other = tmp_path / "other"
    save_suggestions(suggestions(other / "in"), other / "out", copy=True)
    assert not (other / "out/prelabels/images/one.png").samefile(other / "in/a b/one.png")


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("labels")
    with pytest.raises(OutputError, match="is already there"):
        saved(tmp_path, "coco")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
