from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell import Shell
from written_sets import write_coco


def photo(path: Path, width: int = 60, height: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def listing(folder: Path) -> dict:
    return json.loads((folder / "detections.json").read_text())


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_images_of_a_folder_are_drawn_and_listed_with_original_ids(fpn: Shell, model: Path, tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    photo(tmp_path / "in" / "deep" / "a.jpg", width=30, height=90)
    ended = fpn("predict", model, tmp_path / "in", "--output", tmp_path / "out")
    assert ended.status == 0
    assert contents(tmp_path / "out") == ["a.jpg", "deep/a.jpg", "detections.csv", "detections.json"]
    assert size_of(tmp_path / "out" / "deep" / "a.jpg") == (30, 90)
    listed = listing(tmp_path / "out")
    assert [(each["id"], each["width"], each["height"]) for each in listed["images"]] == [(1, 60, 40), (2, 30, 90)]
    assert listed["categories"][1] == {"id": 7, "name": "nut"}
    assert {each["category_id"] for each in listed["annotations"]} <= {3, 7, 11}
    x, y, width, height = listed["annotations"][0]["bbox"]
    assert 0 <= x < x + width <= 60.001
    assert 0 <= y < y + height <= 40.001


def test_the_list_is_a_coco_file_that_pycocotools_reads(fpn: Shell, model: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    photo(tmp_path / "a.png")
    fpn("predict", model, tmp_path / "a.png", "--output", tmp_path / "out", "--no-images")
    assert contents(tmp_path / "out") == ["detections.csv", "detections.json"]
    data = COCO(str(tmp_path / "out" / "detections.json"))
    assert len(data.loadRes(listing(tmp_path / "out")["annotations"]).getAnnIds()) == len(data.getAnnIds()) > 0


def test_the_table_says_the_same_as_the_list_with_names(fpn: Shell, model: Path, tmp_path: Path) -> None:
    photo(tmp_path / "Sch\u00e4den, 1.png")
    fpn("predict", model, tmp_path, "--output", tmp_path / "out", "--no-images")
    with (tmp_path / "out" / "detections.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    listed = listing(tmp_path / "out")
    names = {each["id"]: each["name"] for each in listed["categories"]}
    assert len(rows) == len(listed["annotations"]) > 0
    x, y, width, height = listed["annotations"][0]["bbox"]
    assert rows[0]["file_name"] == listed["images"][0]["file_name"] == str(tmp_path / "Sch\u00e4den, 1.png")
    assert rows[0]["class"] == names[listed["annotations"][0]["category_id"]]
    assert [float(rows[0][key]) for key in ("x_min", "y_min", "x_max", "y_max")] == pytest.approx(
        [x, y, x + width, y + height], abs=1e-3
    )


def test_with_a_datasets_ids_pycocotools_measures_the_results(fpn: Shell, model: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    root = write_coco(tmp_path / "set")
    truth = root / "annotations" / "instances.json"
    data = json.loads(truth.read_text())
    for each in data["annotations"]:
        each["area"] = each["bbox"][2] * each["bbox"][3]
    truth.write_text(json.dumps(data))
    out = tmp_path / "out"
    ended = fpn("predict", model, root / "images", "--output", out, "--ids", truth, "--no-images")
    assert ended.status == 0, ended.err
    assert contents(out) == ["coco_results.json", "detections.csv", "detections.json"]
    results = json.loads((out / "coco_results.json").read_text())
    assert {each["image_id"] for each in results} <= {100, 101, 102}
    assert {each["category_id"] for each in results} <= {3, 7, 11}
    assert [each["id"] for each in listing(out)["images"]] == [100, 101, 102]
    measured = COCOeval(COCO(str(truth)), COCO(str(truth)).loadRes(str(out / "coco_results.json")), "bbox")
    measured.evaluate()
    measured.accumulate()
    assert measured.eval["precision"].shape[2] == 3
    assert fpn("predict", model, root / "images", "--output", out, "--ids", truth).status == 0  # its own are replaced


def test_a_second_run_replaces_its_own_results_and_does_not_take_them_for_images(
    fpn: Shell, model: Path, tmp_path: Path
) -> None:
    photo(tmp_path / "a.png")
    for _ in range(2):
        assert fpn("predict", model, tmp_path, "--output", tmp_path).status == 0
        assert contents(tmp_path) == ["a.jpg", "a.png", "detections.csv", "detections.json"]


def test_drawings_inside_of_the_folder_of_images_are_known_after_any_number_of_runs(
    fpn: Shell, model: Path, tmp_path: Path
) -> None:
    photo(tmp_path / "a.png")
    photo(tmp_path / "deep" / "b.jpg")
    words, drawings = ["predict", model, tmp_path, "--output", tmp_path / "out"], ["a.jpg", "deep/b.jpg"]
    for drawn in ("--images", "--no-images", "--no-images", "--images"):
        assert fpn(*words, drawn).status == 0
        assert len(listing(tmp_path / "out")["images"]) == 2
        assert contents(tmp_path / "out") == [*drawings, "detections.csv", "detections.json"]


def test_results_of_runs_before_the_last_are_replaced_too(fpn: Shell, model: Path, tmp_path: Path) -> None:
    root, out = write_coco(tmp_path / "set"), tmp_path / "out"
    first, second = sorted((root / "images").iterdir())[:2]
    ids = ["--ids", root / "annotations" / "instances.json"]
    for image, more in ((first, ids), (second, []), (first, ids)):
        assert fpn("predict", model, image, "--output", out, *more).status == 0
    assert contents(out) == sorted(
        [f"{first.stem}.jpg", f"{second.stem}.jpg", "coco_results.json", "detections.csv", "detections.json"]
    )


def test_what_a_killed_run_drew_is_known_to_the_next_and_what_it_did_not_draw_is_the_users(
    fpn: Shell, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fpn.cli.outputs import Predictions

    first, second = photo(tmp_path / "1.png"), photo(tmp_path / "2.png")
    save = Predictions.save
    with monkeypatch.context() as killed:  # which leaves no time for a last word
        killed.setattr(Predictions, "save", lambda self, **words: save(self, **words) if words else None)
        assert fpn("predict", model, first, "--output", tmp_path).status == 0
    assert listing(tmp_path)["images"] == []
    assert fpn("predict", model, tmp_path, "--output", tmp_path).status == 0
    assert [each["file_name"] for each in listing(tmp_path)["images"]] == [str(first), str(second)]
    second.write_text("no image")
    (tmp_path / "2.jpg").unlink()
    assert fpn("predict", model, tmp_path, "--output", tmp_path).status == 1  # 2.jpg is not drawn
    photo(tmp_path / "2.jpg")
    assert "would replace the image itself" in fpn.fails("predict", model, tmp_path, "--output", tmp_path)


def test_a_file_of_the_user_is_never_replaced(fpn: Shell, model: Path, tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    (tmp_path / "a.jpg").write_text("mine")
    message = fpn.fails("predict", model, tmp_path / "a.png", "--output", tmp_path)
    assert "a.jpg: is already there" in message
    assert (tmp_path / "a.jpg").read_text() == "mine"
    assert contents(tmp_path) == ["a.jpg", "a.png"]


@pytest.mark.parametrize("name", ["detections.json", "detections.csv"])
def test_another_programs_list_is_never_replaced(fpn: Shell, model: Path, tmp_path: Path, name: str) -> None:
    photo(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("[]")
    assert "is already there" in fpn.fails("predict", model, tmp_path / "a.png", "--output", tmp_path / "out")
    assert (tmp_path / "out" / name).read_text() == "[]"
    assert contents(tmp_path / "out") == [name]


def test_a_image_is_never_replaced_by_its_own_result(fpn: Shell, model: Path, tmp_path: Path) -> None:
    before = photo(tmp_path / "a.jpg").read_bytes()
    message = fpn.fails("predict", model, tmp_path / "a.jpg", "--output", tmp_path)
    assert "would replace the image itself" in message
    assert (tmp_path / "a.jpg").read_bytes() == before


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:400]), "the image is damaged"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_text("cats"), "not an image of a known format"),
        (lambda path: path.unlink(), "no such file"),
        (lambda path: Image.new("1", (20_000, 10_000)).save(path, "PNG"), "20000 x 10000 is 200 million pixels"),
    ],
    ids=["truncated", "empty", "text", "missing", "bomb"],
)
def test_a_image_that_cannot_be_read_is_reported_and_the_others_are_done(
    fpn: Shell, model: Path, tmp_path: Path, spoil: object, reason: str
) -> None:
    good, bad = photo(tmp_path / "good.jpg"), photo(tmp_path / "bad.jpg")
    spoil(bad)  # type: ignore[operator]
    message = fpn.fails("predict", model, bad, good, "--output", tmp_path / "out")
    assert f"bad.jpg: {reason}" in message.splitlines()[0]
    assert "1 of 2 images could not be read" in message.splitlines()[-1]
    listed = listing(tmp_path / "out")
    assert [each["file_name"] for each in listed["images"]] == [str(good)]
    assert [each["file_name"] for each in listed["skipped"]] == [str(bad)]
    assert contents(tmp_path / "out") == ["detections.csv", "detections.json", "good.jpg"]


def test_images_of_odd_shape_are_fine(fpn: Shell, model: Path, tmp_path: Path) -> None:
    dot, ribbon = photo(tmp_path / "dot.png", 1, 1), photo(tmp_path / "ribbon.png", 20_000, 10)
    assert fpn("predict", model, dot, ribbon, "--output", tmp_path / "out").status == 0
    assert size_of(tmp_path / "out" / "ribbon.jpg") == (20_000, 10)


def test_what_was_found_before_ctrl_c_is_kept(
    fpn: Shell, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fpn.inference.optimize import OptimizedDetector

    first, second, calls = photo(tmp_path / "1.png"), photo(tmp_path / "2.png"), []
    detect = OptimizedDetector.detect

    def interrupted(*words: object) -> object:
        calls.append(words)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return detect(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(OptimizedDetector, "detect", interrupted)
    ended = fpn("predict", model, first, second, "--batch-size", 1, "--output", tmp_path / "out")
    assert ended.status == 130
    assert [each["file_name"] for each in listing(tmp_path / "out")["images"]] == [str(first)]


def test_drawings_of_other_runs_are_not_taken_for_images(fpn: Shell, model: Path, tmp_path: Path) -> None:
    photo(tmp_path / "photos" / "a.png")
    assert fpn("predict", model, tmp_path / "photos", "--output", tmp_path / "photos" / "drawn").status == 0
    ended = fpn("predict", model, tmp_path / "photos", "--output", tmp_path / "out")
    assert f"{tmp_path / 'photos'}: 1 drawing of an earlier `fpn predict` left out" in " ".join(ended.err.split())
    assert contents(tmp_path / "out") == ["a.jpg", "detections.csv", "detections.json"]
    told = fpn.fails("predict", model, tmp_path / "photos" / "drawn", "--output", tmp_path / "again")
    assert "holds nothing but drawings of an earlier `fpn predict`" in " ".join(told.split())


def test_results_do_not_go_among_labelled_images(fpn: Shell, model: Path, tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set")
    before = contents(root)
    for output in (root, root / "images"):
        told = " ".join(fpn.fails("predict", model, root / "images", "--output", output).split())
        assert f"{output}: is a folder of " in told
        assert "labelled images" in told
        assert "Choose another --output." in told
    assert contents(root) == before
    assert fpn("predict", model, root / "images", "--output", root / "predictions").status == 0


@pytest.mark.parametrize("verb", ["predict", "batch"])
def test_a_file_in_the_place_of_the_results_is_told_before_the_model_is_read(
    fpn: Shell, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr("fpn.batch.worker.load", None)
    image = photo(tmp_path / "a.png")
    told = fpn.fails(verb, model, image, "--output", image)
    assert "a.png: is a file, and the results go into a folder. Choose another --output." in " ".join(told.split())


@pytest.mark.parametrize("output", ["a.png/out", "/proc/out"])
def test_a_folder_that_cannot_be_written_is_noticed_at_once(
    fpn: Shell, model: Path, tmp_path: Path, output: str
) -> None:
    before = photo(tmp_path / "a.png").read_bytes()
    message = fpn.fails("predict", model, tmp_path / "a.png", "--output", tmp_path / output)
    assert "can't write there" in message
    assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "reason"),
    [(["--device", "warp"], "--device warp: is not usable"), ([], "name files")],
)
def test_wrong_options_are_refused_before_any_work(
    fpn: Shell, model: Path, tmp_path: Path, words: list[str], reason: str
) -> None:
    images = [photo(tmp_path / "a.png")] if words else []
    assert reason in fpn.fails("predict", model, *images, *words, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_photograph_goes_through(fpn: Shell, model: Path, tmp_path: Path, bccd_root: Path) -> None:
    shutil.copy(bccd_root / "JPEGImages" / "BloodImage_00000.jpg", tmp_path / "cells.jpg")
    assert fpn("predict", model, tmp_path / "cells.jpg", "--output", tmp_path / "out").status == 0


def test_how_many_detections_an_image_may_have_is_an_option_and_told_when_reached(
    fpn: Shell, model: Path, tmp_path: Path
) -> None:
    photo(tmp_path / "a.png")
    words = ["predict", model, tmp_path / "a.png", "--output", tmp_path / "out"]
    assert "limit" not in fpn(*words, "--max-detections", 2).err  # none of them is sure enough to be drawn
    ended = fpn(*words, "--max-detections", 2, "--score", 0.0)
    assert len(listing(tmp_path / "out")["annotations"]) == 2
    assert "warning: the limit of 2 detections was reached in 1 of 1 images, such as " in ended.err
    assert "Allow more: --max-detections 6" in ended.err
    fpn(*words, "--max-detections", 150)
    assert len(listing(tmp_path / "out")["annotations"]) > 100
