from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from fpn.errors import ConfigError
from fpn.structures import Classes, Detections, Thresholds
from fpn.structures.thresholds import read_thresholds

CHOSEN = Thresholds((0.3, 0.7), "f1", "cells", 40, (True, False))


def test_each_class_has_its_own_threshold_and_a_score_on_it_counts() -> None:
    scores, labels = torch.tensor([0.9, 0.7, 0.5, 0.3, 0.2]), torch.tensor([1, 1, 1, 0, 0])
    exact = Thresholds((torch.tensor(0.3).item(), torch.tensor(0.7).item()), "f1", "cells", 40, (True, True))
    assert exact.which(Detections(torch.zeros(5, 4), scores, labels)).tolist() == [True, True, False, True, False]


def test_nothing_found_is_nothing_kept() -> None:
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert len(nothing[CHOSEN.which(nothing)]) == 0


def test_they_come_back_from_json_as_they_were() -> None:
    assert read_thresholds(json.loads(json.dumps(CHOSEN.to_json())), 2) == CHOSEN
    assert CHOSEN.by_class(Classes.of(["cell", "platelet"])) == {"cell": 0.3, "platelet": 0.7}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scores": [0.3]}, "a list of 2 under scores"),
        ({"scores": [0.3, 1.5]}, "threshold 1.5"),
        ({"scores": [0.3, "0.7"]}, "expected numbers"),
        ({"scores": [0.3, True]}, "expected numbers"),
        ({"scores": [0.3, float("nan")]}, "expected numbers"),
        ({"reached": [1, 0]}, "true or false"),
        ({"reached": None}, "a list of 2 under reached"),
        ({"goal": 3}, "texts under goal"),
        ({"images": "many"}, "a whole number under images"),
    ],
)
def test_what_a_broken_file_says_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_thresholds({**CHOSEN.to_json(), **changed}, 2)


def test_a_list_is_no_table() -> None:
    with pytest.raises(ConfigError, match="thresholds are list"):
        read_thresholds([], 0)
