"""Pilots from end to end with the smallest detector that trains, and what happens to their folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from shell import Shell
from training.tiny import TinyDetector
from written_sets import Annotation, Shot, write_coco

import fpn
from fpn.data.dataset import Dataset
from fpn.data.synthetic.scenes import SceneDataset
from fpn.errors import ConfigError, DataError, OutputError
from fpn.studies.label_budget import running
from fpn.studies.label_budget.forecast import LabelForecast, TimeHere
from fpn.studies.label_budget.pilots import Pilot, PilotOutcome, deal_pilots
from fpn.studies.label_budget.report import budget_table, draw_curve
from fpn.studies.label_budget.running import LabelStudy, forecast_labels
from fpn.studies.label_budget.settings import PilotSettings
from fpn.studies.screen import Screen

TIMES = TimeHere(pilot_step=0.5, pilot_image=0.1, full_seconds=600.0, full_steps=300, full_step=2.0)
SETTINGS = PilotSettings(weights="none", short_side=32, steps=10, device="cpu")


def scenes(count: int, seed: int = 3) -> SceneDataset:
    return SceneDataset(count, seed=seed, height=32, width=(32, 48), objects=(1, 3), extent=(8.0, 24.0))


def outcome(pilot: Pilot, ap: float) -> PilotOutcome:
    return PilotOutcome(
        part=pilot.part,
        number=pilot.number,
        seed=pilot.seed,
        images=len(pilot.rows),
        ap=ap,
        ap50=ap,
        resampled=[ap + change for change in (-0.01, 0.0, 0.01)],
        steps=10,
        training_seconds=1.0,
        measuring_seconds=1.0,
    )


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pilots that were run; each finds more with more images."""
    names: list[str] = []

    def run_pilot(study: LabelStudy, pilot: Pilot, steps: int, screen: Screen) -> PilotOutcome:
        names.append(pilot.name)
        return outcome(pilot, {4: 0.2, 2: 0.3, 1: 0.38}[pilot.part] + 0.01 * (pilot.number % 2))

    monkeypatch.setattr(running, "run_pilot", run_pilot)
    monkeypatch.setattr(running, "_measure_times", lambda *_: TIMES)
    return names


NAMES = ["quarter 1", "quarter 2", "quarter 3", "quarter 4", "half 1", "half 2", "all 1", "all 2"]


def test_every_image_is_used_once_by_quarters_and_by_halves_and_classes_are_spread():
    dataset = scenes(42)
    pilots = deal_pilots(dataset, seed=5)
    assert [pilot.name for pilot in pilots] == NAMES
    assert len({pilot.seed for pilot in pilots}) == 8
    for part in (4, 2):
        rows = [row for pilot in pilots if pilot.part == part for row in pilot.rows]
        assert sorted(rows) == list(range(42))
    assert all(9 <= len(pilot.rows) <= 12 for pilot in pilots if pilot.part == 4)
    assert pilots[4].rows == tuple(sorted(pilots[0].rows + pilots[1].rows))
    assert pilots[6].rows == pilots[7].rows == tuple(range(42))


def test_pilots_are_trained_measured_and_forecast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def tiny(self: LabelStudy, plan: object, seed: int, *, weights: bool) -> TinyDetector:
        torch.manual_seed(seed)
        return TinyDetector(self.train_set.classes)

    monkeypatch.setattr(LabelStudy, "detector", tiny)
    few = SETTINGS.model_copy(update={"steps": 3})
    found = fpn.forecast_labels(scenes(20), scenes(6, seed=4), tmp_path / "plan", settings=few)
    assert [pilot.steps for pilot in found.pilots] == [3] * 8
    assert [pilot.images for pilot in found.pilots] == [5, 5, 5, 5, 10, 10, 20, 20]
    assert all(len(pilot.resampled) == 100 for pilot in found.pilots)
    assert [(each.times, each.images) for each in found.forecasts] == [(2, 40), (4, 80)]
    assert found.time.full_seconds > found.time.full_step > 0
    assert sorted(path.name for path in (tmp_path / "plan" / "pilots").iterdir())[0] == "all-1.json"


def test_a_stopped_plan_goes_on_without_running_complete_pilots_again(
    trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = running.run_pilot

    def stopped(study: LabelStudy, pilot: Pilot, steps: int, screen: Screen) -> PilotOutcome:
        if pilot.name == "half 1":
            raise KeyboardInterrupt
        return whole(study, pilot, steps, screen)

    with monkeypatch.context() as patch:
        patch.setattr(running, "run_pilot", stopped)
        with pytest.raises(KeyboardInterrupt):
            forecast_labels(scenes(20), scenes(6, seed=4), tmp_path / "plan", settings=SETTINGS)
    monkeypatch.setattr(running, "_measure_times", None)  # nor is anything timed again
    lines: list[str] = []
    first = forecast_labels(
        scenes(20), scenes(6, seed=4), tmp_path / "plan", settings=SETTINGS, screen=Screen(tell=lines.append)
    )
    assert trained == NAMES
    # 4 of 8 are left: 10 steps of 0.5 s and 6 images of 0.1 s each.
    assert "8 pilots on 5, 5, 5, 5, 10, 10, 20, 20 images, 4 are complete; 10 steps each at 32 pixels" in lines
    assert "time: about 22 seconds (0.5 s a step)" in lines
    again = forecast_labels(scenes(20), scenes(6, seed=4), tmp_path / "plan", settings=SETTINGS)
    assert trained == NAMES
    assert again.to_dict() == first.to_dict()


def test_other_settings_other_folders_and_damaged_outcomes_are_refused(trained: list[str], tmp_path: Path):
    both = scenes(20), scenes(6, seed=4)
    forecast_labels(*both, tmp_path / "plan", settings=SETTINGS)
    other = SETTINGS.model_copy(update={"steps": 11})
    with pytest.raises(ConfigError, match=r"was begun with training\.steps 10, now it is 11"):
        forecast_labels(*both, tmp_path / "plan", settings=other)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="no earlier `fpn plan` wrote"):
        forecast_labels(*both, tmp_path / "mine", settings=SETTINGS)
    (tmp_path / "plan" / "pilots" / "all-2.json").write_text("{")
    with pytest.raises(OutputError, match=r"all-2\.json: can't be read"):
        forecast_labels(*both, tmp_path / "plan", settings=SETTINGS)
    assert trained == NAMES


def test_a_time_budget_becomes_steps_and_stays_when_it_goes_on(trained: list[str], tmp_path: Path):
    settings = SETTINGS.model_copy(update={"steps": None})
    both = scenes(20), scenes(6, seed=4)
    # 0.85 * 400 s / 8 pilots = 42.5 s, of which 0.6 s go into measuring 6 images: 83 steps of 0.5 s.
    found = forecast_labels(*both, tmp_path / "plan", settings=settings, seconds=400.0)
    assert found.settings["training"]["steps"] == 83
    assert forecast_labels(*both, tmp_path / "plan", settings=settings).settings["training"]["steps"] == 83
    with pytest.raises(ConfigError, match=r"pilots of at least 40 steps need about 4 minutes"):
        forecast_labels(*both, settings=settings, seconds=60.0)


def test_sentences_and_the_table_say_what_more_labels_bring(trained: list[str]):
    found = forecast_labels(scenes(40), scenes(6, seed=4), settings=SETTINGS)
    twice = found.forecasts[0]
    assert 0.01 < twice.gain.low < twice.gain.value < twice.gain.high < 0.2
    told = found.sentences()
    assert told[0].startswith(f"Twice the labels, 80 images, would bring {100 * twice.gain.value:+.1f} points of AP")
    assert told[1] == "Labels are what is missing: label more, the most telling ones first."
    rows = budget_table(found).rows
    assert [row[0] for row in rows] == ["10", "20", "40", "80", "160", "any number"]
    # Two of four quarters found 0.21 and two 0.20: 20.5 on average, 0.58 of standard deviation.
    assert rows[0][1:4] == ("4 pilots", "20.5", "± 0.6")
    drawn = draw_curve(found)
    assert drawn.count("<circle") == 8 + 1  # and one in the legend
    assert drawn.count("<polygon") == 1


def test_pilots_that_learned_nothing_promise_nothing():
    pilots = deal_pilots(scenes(40), seed=0)
    found = LabelForecast.of(
        [outcome(pilot, 0.06 if pilot.part == 4 else 0.04) for pilot in pilots],
        dataset="early",
        held_out=("val", 6),
        confidence=0.9,
        time=TIMES,
        settings={},
    )
    told = found.sentences()
    assert told[0].startswith("The pilots have learned next to nothing: 4.0 points of AP with all images.")
    assert told[1].startswith("Give each more than 10 steps (--steps, --time-budget)")
    assert not any("Labels are" in sentence or "would bring" in sentence for sentence in told)


def test_a_flat_curve_says_that_labels_are_not_what_is_missing():
    pilots = deal_pilots(scenes(40), seed=0)
    found = LabelForecast.of(
        [outcome(pilot, 0.5) for pilot in pilots],
        dataset="flat",
        held_out=("val", 6),
        confidence=0.2,
        time=TIMES,
        settings={},
    )
    assert found.sentences()[1].startswith("More labels of this kind bring next to nothing")


@pytest.mark.parametrize(("counts", "told"), [((14, 5), "19 labelled images are too few"), ((30, 1), "1 images to")])
def test_too_few_images_are_refused_with_a_remedy(trained: list[str], counts: Sequence[int], told: str):
    with pytest.raises(DataError, match=told):
        forecast_labels(scenes(counts[0]), scenes(counts[1], seed=4), settings=SETTINGS)
    assert trained == []


def test_held_out_images_of_other_classes_or_without_objects_are_refused(trained: list[str]):
    class Other(SceneDataset):
        def __init__(self) -> None:
            super().__init__(6, height=32, width=32, extent=(8.0, 24.0))
            self.classes = fpn.Classes.of(["cell"])

    empty: Dataset = SceneDataset(6, height=32, width=32, objects=(0, 0), extent=(8.0, 24.0))
    with pytest.raises(ConfigError, match="its classes are not those of scenes-3"):
        forecast_labels(scenes(20), Other(), settings=SETTINGS)
    with pytest.raises(DataError, match="none of its 6 images has an object"):
        forecast_labels(scenes(20), empty, settings=SETTINGS)


def shots(count: int) -> tuple[Shot, ...]:
    random = np.random.default_rng(0)
    sides = random.integers(40, 90, size=(count, 2)).tolist()
    boxes = [(1.0, 2.0, 20.0, 30.0), (5.0, 5.0, 35.0, 38.0)]
    names = ("nut", "bolt", "washer")
    return tuple(
        Shot(f"{row:02d}.png", width, height, (Annotation(names[row % 3], boxes[row % 2]),))
        for row, (width, height) in enumerate(sides)
    )


def test_the_command_holds_out_images_tells_the_time_and_leaves_figures(
    shell: Shell, trained: list[str], tmp_path: Path
):
    data, plan = write_coco(tmp_path / "set", shots(28)), tmp_path / "plan"
    words = ["plan", data, "--output", plan, "--steps", 10, "--short-side", 32, "--weights", "none", "--no-similar"]
    ended = shell(*words, "--device", "cpu")
    assert ended.status == 0, ended.err
    lines = ended.out.splitlines()
    assert "holding out 7 of 28 images to measure on" in lines
    assert any(line.startswith("[8/8] all 2, 21 images: AP 0.380 (") for line in lines)
    assert any(line.startswith("Twice the labels, 42 images, would bring +") for line in lines)
    assert "A whole training on the 21 images (fpn train) takes about 10 minutes here: 300 steps of 2 s." in lines
    told = json.loads((plan / "label-budget.json").read_text())
    assert told["held_out"]["images"] == 7
    assert [each["images"] for each in told["forecasts"]] == [42, 84]
    assert len((plan / "label-budget.csv").read_text().splitlines()) == 9
    assert (plan / "label-budget.svg").read_text().startswith("<svg")
    assert shell(*words, "--device", "cpu").status == 0
    assert len(trained) == 8


def test_the_command_refuses_few_images_and_a_time_that_is_none(shell: Shell, trained: list[str], tmp_path: Path):
    data = write_coco(tmp_path / "set", shots(12))
    assert "12 labelled images are too few for a learning curve" in shell.fails("plan", data)
    assert "expected hours, minutes and seconds" in shell.fails("plan", data, "--time-budget", "soon")
    assert "a share between 0 and 1" in shell.fails("plan", data, "--validation-share", 0)
    assert trained == []
