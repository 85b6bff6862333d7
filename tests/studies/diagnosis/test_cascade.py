from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from fpn.heads.box import BoxHead
from fpn.structures import Targets
from fpn.studies.diagnosis.cascade import CascadeTracer
from fpn.studies.diagnosis.pairing import pair
from studies.diagnosis.planted import detector, images, in_pairs, scattered


class MoveBoxes:
    """By 0.8 of their width, in one stage: IoU 0.11."""

    def __init__(self, *stages: int) -> None:
        self.stages = stages

    def __call__(self, heads: Sequence[BoxHead]) -> None:
        for stage in self.stages:
            heads[stage - 1].deltas.bias[0::4] = 8.0


@pytest.mark.parametrize(
    ("stage", "name"), [(1, "moved_by_stage_1"), (2, "moved_by_stage_2"), (3, "box")], ids=["first", "second", "last"]
)
def test_the_stage_that_moves_boxes_away_is_named_and_without_it_they_are_found(stage: int, name: str) -> None:
    truths = scattered()
    made = detector(truths, cascade=MoveBoxes(stage))
    with torch.inference_mode():
        (found,) = CascadeTracer(made, 0.3).trace(images(1), truths)
    counts = Counter(lost.stage for lost in found.lost)
    assert counts[name] >= 14
    assert counts[name] >= 0.95 * counts.total()
    assert int((pair(found.repaired[name], truths[0]) >= 0).sum()) >= 14


def as_it_is(heads: Sequence[BoxHead]) -> None:
    """Without fault."""


def swap_two_classes(heads: Sequence[BoxHead]) -> None:
    for head in heads:
        head.scores.weight[:2] = head.scores.weight[:2].flip(0).clone()


# As in `test_two_stage`: what is planted -> the stage, the least number of 16 objects that it loses, and how.
PLANTED: dict[str, tuple[str, int, Callable[[], list[Targets]], dict[str, Any]]] = {
    "anchors of 256 pixels": ("anchors", 16, scattered, {"anchors": {"sizes": ((256.0,),) * 5}}),
    "top-k of 10 before NMS": ("top_k", 4, scattered, {"rpn": {"before_nms": (10, 10)}}),
    "RPN's NMS at 0.1": ("rpn_nms", 3, in_pairs, {"rpn": {"nms": 0.1}}),
    "objects of p3 read from p2": ("level", 16, scattered, {"roi": {"canonical_size": 224.0}}),
    "two classes swapped": ("class", 16, scattered, {"cascade": swap_two_classes}),
    "NMS at 0.1": ("suppression", 6, in_pairs, {"box": {"nms": 0.1}}),
    "a score limit of 0.99": ("threshold", 16, scattered, {"box": {"score_limit": 0.99}}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_at_least_95_percent_of_the_losses_go_to_the_planted_stage(name: str) -> None:
    stage, least, scene, spoiled = PLANTED[name]
    truths = scene()
    made = detector(truths, **{"cascade": as_it_is, **spoiled})
    with torch.inference_mode():
        (found,) = CascadeTracer(made, 0.3).trace(images(1), truths)
    counts = Counter(lost.stage for lost in found.lost)
    assert counts[stage] >= least, found.lost
    assert counts[stage] >= 0.95 * counts.total(), found.lost


def test_a_cascade_without_fault_loses_nothing_and_finds_what_the_detector_finds() -> None:
    truths = scattered()
    made = detector(truths, cascade=MoveBoxes())
    with torch.inference_mode():
        (found,) = CascadeTracer(made, 0.0).trace(images(1), truths)
        (given,) = made.detect(images(1))
    assert found.lost == []
    assert torch.equal(found.found.boxes, given.boxes)
    assert torch.equal(found.found.scores, given.scores)


def test_its_stages_stand_between_those_of_the_rpn_and_of_the_last_head() -> None:
    names = [stage.name for stage in CascadeTracer(detector([], cascade=MoveBoxes()), 0.5).stages]
    assert names[4:8] == ["rpn_nms", "moved_by_stage_1", "moved_by_stage_2", "level"]
