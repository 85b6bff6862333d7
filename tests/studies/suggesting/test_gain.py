from __future__ import annotations

import numpy as np
import pytest
import torch

from fpn.shapes import Size
from fpn.structures import Detections
from fpn.studies.suggesting.evidence import Evidence
from fpn.studies.suggesting.gain import class_worths, expected_objects, gains, things, unsureness

HERE, THERE = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]


def detections(*found: tuple[int, float, list[float]]) -> Detections:
    """Of (label, score, box), best first."""
    labels = torch.tensor([label for label, _, _ in found], dtype=torch.int64)
    boxes = torch.tensor([box for _, _, box in found]).reshape(-1, 4)
    return Detections(boxes, torch.tensor([score for _, score, _ in found]), labels)


def evidence(*found: tuple[int, float, list[float]]) -> Evidence:
    return Evidence(detections(*found), Size(100, 100), torch.zeros(0))


def worths(*found: tuple[int, float, list[float]], classes: int = 2) -> list[float]:
    (row,) = class_worths([evidence(*found)], classes).tolist()
    return row  # type: ignore[no-any-return]


def test_noise_and_what_is_sure_teach_little() -> None:
    assert unsureness(torch.tensor([0.0, 0.5, 1.0])).tolist() == [0.0, 0.25, 0.0]


def test_detections_that_overlap_are_guesses_about_one_thing() -> None:
    # The second overlaps the first by 0.5, of another class; the last is elsewhere.
    found = detections((0, 0.5, HERE), (1, 0.25, [0.0, 0.0, 10.0, 5.0]), (0, 0.125, HERE), (1, 0.0625, THERE))
    assert [each.tolist() for each in things(found, 2)] == [[0.5, 0.25], [0.0, 0.0625]]


def test_a_box_without_area_is_a_thing_of_its_own() -> None:
    found = detections((0, 0.5, [5.0, 5.0, 5.0, 5.0]), (0, 0.25, HERE))
    assert [each.tolist() for each in things(found, 1)] == [[0.5], [0.25]]


def test_what_may_be_one_class_or_another_counts_for_both() -> None:
    # Half is missing to being sure: 0.5 * 0.5 and 0.25 * 0.5, over the weight of 0.75, times its fourth root 0.93060.
    assert worths((0, 0.5, HERE), (1, 0.25, HERE)) == pytest.approx([0.31020, 0.15510], abs=1e-5)


def test_a_sure_object_is_worth_less_than_an_unsure_one() -> None:
    assert worths((0, 1.0, HERE)) == [0.0, 0.0]
    # 0.9 * 0.1 / 0.9 * 0.9 ** 0.25 and 0.5 * 0.5 / 0.5 * 0.5 ** 0.25
    assert worths((0, 0.9, HERE))[0] == pytest.approx(0.09740, abs=1e-5)
    assert worths((0, 0.5, HERE))[0] == pytest.approx(0.42045, abs=1e-5)


def test_sixteen_unsure_objects_are_worth_twice_as_much_as_one() -> None:
    many = [(0, 0.5, [20.0 * number, 0.0, 20.0 * number + 10, 10.0]) for number in range(16)]
    assert worths(*many)[0] == pytest.approx(2 * worths(many[0])[0])


def test_an_image_without_detections_is_worth_nothing_to_any_class() -> None:
    assert worths(classes=3) == [0, 0, 0]
    assert class_worths([], 3).shape == (0, 3)


def test_objects_are_expected_as_often_as_scores_say() -> None:
    seen = [evidence((0, 0.5, HERE), (0, 0.25, THERE), (1, 0.125, HERE)), evidence()]
    assert expected_objects(seen, 3).tolist() == [[0.75, 0.125, 0.0], [0, 0, 0]]


def test_gain_is_the_logarithm_of_how_much_more_there_will_be() -> None:
    # log(1 + 2 / (1 + 1)) = log 2, and log(1 + 2 / (99 + 1)).
    found = gains(np.array([[2.0, 2.0]]), np.array([1.0, 99.0]))
    assert found.tolist() == [pytest.approx([0.69315, 0.01980], abs=1e-5)]
