"""The learning curve: planted power laws are found again, and intervals hold what they promise; nothing is trained."""

from __future__ import annotations

import numpy as np
import pytest

from fpn.errors import ConfigError
from fpn.studies.label_budget.curve import fit_curve

SIZES = [24] * 4 + [48] * 2 + [96] * 2


@pytest.mark.parametrize(("c", "a", "b"), [(0.2, 1.5, 0.5), (0.3, 0.8, 0.3), (0.1, 2.0, 0.7)])
def test_a_planted_power_law_is_found_again(c, a, b):
    random = np.random.default_rng(0)
    sizes = [10 * 2**k for k in range(11) for _ in range(3)]
    curve = fit_curve(sizes, [c + a * n**-b + 0.002 * random.standard_normal() for n in sizes])
    assert np.median(curve.exponent) == pytest.approx(b, abs=0.05)
    assert curve.ceiling(0.9).value == pytest.approx(1 - c, abs=0.025)
    ahead = curve.mean(40_960.0, 0.9)
    assert ahead.low - 0.005 < 1 - (c + a * 40_960**-b) < ahead.high + 0.005


def test_intervals_of_nine_in_ten_hold_the_next_training_in_about_nine_of_ten_curves():
    inside, widths = 0, []
    for seed in range(60):
        random = np.random.default_rng(seed)
        b, share, level = 0.5 * np.exp(0.5 * random.standard_normal()), random.uniform(), random.uniform(0.35, 0.75)

        def measure(n, random=random, b=b, share=share, level=level):
            error = min(level * (share + (1 - share) * (n / 96) ** -b), 1.0)
            return error + 0.015 * random.standard_normal()

        curve = fit_curve(SIZES, [measure(n) for n in SIZES], seed=seed)
        ahead = curve.one(192.0, 0.9)
        inside += ahead.low <= 1 - measure(192) <= ahead.high
        widths.append(ahead.high - ahead.low)
    assert 50 <= inside <= 59
    assert np.median(widths) < 0.12  # that is within 6 points to both sides


def test_pilots_that_all_find_the_same_leave_little_to_gain():
    curve = fit_curve(SIZES, [0.5] * 8)
    gain = curve.gain(192.0, 0.9)
    assert 0 <= gain.value < 0.02
    assert gain.high < 0.05
    assert curve.mean(96.0, 0.9).value == pytest.approx(0.5, abs=0.01)


def test_a_larger_number_of_labels_has_the_wider_interval_and_the_ceiling_is_above():
    curve = fit_curve(SIZES, [0.8, 0.79, 0.81, 0.8, 0.7, 0.7, 0.62, 0.61])
    twice, four = (curve.mean(96.0 * times, 0.9) for times in (2, 4))
    assert twice.value < four.value < curve.ceiling(0.9).value
    assert twice.high - twice.low < four.high - four.low
    half = curve.mean(192.0, 0.5)
    assert twice.low < half.low < half.high < twice.high


def test_nothing_found_with_few_images_does_not_make_the_curve_steeper():
    # Error 1 with 24 images fits a curve of 1, and of far more than 1, there alike.
    curve = fit_curve(SIZES, [1.0] * 4 + [0.9, 0.9, 0.8, 0.8])
    assert 0.2 < curve.mean(192.0, 0.9).value < 0.5


def test_measuring_on_other_images_widens_the_interval():
    errors = [0.8, 0.79, 0.81, 0.8, 0.7, 0.7, 0.62, 0.61]
    random = np.random.default_rng(0)
    # All pilots have a good or a bad day together.
    resampled = np.array(errors) + 0.04 * random.standard_normal((50, 1))
    alone, drawn = (fit_curve(SIZES, errors, resampled=rows) for rows in (None, resampled))
    widths = [each.high - each.low for each in (alone.mean(96.0, 0.9), drawn.mean(96.0, 0.9))]
    assert widths[1] > 2 * widths[0]
    gains = [each.high - each.low for each in (alone.gain(192.0, 0.9), drawn.gain(192.0, 0.9))]
    assert gains[1] < 1.2 * gains[0]  # which cancels out in the gain


@pytest.mark.parametrize(("sizes", "told"), [([10, 20], "2 pilots on"), ([10, 10, 10], r"3 pilots on \[10\]")])
def test_too_few_pilots_make_no_curve(sizes, told):
    with pytest.raises(ConfigError, match=told):
        fit_curve(sizes, [0.5] * len(sizes))
