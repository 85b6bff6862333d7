from __future__ import annotations

import numpy as np
import pytest

from fpn.studies.suggesting.choosing import Choosing, standardized


def choosing(
    worths: list[list[float]],
    looks: list[list[float]],
    *,
    labelled: list[list[float]] | None = None,
    known: list[float] | None = None,
    alike: dict[int, list[int]] | None = None,
) -> Choosing:
    kinds = len(worths[0])
    return Choosing(
        worths=np.array(worths, dtype=float),
        known=np.array(known or [0.0] * kinds),
        descriptors=np.array(looks, dtype=float),
        labelled=np.array(labelled or np.zeros((0, len(looks[0])))),
        alike=alike or {},
        open=np.ones(len(worths), dtype=bool),
    )


def numbers(state: Choosing, count: int) -> list[int]:
    return [choice.number for choice in state.choose(count)]


CORNERS = [[0.0, 0.0], [0.0, 10.0], [10.0, 0.0], [10.0, 10.0]]


def test_the_image_with_most_to_teach_comes_first() -> None:
    assert numbers(choosing([[1.0], [0.5], [3.0], [0.1]], CORNERS), 2)[0] == 2


def test_of_two_images_that_look_the_same_the_second_comes_after_a_different_one() -> None:
    looks = [[0.0, 0.0], [0.0, 0.01], [10.0, 10.0]]
    assert numbers(choosing([[3.0], [2.9], [0.5]], looks), 3) == [0, 2, 1]


def test_of_images_that_show_the_same_only_one_is_chosen() -> None:
    state = choosing([[3.0], [2.0], [1.0], [0.5]], CORNERS, alike={0: [1, 2], 1: [0], 2: [0]})
    assert numbers(state, 4) == [0, 3]
    assert state.rest() == []


def test_an_image_that_looks_like_a_labelled_one_comes_last() -> None:
    # The corners are 10 to 14 from one another, the labelled one is 0.1 from the first.
    assert numbers(choosing([[3.0], [1.0], [1.0], [0.9]], CORNERS, labelled=[[0.0, 0.1]]), 4)[-1] == 0


def test_to_be_odder_than_usual_is_no_merit() -> None:
    # The labelled one is 2000 and more from all; the usual distance is 500.
    looks = [[0.0, 0.0], [0.0, 10.0], [0.0, 20.0], [0.0, 1000.0]]
    state = choosing([[1.0], [1.0], [1.0], [1.0]], looks, labelled=[[0.0, -2000.0]])
    assert [choice.unlike for choice in state.rest()] == [1.0] * 4


def test_objects_of_a_class_with_few_labels_count_more() -> None:
    # log(1 + 2 / 101) = 0.020 of the first class, log(1 + 1 / 3) = 0.288 of the second.
    state = choosing([[2.0, 0.0], [0.0, 1.0]], [[0.0], [1.0]], known=[100.0, 2.0])
    first, second = state.choose(2)
    assert (first.number, second.number) == (1, 0)
    assert first.by_class.tolist() == pytest.approx([0.0, 0.28768], abs=1e-5)
    # Nothing is chosen yet, so it is unlike all; to be unlike is worth 0.01.
    assert first.gain == pytest.approx(0.29768, abs=1e-4)


def test_what_was_chosen_makes_more_of_its_class_worth_less() -> None:
    # Four images of the first class and one, worth a little less, of the second: that comes after the first.
    worths = [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.9]]
    looks = [[float(x)] for x in (0, 100, 200, 300, 400)]
    assert numbers(choosing(worths, looks), 2)[1] == 4


def test_without_looks_the_gain_alone_decides() -> None:
    state = choosing([[1.0], [3.0], [2.0]], [[], [], []])
    assert numbers(state, 3) == [1, 2, 0]


def test_more_than_there_are_gives_all_and_each_once() -> None:
    assert sorted(numbers(choosing([[1.0], [1.0], [1.0], [1.0]], CORNERS), 9)) == [0, 1, 2, 3]


def test_descriptors_are_counted_in_spreads_of_the_pool() -> None:
    pool, others = standardized(np.array([[0.0, 5.0], [4.0, 5.0]]), np.array([[6.0, 9.0]]))
    # Mean 2 and spread 2; the second value has no spread.
    assert pool.tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    assert others.tolist() == [[2.0, 0.0]]
