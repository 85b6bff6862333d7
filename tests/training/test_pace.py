from __future__ import annotations

from dataclasses import replace

import pytest

from fpn.runtime.capacity import Capacity
from fpn.training import recipes
from fpn.training.config import TrainConfig
from fpn.training.pace import Pace, alternatives, fit_to_time, measure_pace
from fpn.training.recipes import plan_training

from .counted import CountedDataset, square
from .tiny import tiny_detector, tiny_scenes

# 100 images in batches of 4.
PACE = Pace(step=2.0, image=0.5, epoch=25)


@pytest.fixture
def plan(monkeypatch):
    monkeypatch.setattr(recipes, "weights_at_hand", lambda _: "offline")
    capacity = Capacity("cpu", "CPU", 2, 16.0)
    return lambda **given: plan_training(CountedDataset(100, square(60)), given=given, capacity=capacity)


def test_a_run_takes_its_steps_and_its_validations():
    # 10 epochs of 50 seconds, and 5 validations of 10 images.
    assert PACE.seconds(TrainConfig(epochs=10, validate_every=2), validated=10) == 525
    assert PACE.seconds(TrainConfig(epochs=10, validate_every=0), validated=10) == 505
    # 30 steps are one epoch and a part, with a validation after each.
    assert PACE.seconds(TrainConfig(steps=30), validated=10) == 70


def test_a_time_budget_becomes_as_many_epochs_as_nine_tenths_of_it_hold(plan):
    # 540 of 600 seconds: 9 epochs of 50 + 10 seconds.
    fitted = fit_to_time(plan(), PACE, 600.0, validated=20)
    assert (fitted.config.epochs, fitted.config.validate_every) == (9, 1)
    # 5400 seconds without 10 validations of 10 seconds: 106 epochs.
    fitted = fit_to_time(plan(), PACE, 6000.0, validated=20)
    assert (fitted.config.epochs, fitted.config.validate_every) == (106, 10)
    assert PACE.seconds(fitted.config, validated=20) < 6000


def test_a_budget_below_an_epoch_becomes_steps(plan):
    # 36 of 40 seconds, 4 of them for the validation at the end.
    fitted = fit_to_time(plan(), PACE, 40.0, validated=8)
    assert fitted.config.steps == 16
    assert "epochs" not in fitted.chosen


def test_validations_stay_as_often_as_was_asked_for(plan):
    fitted = fit_to_time(plan(validate_every=5), PACE, 600.0, validated=20)
    assert (fitted.config.epochs, fitted.config.validate_every) == (10, 5)


def test_a_faster_and_a_better_run_are_told_as_options_with_their_time(plan):
    # 384 pixels and 40 epochs: 320 and 20, (320 / 384) ** 2 / 2 = 0.347 of the time; 480 and 60, 2.34 times.
    found = alternatives(plan(), 1000.0)
    assert found["faster"] == ("--short-side 320 --epochs 20", pytest.approx(347.22, abs=0.01))
    assert found["better"] == ("--short-side 480 --epochs 60", pytest.approx(2343.75))


def test_real_steps_are_timed_and_an_epoch_is_counted():
    pace = measure_pace(tiny_detector(), tiny_scenes(), TrainConfig(batch_size=2, device="cpu", workers=2))
    assert pace.epoch == 3
    assert pace.step > 0
    assert pace.image > 0


def test_a_busy_machine_is_named_beside_the_time() -> None:
    assert PACE.caution == ""
    assert replace(PACE, others=0.4).caution == ""
    assert replace(PACE, others=1.44).caution.startswith("other programs used 1.4 cores while this was timed")
