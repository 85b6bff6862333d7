from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fpn.errors import ConfigError, TrainingError
from fpn.structures import LossTerms
from fpn.training.config import TrainConfig
from fpn.training.rate_range import RisingRate, find_learning_rate, judge, smooth
from fpn.training.trainer import train

from .tiny import TinyDetector, tiny_detector, tiny_scenes

CONFIG = TrainConfig(batch_size=2, device="cpu", workers=0, optimizer="sgd", momentum=0.0, weight_decay=0.0)


class Bowl(TinyDetector):
    """Its loss is 2 (w - s) ** 2 with w = 3 at first and s = 0.5 and -0.5 in turns.

    A step of rate r multiplies w by 1 - 4 r, so that w grows above a rate of 0.5. Below it w ends by swinging with s,
    which makes the loss 0.5 / (1 - 2 r) ** 2: at 0.125 it is nearly twice, at 0.25 four times its best.
    """

    def __init__(self) -> None:
        super().__init__(tiny_scenes().classes)
        self.place = nn.Parameter(torch.full((), 3.0))

    def losses(self, images, targets, *, generator=None) -> LossTerms:
        self.calls += 1
        return LossTerms({"bowl": 2 * (self.place - 0.5 * (-1) ** self.calls).square()})


def judged(losses, *, rates=None):
    rates = rates or [10.0 ** (-4 + 0.1 * step) for step in range(len(losses))]
    return judge(rates, losses, stopped="told so", usual=0.02, seconds=1.0)


def test_the_rate_rises_by_the_same_factor_from_the_first_to_the_last_step():
    rising = RisingRate(1e-4, 1.0, 5)
    assert [rising.rate(step) for step in range(5)] == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])


def test_in_a_bowl_the_suggestion_is_well_below_where_steps_overshoot():
    found = find_learning_rate(Bowl(), tiny_scenes(), CONFIG, low=1e-3, high=30.0)
    assert 0.01 < found.lowest < 0.125
    assert found.suggestion == pytest.approx(found.lowest / 10, rel=0.05)
    assert found.stopped == "the loss rose above 4 times its lowest value"
    assert 0.25 < found.rates[-1] < 30
    assert found.losses[0] == 24.5  # 2 * (3 + 0.5) ** 2
    assert found.usual == 0.0025  # 0.02 for 16 images, and these are 2


def test_a_valley_gives_a_tenth_of_its_lowest_place():
    # (x - 2) ** 2 + 1 over x = -log10(rate): lowest at 0.01, and smoothing from both ends moves nothing.
    found = judged([1 + (2 - 0.1 * step) ** 2 for step in range(41)])
    assert found.lowest == pytest.approx(0.01)
    assert found.suggestion == 0.001
    assert found.steepest is not None
    assert found.steepest < 0.01
    assert "beyond it, it rises" in found.reason


def test_where_the_loss_still_falls_at_the_end_the_suggestion_may_be_too_low():
    found = judged([5 - 0.1 * step for step in range(41)])
    assert found.suggestion == 0.1
    assert "may be too low" in found.reason


@pytest.mark.parametrize("losses", [[1.0] * 40, [1.0 + 0.3 * (-1) ** step for step in range(40)]])
def test_a_loss_that_does_not_fall_gives_no_suggestion(losses):
    found = judged(losses)
    assert found.suggestion is None
    assert "no rate is better than another" in found.reason


def test_smoothing_keeps_a_constant_and_the_place_of_a_peak():
    assert smooth([2.0] * 9) == pytest.approx([2.0] * 9)
    peak = smooth([0.0] * 10 + [1.0] + [0.0] * 10)
    assert peak.index(max(peak)) == 10


def test_a_run_is_the_same_to_the_bit_after_a_test_and_without_one():
    config = TrainConfig(epochs=2, batch_size=2, device="cpu", workers=0)
    trained = []
    for tested in (False, True):
        detector = tiny_detector()
        before = copy.deepcopy(detector.state_dict())
        states = torch.get_rng_state(), np.random.get_state()[1].copy()
        if tested:
            find_learning_rate(detector, tiny_scenes(), config, steps=20)
            assert all(torch.equal(before[name], value) for name, value in detector.state_dict().items())
            assert torch.equal(states[0], torch.get_rng_state())
            assert np.array_equal(states[1], np.random.get_state()[1])
            assert all(weight.grad is None for weight in detector.parameters())
        train(detector, tiny_scenes(), config, progress=False)
        trained.append(detector.state_dict())
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_a_loss_that_is_no_number_ends_the_test_and_too_few_steps_say_nothing():
    found = find_learning_rate(tiny_detector(spoil_step=16), tiny_scenes(), CONFIG, high=1e-5, steps=30)
    assert (len(found.losses), found.stopped) == (15, "the loss was not finite any more")
    with pytest.raises(TrainingError, match=r"ended after 4 steps, at a rate of 1\.3e-06: the loss was not finite"):
        find_learning_rate(tiny_detector(spoil_step=5), tiny_scenes(), CONFIG, high=1e-5, steps=30)


def test_the_test_ends_when_its_time_is_over():
    with pytest.raises(TrainingError, match=r"ended after 1 steps.*its time was over.*give it more time"):
        find_learning_rate(tiny_detector(), tiny_scenes(), CONFIG, seconds=1e-9)


@pytest.mark.parametrize("wrong", [{"low": 0.0}, {"low": 2.0}, {"steps": 19}, {"seconds": 0.0}])
def test_settings_that_make_no_test_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} "):
        find_learning_rate(tiny_detector(), tiny_scenes(), CONFIG, **wrong)
