from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from fpn.detectors import TwoStageDetector
from fpn.heads.box import BoxHead
from fpn.structures import Targets
from fpn.studies.diagnosis.stages import ImageTrace
from fpn.studies.diagnosis.two_stage import TwoStageTracer
from studies.diagnosis.planted import Spoil, detector, images, in_pairs, scattered


def trace(made: TwoStageDetector, truths: list[Targets], threshold: float = 0.3) -> list[ImageTrace]:
    with torch.inference_mode():
        return TwoStageTracer(made, threshold).trace(images(len(truths)), truths)


def stages(traces: list[ImageTrace]) -> Counter[str]:
    return Counter(each.stage for one in traces for each in one.lost)


def swap_two_classes(head: BoxHead) -> None:
    head.scores.weight[:2] = head.scores.weight[:2].flip(0).clone()


def move_boxes(head: BoxHead) -> None:
    """By 0.8 of their width: IoU 0.11."""
    head.deltas.bias[0::4] = 8.0


# What is planted -> the stage that has to be named, the least number of the 16 objects that it loses, and how.
PLANTED: dict[str, tuple[str, int, Callable[[], list[Targets]], dict[str, Any]]] = {
    "anchors of 256 pixels": ("anchors", 16, scattered, {"anchors": {"sizes": ((256.0,),) * 5}}),
    "three objects' anchors unsure": (
        "objectness",
        2,
        scattered,
        {"spoil": Spoil(unsure=(0, 3, 5)), "rpn": {"before_nms": (100, 100)}},
    ),
    "deltas that lead away": ("rpn_box", 2, scattered, {"spoil": Spoil(astray=(0, 3, 5))}),
    "top-k of 10 before NMS": ("top_k", 4, scattered, {"rpn": {"before_nms": (10, 10)}}),
    "top-k of 10 after NMS": ("top_k", 4, scattered, {"rpn": {"after_nms": (10, 10)}}),
    "RPN's NMS at 0.1": ("rpn_nms", 3, in_pairs, {"rpn": {"nms": 0.1}}),
    "objects of p3 read from p2": ("level", 16, scattered, {"roi": {"canonical_size": 224.0}}),
    "two classes swapped": ("class", 16, scattered, {"head": swap_two_classes}),
    "objects that the head can't see": ("class", 3, scattered, {"spoil": Spoil(unseen=(0, 3, 5))}),
    "boxes moved by the head": ("box", 14, scattered, {"head": move_boxes}),
    "NMS at 0.1": ("suppression", 6, in_pairs, {"box": {"nms": 0.1}}),
    "Soft-NMS that a slight overlap is enough for": (
        "suppression",
        6,
        in_pairs,
        {"box": {"suppression": "gaussian", "nms_sigma": 0.005}},
    ),
    "5 detections an image": ("suppression", 11, scattered, {"box": {"limit": 5}}),
    "a score limit of 0.99": ("threshold", 16, scattered, {"box": {"score_limit": 0.99}}),
}


# These are also planted in a detector with a mask head.
SIX = (
    "anchors of 256 pixels",
    "top-k of 10 before NMS",
    "NMS at 0.1",
    "objects of p3 read from p2",
    "two classes swapped",
    "a score limit of 0.99",
)
CASES = [*((name, False) for name in PLANTED), *((name, True) for name in SIX)]


@pytest.mark.parametrize(("name", "masks"), CASES)
def test_at_least_95_percent_of_the_losses_go_to_the_planted_stage(name: str, masks: bool) -> None:
    stage, least, scene, spoiled = PLANTED[name]
    truths = scene()
    found = stages(trace(detector(truths, masks=masks, **spoiled), truths))
    assert found[stage] >= least
    assert found[stage] >= 0.95 * found.total()


@pytest.mark.parametrize("scene", [scattered, in_pairs])
def test_a_detector_without_fault_loses_nothing(scene: Callable[[], list[Targets]]) -> None:
    truths = scene()
    assert [one.lost for one in trace(detector(truths), truths)] == [[]]


def test_a_threshold_of_099_loses_what_is_found_with_095() -> None:
    truths = scattered()
    found = trace(detector(truths), truths, threshold=0.99)
    assert stages(found) == {"threshold": 16}
    assert found[0].lost[0].reason == "it is found with a score of 0.95, below 0.99"
    # What it would give back is the detection as it is.
    assert len(found[0].repaired["threshold"]) == 16


def test_each_object_gets_the_stage_that_lost_it_where_several_faults_are_planted() -> None:
    truths = scattered(1)
    made = detector(truths, Spoil(astray=(0,), unseen=(6,)), rpn={"before_nms": (100, 100)})
    (found,) = trace(made, truths)
    assert {each.row: each.stage for each in found.lost} == {0: "rpn_box", 6: "class"}
    assert found.lost[1].reason.startswith("taken for background (0.87); cat has 0.0")


@pytest.mark.parametrize("suppression", ["hard", "gaussian"])
def test_what_the_tracer_calls_found_is_what_the_detector_finds(suppression: str) -> None:
    truths = scattered(2)
    made = detector(truths, rpn={"before_nms": (10, 10)}, box={"suppression": suppression})
    found = trace(made, truths, threshold=0.0)
    with torch.inference_mode():
        detections = made.detect(images(2))
    for one, given in zip(found, detections, strict=True):
        assert torch.equal(one.found.boxes, given.boxes)
        assert torch.equal(one.found.scores, given.scores)
        assert torch.equal(one.found.labels, given.labels)


@pytest.mark.parametrize("name", ["top-k of 10 before NMS", "two classes swapped", "boxes moved by the head"])
def test_the_repaired_stage_lets_its_objects_through(name: str) -> None:
    stage, _, scene, spoiled = PLANTED[name]
    truths = scene()
    for one, truth in zip(trace(detector(truths, **spoiled), truths), truths, strict=True):
        mine = torch.tensor([lost.row for lost in one.lost if lost.stage == stage])
        repaired = one.repaired[stage]
        same = repaired.labels[:, None] == truth.labels[mine]
        reached = (iou_of(repaired.boxes, truth.boxes[mine]) >= 0.5) & same
        assert reached.any(dim=0).float().mean() >= 0.95


def iou_of(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    low = torch.maximum(boxes[:, None, :2], others[:, :2])
    high = torch.minimum(boxes[:, None, 2:], others[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    areas = [(each[:, 2:] - each[:, :2]).prod(dim=1) for each in (boxes, others)]
    return shared / (areas[0][:, None] + areas[1] - shared)


def test_what_is_to_be_ignored_is_neither_lost_nor_found() -> None:
    truths = scattered(1)
    made = detector(truths, Spoil(unseen=(0, 1)))
    ignored = torch.arange(16) == 0
    (found,) = trace(made, [replace(truths[0], ignore=ignored)])
    assert [each.row for each in found.lost] == [1]
    assert len(found.levels) == 15


def test_marks_show_the_truth_and_what_came_nearest() -> None:
    truths = scattered(1)
    (found,) = trace(detector(truths, head=swap_two_classes), truths)
    first = found.lost[0]
    assert [mark.what for mark in first.marks] == ["truth", "anchor", "proposal", "detection"]
    assert first.marks[0].box == pytest.approx(truths[0].boxes[0].tolist())
    assert first.marks[3].text.startswith("dog 0.95, IoU 0.9")
    assert first.reason == "taken for dog (0.95); cat has 0.00"
