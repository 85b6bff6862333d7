from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from written_sets import write_json

from fpn.cli.diagnose import _usual
from fpn.cli.entry import main
from fpn.data import open_dataset
from fpn.data.dataset import Dataset
from fpn.errors import ConfigError
from fpn.evaluation.unfinished import Unfinished
from fpn.structures import Targets
from fpn.studies.diagnosis.budget import only_level
from fpn.studies.diagnosis.diagnosis import Diagnosis, diagnose
from fpn.studies.diagnosis.diagnosis_tables import diagnosis_json, diagnosis_tables, save_diagnosis
from fpn.studies.diagnosis.miss_drawings import draw_miss, most_telling
from studies.diagnosis.planted import NAMES, SIDE, Spoil, detector, scattered


def written(root: Path, truths: list[Targets]) -> Dataset:
    """The planted objects as a COCO dataset of grey images."""
    images, annotations = [], []
    (root / "images").mkdir(parents=True)
    for number, truth in enumerate(truths, start=1):
        name = f"{number}.png"
        Image.new("RGB", (SIDE, SIDE), (90, 90, 90)).save(root / "images" / name)
        images.append({"id": number, "file_name": name, "height": SIDE, "width": SIDE})
        for (x1, y1, x2, y2), label in zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True):
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": label + 1, **box})
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]
    write_json(root / "instances.json", {"images": images, "annotations": annotations, "categories": categories})
    return open_dataset(root)


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Diagnosis, Dataset]:
    """A quarter of the objects, 4 of 16 in each of two images, can't be seen by the head."""
    truths = scattered(2)
    dataset = written(tmp_path_factory.mktemp("planted") / "set", truths)
    made = detector(truths, Spoil(unseen=(0, 1, 5, 6)))
    return diagnose(made, dataset, workers=0, batch_size=2), dataset


def test_the_budget_names_the_planted_stage_and_what_it_costs(unseen: tuple[Diagnosis, Dataset]) -> None:
    found, _ = unseen
    assert (found.images, found.objects, len(found.misses)) == (2, 32, 8)
    lines = {line.name: line for line in found.stages if line.count}
    assert set(lines) == {"class"}
    line = lines["class"]
    assert (line.count, line.share) == (8, 1.0)
    # A quarter of the recall is lost, and the repaired stage gives it back.
    assert line.points50 == pytest.approx(25, abs=8)
    assert line.by_class["cat"][0] + line.by_class["dog"][0] == 8
    assert sum(count for count, _ in line.by_size.values()) == 8
    assert sum(count for count, _ in line.by_level.values()) == 8
    assert all(other.points == 0 for other in found.stages if other.name != "class")


def test_points_of_a_level_are_of_the_ap_of_its_own_objects(unseen: tuple[Diagnosis, Dataset]) -> None:
    """Each level lost a part of its own recall, and the repaired stage gives that back."""
    found, _ = unseen
    line = next(line for line in found.stages if line.name == "class")
    for level, (count, points) in line.by_level.items():
        assert points == pytest.approx(100 * count / found.per_level[level], abs=20)


def test_objects_of_other_levels_are_to_be_ignored() -> None:
    truth = {"annotations": [{"id": 1, "iscrowd": 0}, {"id": 2, "iscrowd": 0}, {"id": 3, "iscrowd": 1}]}
    crowds = [each["iscrowd"] for each in only_level(truth, {1: "p2", 2: "p3"}, "p2")["annotations"]]
    assert crowds == [0, 1, 1]
    assert [each["iscrowd"] for each in truth["annotations"]] == [0, 0, 1]


def test_objects_that_no_false_alarm_is_about_are_missed_altogether(unseen: tuple[Diagnosis, Dataset]) -> None:
    missed = unseen[0].kinds[-1]
    assert missed.name == "missed"
    assert missed.count == 8
    assert missed.points50 == pytest.approx(unseen[0].stages[6].points50, abs=8)


def test_tables_json_and_csv_say_the_same(unseen: tuple[Diagnosis, Dataset], tmp_path: Path) -> None:
    found, _ = unseen
    save_diagnosis(found, tmp_path)
    data = json.loads((tmp_path / "diagnosis.json").read_text())
    assert (data["objects"], data["lost"]) == (32, 8)
    assert data["misses"][0]["stage"] == "class"
    assert data["misses"][0]["boxes"]["truth"]["box"] == pytest.approx([4.0, 4.0, 52.18, 40.70], abs=0.01)
    rows = list(csv.DictReader((tmp_path / "misses.csv").read_text(encoding="utf-8-sig").splitlines()))
    assert [row["stage"] for row in rows] == ["class"] * 8
    budget = list(csv.DictReader((tmp_path / "budget.csv").read_text(encoding="utf-8-sig").splitlines()))
    assert [row["count"] for row in budget if (row["stage"], row["by"]) == ("class", "all")] == ["8"]
    first = diagnosis_tables(found)[0]
    assert first.title == "24 of 32 objects are found in 2 images, 8 are lost"
    assert first.rows[0][0].startswith("classified wrongly\nlook at the labels")


def test_the_largest_lost_objects_are_drawn_first(unseen: tuple[Diagnosis, Dataset]) -> None:
    found, dataset = unseen
    chosen = most_telling(found, 3)
    areas = [miss.area for miss in chosen]
    assert areas == sorted((miss.area for miss in found.misses), reverse=True)[:3]
    drawn = draw_miss(dataset.image(chosen[0].index), chosen[0], "classified wrongly")
    assert drawn.width == 480
    assert drawn.height > 480


def test_what_is_asked_wrongly_is_refused_before_the_model_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.safetensors").touch()
    given = ["diagnose", str(tmp_path / "empty.safetensors"), str(tmp_path)]
    assert main([*given, "--draw", "3"]) == 1
    assert "Name one with --output" in capsys.readouterr().err


def test_a_folder_of_something_else_is_not_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "empty.safetensors").touch()
    assert main(["diagnose", str(tmp_path / "empty.safetensors"), str(tmp_path), "--output", str(tmp_path)]) == 1
    assert "no earlier `fpn diagnose` wrote" in capsys.readouterr().err


def test_a_calibrated_model_is_traced_at_the_middle_of_its_thresholds(capsys: pytest.CaptureFixture[str]) -> None:
    own = SimpleNamespace(by_class=lambda classes: {"a": 0.5, "b": 0.1, "c": 0.2})
    assert _usual(SimpleNamespace(thresholds=own, classes=None)) == 0.2
    assert "at a score of 0.20, the middle of the model's thresholds (0.10 to 0.50)" in capsys.readouterr().out
    assert _usual(SimpleNamespace(thresholds=None)) == 0.5
    assert capsys.readouterr().out == ""


def test_a_threshold_out_of_range_is_refused(unseen: tuple[Diagnosis, Dataset]) -> None:
    with pytest.raises(ConfigError, match="0 to 1"):
        diagnose(detector(scattered()), unseen[1], threshold=1.5)


def test_another_kind_of_detector_is_refused(unseen: tuple[Diagnosis, Dataset]) -> None:
    from training.tiny import tiny_detector

    torch.manual_seed(0)
    with pytest.raises(ConfigError, match="be diagnosed yet"):
        diagnose(tiny_detector(), unseen[1])


def test_a_stopped_diagnosis_goes_on_with_equal_figures(tmp_path: Path) -> None:
    truths = scattered(2)
    dataset = written(tmp_path / "set", truths * 2)  # the planted detector knows batches of two images
    made = detector(truths, Spoil(unseen=(0, 1, 5, 6)))
    whole = diagnosis_json(diagnose(made, dataset, workers=0, batch_size=2))

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Unfinished(tmp_path / "look", often=0.0) as stopped:
        diagnose(made, dataset, workers=0, batch_size=2, unfinished=stopped, progress=stop)
    seen: list[int] = []
    again = Unfinished(tmp_path / "look")
    assert len(again.known) == 2
    rest = diagnose(made, dataset, workers=0, batch_size=2, unfinished=again, progress=seen.append)
    assert diagnosis_json(rest) == whole
    assert seen == [4]
