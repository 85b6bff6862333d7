from __future__ import annotations

import json
import os
import shlex
import signal
from pathlib import Path

import pytest
from shell import Shell
from written_sets import write_coco, write_text

from fpn.training.run import Run

# Two images a step, three images: one step an epoch.
SETTINGS = """
backbone: tf_efficientnet_lite0
weights: none
short-side: 64
long-side: 128
head-width: 16
channels: 16
epochs: 2
batch-size: 2
workers: 0
precision: float32
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "set")


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    return write_text(tmp_path / "small.yaml", SETTINGS)


def epochs(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "epoch"]


def test_train_then_evaluate_then_predict_agree_with_each_other(
    fpn: Shell, tmp_path: Path, data: Path, settings: Path
) -> None:
    run, best = tmp_path / "run", tmp_path / "run" / "best.safetensors"
    ended = fpn("train", data, "--config", settings, "--validation", data, "--output", run)
    assert ended.status == 0
    assert f"fpn evaluate {best} {data}" in ended.out
    assert f"fpn report {best} {data} --output report" in ended.out

    figures, found = tmp_path / "metrics.json", tmp_path / "found.json"
    # As many images at once as in training: how far an image is padded shows at its rim. And in the same precision,
    # which else would be bf16 on a chip that multiplies it.
    alike = ("--batch-size", 2, "--precision", "float32")
    ended = fpn("evaluate", best, data, *alike, "--output", figures)
    assert ended.status == 0
    assert "washer" in ended.out
    assert json.loads(figures.read_text())["ap"] == pytest.approx(max(line["ap"] for line in epochs(run)), abs=1e-6)

    assert fpn("evaluate", best, data, "--batch-size", 1, "--detections", found).status == 0
    assert fpn("predict", best, data / "images", "--batch-size", 1, "--output", tmp_path / "out").status == 0
    listed = json.loads((tmp_path / "out" / "detections.json").read_text())["annotations"]
    measured = json.loads(found.read_text())
    assert len(measured) > 0
    assert [each["category_id"] for each in listed] == [each["category_id"] for each in measured]
    for ours, theirs in zip(listed, measured, strict=True):
        assert ours["bbox"] == pytest.approx(theirs["bbox"], abs=1e-3)


def test_a_terminated_run_goes_on_without_saying_its_options_again(
    fpn: Shell, tmp_path: Path, data: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, take_step = tmp_path / "run", Run.take_step

    def terminated(self: Run, group: list) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        take_step(self, group)

    monkeypatch.setattr(Run, "take_step", terminated)
    ended = fpn("train", data, "--config", settings, "--output", run)
    assert ended.status == 143
    assert ended.err.endswith(f"go on with: fpn train --resume {run}\nstopped by SIGTERM\n")
    assert len(epochs(run)) <= 1
    monkeypatch.undo()

    monkeypatch.chdir(tmp_path / "set")  # from anywhere
    ended = fpn("train", "--resume", run)
    assert ended.status == 0, ended.err
    assert "trained 2 steps" in ended.out
    assert (run / "best.safetensors").exists()


def test_a_run_is_not_resumed_with_other_settings_unless_told(
    fpn: Shell, tmp_path: Path, data: Path, settings: Path
) -> None:
    run = tmp_path / "run"
    assert fpn("train", data, "--config", settings, "--output", run).status == 0
    message = fpn.fails("train", "--resume", run, "--learning-rate", "0.5")
    assert "config.learning_rate was None, is 0.5" in message
    assert fpn("train", "--resume", run, "--learning-rate", "0.5", "--allow-changes").status == 0


@pytest.mark.parametrize(("trained", "measured"), [("train", "val"), ("trainval", "test"), ("test", "val")])
def test_the_next_command_that_is_shown_works_and_measures_on_what_was_not_trained_on(
    fpn: Shell, tmp_path: Path, data: Path, settings: Path, trained: str, measured: str
) -> None:
    annotations = data / "annotations" / "instances.json"
    for split in ("train", "val", "trainval", "test"):
        write_text(annotations.with_stem(f"instances_{split}"), annotations.read_text())
    annotations.unlink()
    run = tmp_path / "run"
    ended = fpn(
        "train", data, "--split", trained, "--drop-invalid", "--config", settings, "--output", run, "--steps", 1
    )
    shown = next(line.strip() for line in ended.out.splitlines() if "fpn evaluate" in line)
    assert shown == f"fpn evaluate {run}/best.safetensors {data} --split {measured} --drop-invalid"
    assert fpn(*shlex.split(shown)[1:]).status == 0


def test_dropped_boxes_are_counted(fpn: Shell, tmp_path: Path, data: Path, settings: Path) -> None:
    annotations = data / "annotations" / "instances.json"
    broken = json.loads(annotations.read_text())
    broken["annotations"][0]["bbox"] = [3, 4, 0, 26]
    annotations.write_text(json.dumps(broken))
    words = ["train", data, "--config", settings, "--output", tmp_path / "run"]
    message = fpn.fails(*words)
    assert "a.png" in message
    assert "--drop-invalid" in message
    ended = fpn(*words, "--drop-invalid")
    assert ended.status == 0
    assert "1 invalid boxes dropped" in ended.out + ended.err


def test_an_earlier_model_is_tuned_on_other_classes_and_goes_on_without_its_file(
    fpn: Shell, tmp_path: Path, data: Path, model: Path
) -> None:
    init, run = tmp_path / "init.safetensors", tmp_path / "run"
    init.write_bytes(model.read_bytes())
    annotations = data / "annotations" / "instances.json"
    listed = json.loads(annotations.read_text())
    for category, name in zip(listed["categories"], ("nut", "BOLT", "gear"), strict=True):
        category["name"] = name
    annotations.write_text(json.dumps(listed))
    words = ["train", data, "--init", init, "--max-detections", 7, "--batch-size", 2, "--workers", 0, "--epochs", 1]
    message = fpn.fails(*words, "--neck", "bottom_up", "--output", run)
    assert "neck 'bottom_up': the model to begin with has 'fpn'" in message
    ended = fpn(*words, "--output", run, "--weights", "none")
    assert ended.status == 0, ended.err
    assert ended.out.splitlines()[1:8] == [
        "recipe none: epochs are given, which is a recipe of its own; all else has the library's defaults",
        f"begins with {init}",
        "  classes kept: nut",
        "  begun anew, as the model does not know them: BOLT, gear",
        "  left behind, as the data does not have them: bolt, washer",
        "  'BOLT' is not the model's 'bolt': if they are the same, write it 'bolt' in the data",
        "  set otherwise than in the model: box.limit 100 -> 7",
    ]
    assert "--weights none has no effect" in ended.err
    init.unlink()
    assert fpn("train", "--resume", run).status == 0
    assert fpn("train", "--resume", run, "--clip-norm", 5, "--allow-changes").status == 0
    assert json.loads((run / "run.json").read_text())["notes"]["init"]["kept"] == ["nut"]
    message = fpn.fails("train", "--resume", run, "--init", model)
    assert f"--init {model}: {run} began with {init}, and goes on with its own weights" in message


def test_a_validation_with_objects_of_a_class_that_is_not_trained_is_refused(
    fpn: Shell, tmp_path: Path, data: Path, settings: Path
) -> None:
    other = write_coco(tmp_path / "other")
    annotations = other / "annotations" / "instances.json"
    annotations.write_text(annotations.read_text().replace('"washer"', '"gear"'))
    words = ["train", data, "--config", settings, "--validation", other, "--output", tmp_path / "run"]
    message = fpn.fails(*words)
    assert "other: has objects of 'gear' (1), which the training data do not have" in message
    assert not (tmp_path / "run").exists()


def test_a_model_is_measured_on_the_classes_that_it_knows(fpn: Shell, tmp_path: Path, data: Path, model: Path) -> None:
    annotations = data / "annotations" / "instances.json"
    annotations.write_text(annotations.read_text().replace('"washer"', '"Washer"'))
    figures = tmp_path / "figures.json"
    ended = fpn("evaluate", model, data, "--workers", 0, "--max-detections", 120, "--output", figures)
    assert ended.status == 0, ended.err
    assert "the model does not know 'Washer' (1 object); only the others are measured. 'Washer': Did you" in ended.err
    assert "what the model finds of washer does not count" in ended.out
    assert "AP@120" in ended.out
    saved = json.loads(figures.read_text())
    assert (saved["objects"], saved["left_out"], saved["limit"]["limit"]) == (2, {"Washer": 1}, 120)
    ended = fpn("evaluate", model, data, "--workers", 0, "--max-detections", 1)
    assert "warning: the limit of 1 detections was reached in 3 of 3 images, such as " in ended.err
    assert "1 image has more than 1 objects (up to 2). Allow more: --max-detections 4" in ended.err
