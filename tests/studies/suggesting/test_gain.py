from __future__ import annotations

import numpy as np
import pytest
import torch

from fpn.shapes import Size
from fpn.structures import Detections
from fpn.studies.suggesting.evidence import Evidence
from fpn.studies.suggesting.gain import class_worths, difficulties, entropy, expected_objects, gains, worth


def evidence(*found: tuple[int, float]) -> Evidence:
    """Of detections (label, score)."""
    labels = torch.tensor([label for label, _ in found], dtype=torch.int64)
    scores = torch.tensor([score for _, score in found])
    return Evidence(Detections(torch.zeros(len(found), 4), scores, labels), Size(10, 10), np.zeros(0, np.float16))


def test_entropy_is_one_bit_at_a_half_and_none_where_all_is_clear() -> None:
    assert entropy(torch.tensor([0.0, 0.5, 1.0, 0.11])).tolist() == pytest.approx([0, 1, 0, 0.49992], abs=1e-4)


def test_an_unsure_detection_is_worth_more_than_a_sure_one_and_than_noise() -> None:
    # s * (0.2 + 0.8 * H(s))
    assert worth(torch.tensor([0.0, 0.5, 1.0])).tolist() == pytest.approx([0.0, 0.5, 0.2])
    noise, unsure, sure = worth(torch.tensor([0.05, 0.5, 0.99])).tolist()
    assert noise < sure < unsure


def test_worths_and_objects_are_summed_by_class() -> None:
    seen = [evidence((0, 0.5), (0, 0.5), (1, 1.0)), evidence()]
    assert class_worths(seen, 3).tolist() == [pytest.approx([1.0, 0.2, 0.0]), [0, 0, 0]]
    assert expected_objects(seen, 3).tolist() == [pytest.approx([1.0, 1.0, 0.0]), [0, 0, 0]]


def test_a_class_that_is_always_unsure_is_hard_and_one_that_was_never_seen_is_usual() -> None:
    # Unsure shares 1 and 0, 0.5 on average: 2 and 0, of which at least a half counts.
    assert difficulties([evidence((0, 0.5), (1, 1.0))], 3).tolist() == [2.0, 0.5, 1.0]
    assert difficulties([evidence()], 2).tolist() == [1.0, 1.0]


def test_gain_is_the_logarithm_of_how_much_more_there_will_be() -> None:
    # log(1 + 2 / (1 + 1)) = log 2 for an easy class, twice that for a hard one.
    found = gains(np.array([[2.0, 2.0]]), np.array([1.0, 1.0]), np.array([1.0, 2.0]))
    assert found.tolist() == [pytest.approx([0.69315, 1.38629], abs=1e-5)]
