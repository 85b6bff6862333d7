"""`fpn compare`, `fpn calibrate` and `fpn evaluate --intervals`, on four small images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from shell import Shell
from written_sets import write_json

import fpn as library
from fpn.detectors import read_header
from fpn.detectors.builder import build_detector
from fpn.detectors.recipe import read_recipe


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Six grey images with a cell each, and a platelet in the first five; ids 1 to 6."""
    root = tmp_path / "cells"
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, 7):
        pixels = np.random.default_rng(number).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 48})
        boxes = [(7, [5, 5, 20, 20]), (3, [35, 20, 12, 12])][: 2 if number < 6 else 1]
        annotations += [
            {"id": 10 * number + c, "image_id": number, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
            for c, b in boxes
        ]
    categories = [{"id": 7, "name": "cell"}, {"id": 3, "name": "platelet"}]
    write_json(root / "instances.json", {"images": images, "annotations": annotations, "categories": categories})
    return root


def results(path: Path, *numbers: int, score: float = 0.9) -> Path:
    """A file that says the cells of these images are found."""
    records = [{"image_id": n, "category_id": 7, "bbox": [5, 5, 20, 20], "score": score} for n in numbers]
    write_json(path, records)
    return path


def test_compare_says_by_how_much_and_writes_it_down(fpn: Shell, cells: Path, tmp_path: Path) -> None:
    a, b = results(tmp_path / "a.json", 1), results(tmp_path / "b.json", 1, 2, 3, 4, 5, 6)
    ended = fpn("compare", a, b, cells, "--output", tmp_path / "out.json", "--resamples", 50)
    assert ended.status == 0
    figures = json.loads((tmp_path / "out.json").read_text())
    (cell,) = (each for each in figures["differences"] if (each["metric"], each["name"]) == ("ap", "cell"))
    # One of six cells is recall 1/6, read at 0 .. 0.16: 17 of 101.
    assert (cell["a"], cell["b"]) == pytest.approx((17 / 101, 1))
    assert (tmp_path / "out.csv").is_file()
    assert (tmp_path / "out-images.csv").is_file()
    assert "AP cell" in ended.out
    assert "P(B better)" in ended.out
    assert "B - A without it" in ended.out
    assert "Verdict: not sure. B against A: its AP is 0.500, that of A 0.084" in " ".join(ended.out.split())


def test_compare_ends_with_3_where_b_is_below_what_was_asked_for(fpn: Shell, cells: Path, tmp_path: Path) -> None:
    a, b = results(tmp_path / "a.json", 1, 2), results(tmp_path / "b.json", 1)
    words = ("compare", a, b, cells, "--resamples", 50)
    ended = fpn(*words, "--fail-below", "-0.01")
    assert ended.status == 3
    # Cells alone, and half of both classes: (34 - 17) / 101 / 2.
    assert "ap of B less A is -0.0842, below -0.01" in ended.err
    assert fpn(*words, "--fail-below=-0.1").status == 0
    assert fpn(*words, "--fail-below=-0.1", "--fail-by", "low").status == 3
    assert fpn(*words, "--fail-below=0", "--fail-by", "high").status == 0
    assert fpn("compare", a, a, cells, "--resamples", 20, "--fail-below", 0).status == 0


def test_compare_refuses_images_without_an_object(fpn: Shell, cells: Path, tmp_path: Path) -> None:
    a = results(tmp_path / "a.json", 1)
    truth = json.loads((cells / "instances.json").read_text())
    write_json(cells / "instances.json", {**truth, "annotations": []})
    told = fpn.fails("compare", a, a, cells, "--resamples", 20).replace("\n", " ")
    assert f"no labelled object in {len(truth['images'])} images, so nothing can be compared" in told


def test_compare_says_that_equal_ones_are_equal(fpn: Shell, cells: Path, tmp_path: Path) -> None:
    a = results(tmp_path / "a.json", 1)
    assert "equal in every draw" in fpn("compare", a, a, cells, "--resamples", 20).out


def test_compare_refuses_before_any_work(fpn: Shell, cells: Path, tmp_path: Path, small: Any) -> None:
    a = results(tmp_path / "a.json", 1)
    assert "no such model file or file of detections" in fpn.fails("compare", a, tmp_path / "gone.json", cells)
    assert "no such model file" in fpn.fails("compare", a, tmp_path / "gone.safetensors", cells)
    assert "confidence 95" in fpn.fails("compare", a, a, cells, "--confidence", 95)
    strange = results(tmp_path / "strange.json", 99)
    assert f"{strange}: a detection has image_id 99" in fpn.fails("compare", a, strange, cells).replace("\n", " ")
    assert "is a folder" in fpn.fails("compare", a, a, cells, "--output", tmp_path)
    truth = fpn.fails("compare", a, cells / "instances.json", cells)
    assert "is no list of COCO results, such as fpn evaluate --detections writes" in truth


def test_compare_refuses_models_that_cannot_be_compared_before_one_has_run(
    fpn: Shell, cells: Path, model: Path, small: Any, tmp_path: Path
) -> None:
    told = fpn.fails("compare", model, model, cells, "--task", "masks")
    assert f"--task masks: {model} is a faster_rcnn, which gives none" in told.replace("\n", " ")
    recipe = small.recipe.model_dump(mode="json")
    names = {"a": ("cell", "nut"), "b": ("platelet", "bolt")}
    for name, classes in names.items():
        other = build_detector(read_recipe({**recipe, "classes": classes}))
        library.save(other, tmp_path / f"{name}.safetensors")
    told = fpn.fails("compare", tmp_path / "a.safetensors", tmp_path / "b.safetensors", cells).replace("\n", " ")
    assert "cells: none of its classes is known to all models" in told
    assert "a.safetensors knows cell, nut" in told
    truth = json.loads((cells / "instances.json").read_text())
    write_json(cells / "instances.json", {**truth, "images": truth["images"][:1], "annotations": []})
    assert "cells: 1 image; an interval needs 2 or more. Name others" in fpn.fails("compare", model, model, cells)


@pytest.fixture
def model(tmp_path: Path, small: Any) -> Path:
    return library.save(small, tmp_path / "model.safetensors")


def tensors(path: Path) -> dict[str, bytes]:
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


def test_calibrate_that_reaches_nothing_writes_nothing(fpn: Shell, cells: Path, model: Path) -> None:
    before = model.read_bytes()
    ended = fpn("calibrate", model, cells, "--guarantee", 0.9, "--workers", 0)
    assert ended.status == 1
    assert "can't be reached" in ended.err
    assert "was not written" in ended.err
    assert model.read_bytes() == before


def test_proposals_of_what_has_none_are_refused(
    fpn: Shell, cells: Path, model: Path, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(small), "tasks", ("boxes", "segments"))
    told = " ".join(fpn.fails("evaluate", model, cells, "--proposals").split())
    assert "gives boxes, segments, which are measured anyhow, but none. Leave it out." in told


def test_images_that_can_not_be_read_are_left_out_if_that_is_asked_for(
    fpn: Shell, cells: Path, model: Path, tmp_path: Path
) -> None:
    (cells / "images/3.png").write_bytes(b"no image")
    found, figures = results(tmp_path / "found.json", 1, 3), tmp_path / "figures.json"
    words = ("compare", model, found, cells, "--resamples", 20, "--workers", 0, "--output", figures)
    assert "--skip-unreadable leaves out such images" in fpn.fails(*words).replace("\n", " ")
    ended = fpn(*words, "--skip-unreadable")
    assert ended.status == 0
    assert "1 image can't be read; the figures are of the others" in ended.err
    (cell,) = (e for e in json.loads(figures.read_text())["differences"] if (e["metric"], e["name"]) == ("ap", "cell"))
    # One of the five cells that are left is recall 1/5, read at 0 .. 0.2: 21 of 101.
    assert cell["b"] == pytest.approx(21 / 101)

    words = ("calibrate", model, cells, "--workers", 0, "--report", tmp_path / "thresholds.json")
    assert "3.png" in fpn.fails(*words)
    ended = fpn(*words, "--skip-unreadable")
    assert "cells: 5 images, thresholds for" in ended.out
    assert "1 image can't be read; the figures are of the others" in ended.err


def test_calibrate_writes_a_new_file_with_the_same_weights(
    fpn: Shell, cells: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fpn.cli.measuring import Measuring

    # What a trained model would find: cells at 0.9, and a wrong one at 0.4.
    wrong = {"image_id": 1, "category_id": 7, "bbox": [40, 40, 5, 5], "score": 0.4}
    right = json.loads(results(tmp_path / "right.json", 1, 2, 3, 4, 5, 6).read_text())
    monkeypatch.setattr(Measuring, "detect", lambda *_: [*right, wrong])
    new, figures = tmp_path / "new.safetensors", tmp_path / "figures.json"
    ended = fpn("calibrate", model, cells, "--output", new, "--report", figures)
    assert ended.status == 0
    assert "platelet: f1 can't be reached: none of its objects is found" in ended.err
    assert "It gets the threshold 0.500, from which on none of these images shows any" in " ".join(ended.err.split())
    assert "chosen by few objects: cell (6)" in ended.err.replace("\n", " ")
    assert tensors(new) == tensors(model)
    assert "thresholds" not in read_header(model)
    thresholds = library.load(new, device="cpu").thresholds
    assert thresholds is not None
    assert thresholds.scores == pytest.approx((0.65, 0.5))
    assert thresholds.reached == (True, False)
    by_class = {each["name"]: each for each in json.loads(figures.read_text())["per_class"]}
    assert (by_class["cell"]["f1"], by_class["platelet"]["f1"]) == (1, 0)
    assert figures.with_suffix(".csv").read_text("utf-8-sig").splitlines()[2].startswith("cell,0.65,True,,6,6,1.0,1.0,")
    assert "is a folder" in fpn.fails("calibrate", model, cells, "--report", tmp_path)
    assert "is already there" in fpn.fails("calibrate", model, cells, "--output", new)
    assert fpn("calibrate", model, cells, "--precision", 0.5).status == 0
    header = read_header(model)
    assert header.pop("thresholds")["goal"] == "precision 0.5"
    assert header == {k: v for k, v in read_header(new).items() if k != "thresholds"}


def test_two_goals_are_one_too_many(fpn: Shell, cells: Path, model: Path) -> None:
    message = fpn.fails("calibrate", model, cells, "--recall", 0.9, "--f1")
    assert "--recall --f1: choose one" in message
    assert "recall 90" in fpn.fails("calibrate", model, cells, "--recall", 90)


def test_predict_counts_from_the_calibrated_thresholds_unless_told(
    fpn: Shell, cells: Path, model: Path, tmp_path: Path
) -> None:
    from fpn.detectors.model_file import save_thresholds
    from fpn.structures import Thresholds

    def info(*words: object) -> dict[str, Any]:
        assert fpn("predict", *words, cells / "images", "--output", tmp_path / "out", "--no-images").status == 0
        return dict(json.loads((tmp_path / "out" / "detections.json").read_text())["info"])

    assert info(model)["score"] == 0.5
    assert "has no thresholds yet" in fpn.fails("predict", model, cells / "images", "--score", "calibrated")
    calibrated = save_thresholds(model, Thresholds((1.0, 0.0), "f1", "x", 3, (True,) * 2), tmp_path / "c.safetensors")
    found = info(calibrated)
    assert (found["score"], found["thresholds"]) == ("calibrated", {"cell": 1.0, "platelet": 0.0})
    assert info(calibrated, "--score", 0.3)["score"] == 0.3
    # bf16, which a GPU takes, rounds scores up to 1.
    words = (cells / "images", "--output", tmp_path / "out", "--no-images", "--device", "cpu")
    ended = fpn("predict", calibrated, *words, "--precision", "float32")
    assert "from their class's threshold on (f1)" in ended.out
    assert " cell" not in ended.out.splitlines()[-2]


def test_evaluate_gives_intervals_when_asked(fpn: Shell, cells: Path, model: Path, tmp_path: Path) -> None:
    ended = fpn("evaluate", model, cells, "--intervals", "--workers", 0, "--output", tmp_path / "out.json")
    assert ended.status == 0
    assert "95% intervals" in ended.out
    value, low, high = json.loads((tmp_path / "out.json").read_text())["intervals"]["ap"]
    assert low <= value <= high
