from __future__ import annotations

import json
from pathlib import Path

import pytest
from shell import Shell
from written_sets import write_coco

from fpn.cli import planning
from fpn.cli.options import Given, PlanOptions
from fpn.data.synthetic.scenes import SceneDataset
from fpn.errors import ConfigError
from fpn.training import recipes
from fpn.training.config import TrainConfig
from fpn.training.pace import Pace


def test_a_plan_is_printed_with_reasons_time_and_alternatives_and_nothing_is_written(
    fpn: Shell, tmp_path: Path, settings: Path
) -> None:
    ended = fpn("train", write_coco(tmp_path / "set"), "--config", settings, "--plan", "--colour", 0.3)
    assert ended.status == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[1].startswith("recipe small-data: as asked; --recipe NAME takes another")
    assert "--short-side 32" in ended.out
    assert any("--head-width 16" in line and f"given by {settings}" in line for line in lines)
    assert any("--colour 0.3" in line and "given by option (the recipe's: --colour 0.2)" in line for line in lines)
    assert any(line.startswith("time: about ") and "steps of" in line for line in lines)
    assert any(line.startswith("  faster: about ") and "--epochs 30" in line for line in lines)
    assert any(line.startswith("  better: about ") and "--epochs 90" in line for line in lines)
    told = ended.err.splitlines()
    assert sum(line.startswith("warning: the backbone begins WITHOUT pretrained weights") for line in told) == 1
    assert "note: if objects may lie any way up, as in aerial photographs: --vertical-flip 0.5 may help" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "small.yaml"]


def test_a_plan_goes_beside_the_folder_that_the_run_would_have(fpn: Shell, tmp_path: Path, settings: Path) -> None:
    words = ["train", write_coco(tmp_path / "set"), "--config", settings, "--plan", "--output", tmp_path / "run"]
    for _ in range(2):  # its own file may be replaced
        ended = fpn(*words)
        assert ended.status == 0, ended.err
        assert f"plan: {tmp_path / 'run-plan.json'}" in ended.out
    told = json.loads((tmp_path / "run-plan.json").read_text())
    assert (told["recipe"], told["settings"]["short_side"]["value"]) == ("small-data", 32)
    assert told["time"]["alternatives"]["faster"]["seconds"] < told["time"]["seconds"]
    assert not (tmp_path / "run").exists()
    (tmp_path / "run-plan.json").write_text("{}")
    assert "no earlier `fpn train --plan` wrote it" in fpn.fails(*words)


def test_a_run_keeps_what_was_chosen_and_goes_on_with_it(
    fpn: Shell, tmp_path: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    words = ["train", write_coco(tmp_path / "set"), "--config", settings, "--steps", 1, "--output", run]
    ended = fpn(*words)
    assert ended.status == 0, ended.err
    record = json.loads((run / "run.json").read_text())
    assert record["recipe"]["dialect"]["box"]["suppression"] == "gaussian"
    assert record["recipe"]["frozen_stages"] == 0
    assert record["notes"]["plan"]["settings"]["suppression"]["given"] == ""
    monkeypatch.setattr(recipes, "plan_training", None)  # a resumed run chooses nothing
    assert fpn("train", "--resume", run).status == 0
    message = fpn.fails("train", "--resume", run, "--recipe", "long")
    assert "--recipe: " in message
    assert "goes on with the settings that were chosen when it began" in message


def test_a_time_budget_and_a_length_exclude_one_another(fpn: Shell, tmp_path: Path, settings: Path) -> None:
    words = [
        "train",
        write_coco(tmp_path / "set"),
        "--config",
        settings,
        "--time-budget",
        "45m",
        "--steps",
        3,
        "--plan",
    ]
    ended = fpn(*words)
    assert ended.status == 1
    assert "--time-budget says how long to train, and so does --steps. Choose one." in ended.err


def test_a_time_budget_for_a_short_run_takes_the_settings_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "weights_at_hand", lambda _: "offline")
    timed = iter([Pace(2.0, 0.0, 10), Pace(1.0, 0.0, 20)])
    monkeypatch.setattr(planning, "_measure", lambda *_: next(timed))
    data = SceneDataset(40, height=64, width=64, objects=(1, 2))
    given = Given(None, None, {"planning": PlanOptions(time_budget="4m"), "training": TrainConfig(device="cpu")})
    plan, pace = planning.plan_run(given, data, None, speaks=False)
    # 216 of 240 seconds: 10 epochs of 20 seconds, 400 images, and as many with half of them a step.
    assert (plan.config.epochs, plan.config.batch_size, plan.config.scale) == (10, 2, (1.0, 1.0))
    assert pace is not None
    assert pace.step == 1.0
    assert given.training["batch_size"] == 2


@pytest.mark.parametrize(("text", "seconds"), [("45m", 2700), ("1h30m", 5400), ("90s", 90), ("2h", 7200)])
def test_a_time_budget_is_hours_minutes_and_seconds(text: str, seconds: int) -> None:
    assert PlanOptions(time_budget=text).seconds() == seconds


@pytest.mark.parametrize("text", ["45", "m", "45 minutes", ""])
def test_a_time_budget_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected hours, minutes and seconds, such as 45m or 1h30m"):
        PlanOptions(time_budget=text)


def test_a_few_invalid_boxes_are_left_out_and_told_once_unless_somebody_said_otherwise(
    fpn: Shell, tmp_path: Path, settings: Path
) -> None:
    data = write_coco(tmp_path / "set")
    (annotations,) = data.rglob("*.json")
    truth = json.loads(annotations.read_text())
    whole, empty = truth["annotations"][0], {**truth["annotations"][0], "bbox": [5, 5, 0, 0]}
    truth["annotations"] = [{**whole, "id": number} for number in range(1, 200)] + [{**empty, "id": 200}]
    annotations.write_text(json.dumps(truth))
    words = ["train", data, "--config", settings, "--plan"]
    ended = fpn(*words)
    assert ended.status == 0, ended.err
    (told,) = [line for line in ended.err.splitlines() if "invalid" in line]
    assert "1 of 200 boxes are invalid and left out (--no-drop-invalid stops at them instead): " in told
    assert "width 0" in told
    assert "width 0" in fpn.fails(*words, "--no-drop-invalid")
    assert "width 0" in fpn.fails(*words, "--recipe", "none")
    truth["annotations"] = truth["annotations"][120:]  # 1 of 80 is more than a hundredth
    annotations.write_text(json.dumps(truth))
    assert "width 0" in fpn.fails(*words)
