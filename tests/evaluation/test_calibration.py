from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fpn.errors import ConfigError, DataError
from fpn.evaluation.calibration import Goal, calibrate
from fpn.evaluation.matches import ClassMatches, Matches
from fpn.structures import Classes

from .simulated import simulate

# Of ten objects in ten images, one each: right, right, wrong, right, wrong, wrong, right.
SCORES = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
RIGHT = [True, True, False, True, False, False, True]


def table(scores: list[float], right: list[bool], images: list[int], objects: list[int]) -> ClassMatches:
    true = np.repeat(np.array(right, dtype=bool)[None], 10, axis=0)
    return ClassMatches(
        np.array(images, dtype=np.int64), np.array(scores), true, ~true, np.array(objects, dtype=np.int64)
    )


def matched(*tables: ClassMatches) -> Matches:
    count = len(tables[0].objects)
    names = tuple("abcdef"[: len(tables)])
    files = tuple(f"{n}.jpg" for n in range(count))
    return Matches(tuple(range(count)), files, Classes.of(names), tuple((each,) for each in tables))


TEN = table(SCORES, RIGHT, [0, 1, 1, 2, 3, 4, 5], [1] * 10)


@pytest.mark.parametrize(
    ("goal", "threshold"),
    [
        # F1 is 2 true / (found + 10): 2/11, 4/12, 4/13, 6/14, 6/15, 6/16, 8/17. The last is the best.
        (Goal("f1"), 0.15),
        # Precision: 1, 1, 2/3, 3/4, 3/5, 1/2, 4/7. From 0.75 on: down to 0.6.
        (Goal("precision", 0.75), 0.55),
        (Goal("precision", 0.9), 0.75),
        # Recall: 0.1, 0.2, 0.2, 0.3, 0.3, 0.3, 0.4.
        (Goal("recall", 0.2), 0.75),
        (Goal("recall", 0.3), 0.55),
        (Goal("recall", 0.4), 0.15 + 0.2),
    ],
)
def test_a_threshold_lies_half_way_between_the_last_that_counts_and_the_next(goal: Goal, threshold: float) -> None:
    if goal == Goal("recall", 0.4):
        threshold = 0.15  # the last detection is needed: below all of them
    (chosen,) = calibrate(matched(TEN), goal, dataset="ten").classes
    assert chosen.threshold == pytest.approx(threshold)
    assert chosen.reached


def test_what_a_threshold_comes_to_is_counted() -> None:
    (chosen,) = calibrate(matched(TEN), Goal("precision", 0.75), dataset="ten").classes
    assert (chosen.objects, chosen.images) == (10, 10)
    assert (chosen.precision, chosen.recall, chosen.false_alarms) == pytest.approx((0.75, 0.3, 0.1))
    assert chosen.f1 == pytest.approx(6 / 14)


def test_a_goal_out_of_reach_says_what_can_be_had() -> None:
    (chosen,) = calibrate(matched(TEN), Goal("recall", 0.5), dataset="ten").classes
    assert not chosen.reached
    assert chosen.why == "only 40.0% of its objects are found at any score"
    assert chosen.threshold == pytest.approx(0.15)
    wrong = table([0.9, 0.8], [False, True], [0, 0], [1])
    (chosen,) = calibrate(matched(wrong), Goal("precision", 0.9), dataset="one").classes
    assert chosen.why == "its precision is 50.0% at best"
    # The most precise one, 11 of 116, is a flood: no more false ones than the 20 objects are let through.
    scores, right = [0.9] * 15 + [0.8] + [0.6] * 100, [False] * 15 + [True] + [True] * 10 + [False] * 90
    flood = table(scores, right, [0] * 116, [20])
    (chosen,) = calibrate(matched(flood), Goal("precision", 0.9), dataset="flood").classes
    assert chosen.threshold == pytest.approx(0.7)
    assert (chosen.precision, chosen.false_alarms) == pytest.approx((1 / 16, 15))
    assert chosen.why == "its precision is 9.5% at best"
    # Where the last object is found, false ones that score still less are left out.
    worse = table([0.9, 0.8], [True, False], [0, 0], [2])
    (chosen,) = calibrate(matched(worse), Goal("recall", 0.9), dataset="worse").classes
    assert chosen.threshold == pytest.approx(0.85)


def test_a_class_without_objects_and_one_without_finds_say_so() -> None:
    nothing = table([], [], [], [0] * 10)
    missed = table([0.6], [False], [3], [2] * 10)
    calibration = calibrate(matched(TEN, nothing, missed), Goal("f1"), dataset="ten")
    assert [each.why for each in calibration.classes] == [
        "",
        "no object of it in these images",
        "none of its objects is found at any score",
    ]
    assert [each.threshold for each in calibration.classes] == [0.15, 0.5, 0.5]
    assert calibration.overall.why == "not reached by b, c"


def test_a_bound_allows_less_than_the_images_show() -> None:
    # 19 images with two objects each; in image n one is found at 0.9 and the other at 0.5, but one at 0.2.
    second = [0.5] * 18 + [0.2]
    scores = np.array([0.9] * 19 + second)
    images = list(range(19)) * 2
    found = table(scores.tolist(), [True] * 38, images, [2] * 19)
    # From 0.5 on 1/38 is missed: 19/20 * 1/38 + 1/20 = 0.075 <= 0.1. From 0.9 on it is half.
    (chosen,) = calibrate(matched(found), Goal("guarantee", 0.9, sure=0.0), dataset="pairs").classes
    assert chosen.threshold == pytest.approx((0.5 + 0.2) / 2)
    # At most 0.07: everything has to be found, and 1/20 is left.
    (chosen,) = calibrate(matched(found), Goal("guarantee", 0.93, sure=0.0), dataset="pairs").classes
    assert chosen.threshold == pytest.approx(0.1)
    assert chosen.reached


def test_a_bound_on_too_few_images_says_how_many_are_needed() -> None:
    few = table([0.9] * 8, [True] * 8, list(range(8)), [1] * 8)
    (chosen,) = calibrate(matched(few), Goal("guarantee", 0.9, sure=0.0), dataset="few").classes
    assert chosen.why == "8 images with it are too few for any bound: 9 at least"
    nine = table([0.9] * 9, [True] * 9, list(range(9)), [1] * 9)
    assert calibrate(matched(nine), Goal("guarantee", 0.9, sure=0.0), dataset="nine").classes[0].reached


def test_a_bound_that_the_detector_misses_says_by_how_much() -> None:
    half = table([0.9] * 20, [True] * 20, list(range(20)), [1] * 40)
    (chosen,) = calibrate(matched(half), Goal("guarantee", 0.9, sure=0.0), dataset="half").classes
    assert chosen.why == "at any score 50.0% of an image's objects are missed, in 40 images"


def test_a_bound_that_only_more_images_would_give_says_so() -> None:
    # 1 of 18 is missed: less than 0.2, but not surely so.
    some = table([0.9] * 17, [True] * 17, list(range(1, 18)), [1] * 18)
    (chosen,) = calibrate(matched(some), Goal("guarantee", 0.8), dataset="some").classes
    assert chosen.why.endswith(
        "5.6% of an image's objects are missed, in 18 images: too few to be sure of at most 20.0% in others"
    )


def test_false_alarms_are_bounded_over_all_classes_with_one_threshold() -> None:
    # 49 images; false detections at 0.8, 0.6, 0.4, ... one in an image each.
    scores = [0.8 - n / 100 for n in range(40)]
    wrong = table(scores, [False] * 40, list(range(40)), [1] * 49)
    other = table([], [], [], [0] * 49)
    calibration = calibrate(matched(wrong, other), Goal("false-alarms", 0.5, sure=0.0), dataset="alarms")
    # n/50 + 10/50 <= 0.5: 15 may pass, the 15th has 0.66.
    assert [each.threshold for each in calibration.classes] == pytest.approx([0.655, 0.655])
    assert calibration.overall.false_alarms == pytest.approx(15 / 49)


def test_many_false_alarms_of_one_image_count_as_ten() -> None:
    # 30 in one of 39 images: as ten they are 10/40, with the largest loss 10/40 more: just 0.5.
    crowd = table([0.9 - n / 100 for n in range(30)], [False] * 30, [5] * 30, [1] * 39)
    goal = Goal("false-alarms", 0.5, sure=0.0)
    assert goal.most_alarms == 10
    calibration = calibrate(matched(crowd), goal, dataset="crowd")
    assert calibration.overall.reached
    assert calibration.overall.false_alarms == pytest.approx(30 / 39)
    few = calibrate(matched(table([0.9], [False], [0], [1] * 18)), goal, dataset="few")
    assert few.classes[0].why == "18 images are too few for any bound: 19 at least"


def test_together_all_classes_have_one_threshold() -> None:
    other = table([0.95, 0.35], [True, True], [6, 7], [0] * 6 + [1] * 2 + [0] * 2)
    apart = calibrate(matched(TEN, other), Goal("recall", 0.3), dataset="ten")
    assert [each.threshold for each in apart.classes] == pytest.approx([0.55, 0.65])
    merged = calibrate(matched(TEN, other), Goal("recall", 0.3), dataset="ten", together=True)
    # 3.6 of 12 objects: the fourth is the one at 0.6.
    assert [each.threshold for each in merged.classes] == pytest.approx([0.55, 0.55])


def missed_elsewhere(goal: Goal) -> np.ndarray:
    """(100, 2): what is missed of each class on 2000 images, with thresholds chosen on 100 times 60 other ones."""
    population = simulate(np.random.default_rng(5), 2000, skill=1.5)
    missed = []
    for seed in range(100):
        matches = simulate(np.random.default_rng(10_000 + seed), 60, skill=1.5)
        chosen = calibrate(matches, goal, dataset="drawn").classes
        assert all(each.reached for each in chosen)
        missed.append([share_missed(*pair) for pair in zip(population.tables, chosen, strict=True)])
    return np.array(missed)


def test_a_guarantee_holds_in_95_of_100_simulated_calibrations() -> None:
    missed = missed_elsewhere(Goal("guarantee", 0.7))
    assert ((missed <= 0.3).sum(axis=0) >= 95).all()
    # And it is no idle promise: more than half of what it allows is used.
    assert missed.mean() > 0.15


def test_a_guarantee_on_average_holds_on_average_and_is_nearly_used_up() -> None:
    missed = missed_elsewhere(Goal("guarantee", 0.7, sure=0.0)).mean(axis=0)
    assert missed.max() <= 0.3
    assert missed.min() >= 0.25


def test_false_alarms_stay_below_their_bound_in_95_of_100_simulated_calibrations() -> None:
    population = simulate(np.random.default_rng(5), 2000, objects=1.0)
    held, alarms = 0, []
    for seed in range(100):
        matches = simulate(np.random.default_rng(10_000 + seed), 80, objects=1.0)
        chosen = calibrate(matches, Goal("false-alarms", 2.0), dataset="drawn").classes[0]
        assert chosen.reached
        alarms.append(sum((t.false[0] & (t.scores >= chosen.threshold)).sum() for (t,) in population.tables) / 2000)
    held = sum(each <= 2.0 for each in alarms)
    assert held >= 95
    assert np.mean(alarms) > 1.0


def test_a_sure_bound_needs_more_images_than_one_on_average() -> None:
    # A stake of 1 wins a tenth with each image without a miss: 1.1 ** 32 is 21.1, over 1 / 0.05; 1.1 ** 31 is 19.2.
    counts = {}
    for images in (31, 32):
        perfect = table([0.9] * images, [True] * images, list(range(images)), [1] * images)
        (counts[images],) = calibrate(matched(perfect), Goal("guarantee", 0.9), dataset="perfect").classes
    assert counts[31].why == "31 images with it are too few for any bound: 32 at least"
    assert counts[32].reached


def share_missed(tables: tuple[ClassMatches, ...], chosen: object) -> float:
    (each,) = tables
    found = np.bincount(each.images[each.true[0] & (each.scores >= chosen.threshold)], minlength=len(each.objects))
    there = each.objects > 0
    return float(np.mean(1 - found[there] / each.objects[there]))


def test_thresholds_come_in_the_order_of_the_detectors_classes() -> None:
    calibration = calibrate(matched(TEN, table([0.6], [True], [3], [1] * 10)), Goal("f1"), dataset="ten")
    thresholds = calibration.thresholds(("b", "unlabelled", "a"))
    assert thresholds.scores == pytest.approx((0.3, 0.225, 0.15))
    assert thresholds.reached == (True, False, True)
    assert (thresholds.goal, thresholds.dataset, thresholds.images) == ("f1", "ten", 10)


def test_the_table_marks_what_is_not_reached_and_json_holds_all(tmp_path: Path) -> None:
    calibration = calibrate(matched(TEN, table([], [], [], [0] * 10)), Goal("recall", 0.3), dataset="ten")
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(calibration.table())
    text = console.export_text()
    assert "thresholds for recall 0.3" in text
    assert "b *" in text
    assert "a *" not in text
    figures = json.loads(calibration.save(tmp_path / "figures.json")[0].read_text())
    assert figures["per_class"][1]["precision"] is None
    assert figures["goal"] == {"kind": "recall", "level": 0.3}


@pytest.mark.parametrize(
    ("kind", "level", "message"),
    [
        ("precision", 90.0, "precision 90.0: a share between 0 and 1"),
        ("recall", None, "recall None"),
        ("guarantee", 1.0, "guarantee 1.0"),
        ("false-alarms", 0.0, "above 0"),
        ("f1", 0.5, "without a level"),
    ],
)
def test_a_level_that_is_none_is_refused(kind: object, level: float | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Goal(kind, level)


def test_images_without_any_object_can_not_choose() -> None:
    with pytest.raises(DataError, match="no labelled object in 3 images"):
        calibrate(matched(table([0.9], [False], [0], [0] * 3)), Goal("f1"), dataset="empty")
