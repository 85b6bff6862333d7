from __future__ import annotations

import numpy as np
import pytest

from fpn.evaluation.matches import ClassMatches, Matches
from fpn.structures import Classes
from fpn.studies.report.curves import class_curves, reliability


def matches(scores: list[float], right: list[bool], objects: int) -> Matches:
    """One image, one class; the same at every overlap."""
    true = np.tile(np.array(right, dtype=bool), (10, 1))
    table = ClassMatches(
        np.zeros(len(scores), dtype=np.int64), np.array(scores), true, ~true, np.array([objects], dtype=np.int64)
    )
    return Matches((1,), ("1.png",), Classes.of(["nut"]), ((table,) * 4,))


def test_precision_recall_and_f1_along_the_score() -> None:
    (curve,) = class_curves(matches([0.9, 0.8, 0.6], [True, False, True], 4))
    assert curve == {
        "class": "nut",
        "objects": 4,
        "score": [0.9, 0.8, 0.6],
        "precision": [1.0, 0.5, pytest.approx(2 / 3, abs=1e-5)],
        "recall": [0.25, 0.25, 0.5],
        "f1": [0.4, pytest.approx(1 / 3, abs=1e-5), pytest.approx(4 / 7, abs=1e-5)],
    }


def test_equal_scores_are_one_point() -> None:
    (curve,) = class_curves(matches([0.9, 0.9], [True, False], 1))
    assert (curve["score"], curve["precision"]) == ([0.9], [0.5])


def test_long_curves_keep_a_hundred_points_and_both_ends() -> None:
    scores = np.linspace(1, 0.001, 5000).tolist()
    (curve,) = class_curves(matches(scores, [True] * 5000, 5000))
    assert (len(curve["score"]), curve["score"][0], curve["score"][-1], curve["recall"][-1]) == (100, 1.0, 0.001, 1.0)


def test_calibration_error_is_the_weighted_gap_between_score_and_share_of_right_ones() -> None:
    # Bin 0.9 to 1: two of 0.95, one right: gap 0.45. Bin 0.2 to 0.3: two of 0.25, none right: gap 0.25.
    found = reliability(matches([0.95, 0.95, 0.25, 0.25], [True, False, False, False], 3))
    assert found["ece"] == pytest.approx((2 * 0.45 + 2 * 0.25) / 4)
    assert (found["bins"][9]["right"], found["bins"][2]["right"], found["bins"][5]["right"]) == (0.5, 0.0, None)
    assert (found["detections"], found["share_right"]) == (4, 0.25)


def test_without_detections_there_is_no_error() -> None:
    found = reliability(matches([], [], 3))
    assert (found["ece"], found["mean_score"], found["detections"]) == (None, None, 0)
