from __future__ import annotations

import torch

from fpn.structures import Detections, Targets
from fpn.studies.diagnosis.false_alarms import sort_alarms, without_fault
from fpn.studies.diagnosis.pairing import best_overlap, own, own_pairs, pair


def detections(*boxes: list[float], labels: list[int] | None = None) -> Detections:
    scores = torch.linspace(0.9, 0.5, len(boxes))
    return Detections(torch.tensor(boxes), scores, torch.tensor(labels or [0] * len(boxes)))


def truth(*boxes: list[float], labels: list[int] | None = None, ignore: list[bool] | None = None) -> Targets:
    given = torch.tensor(labels or [0] * len(boxes))
    return Targets(torch.tensor(boxes), given, torch.tensor(ignore or [False] * len(boxes)))


SQUARE = [0.0, 0.0, 10.0, 10.0]


def test_the_surest_takes_the_object_and_the_second_finds_nothing() -> None:
    assert pair(detections(SQUARE, SQUARE), truth(SQUARE)).tolist() == [0, -1]


def test_a_detection_of_another_class_finds_nothing() -> None:
    assert pair(detections(SQUARE, labels=[1]), truth(SQUARE)).tolist() == [-1]


def test_one_that_lies_half_in_an_ignored_region_is_neither() -> None:
    region = truth([0.0, 0.0, 100.0, 100.0], ignore=[True])
    assert pair(detections(SQUARE, [95.0, 0.0, 106.0, 10.0]), region).tolist() == [-2, -1]


def test_a_box_is_for_the_object_that_it_overlaps_most() -> None:
    iou = torch.tensor([[0.6, 0.7], [0.6, 0.6], [0.4, 0.1]])
    assert own(iou).tolist() == [[False, True], [True, True], [False, False]]


def test_pairs_of_many_boxes_are_those_of_few() -> None:
    boxes = torch.tensor([SQUARE, [50.0, 0.0, 60.0, 10.0], [0.0, 0.0, 10.0, 8.0]])
    objects = torch.tensor([SQUARE, [50.0, 0.0, 60.0, 9.0]])
    pairs, overlaps = own_pairs(boxes, objects)
    assert pairs.tolist() == [[0, 1, 2], [0, 1, 0]]
    torch.testing.assert_close(overlaps, torch.tensor([1.0, 0.9, 0.8]))


def test_the_best_overlap_is_0_where_nothing_is_near() -> None:
    highest, which = best_overlap(torch.tensor([SQUARE]), torch.tensor([SQUARE, [20.0, 0.0, 30.0, 10.0]]))
    assert highest.tolist() == [1.0, 0.0]
    assert which.tolist() == [0, 0]


# One object of class 0 at the left, one of class 1 at the right.
TWO = truth(SQUARE, [100.0, 0.0, 110.0, 10.0], labels=[0, 1])
FALSE = detections(
    SQUARE,  # finds the first
    SQUARE,  # twice
    [100.0, 0.0, 110.0, 10.0],  # the right box, class 0
    [0.0, 0.0, 10.0, 30.0],  # IoU 1/3 with its class
    [100.0, 0.0, 110.0, 30.0],  # IoU 1/3 with another class
    [200.0, 0.0, 210.0, 10.0],  # on nothing
)


def test_false_alarms_are_of_tides_five_kinds() -> None:
    alarms = sort_alarms(FALSE, pair(FALSE, TWO), TWO)
    assert [(each.number, each.kind, each.row) for each in alarms] == [
        (1, "duplicate", 0),
        (2, "classification", 1),
        (3, "localisation", 0),
        (4, "both", 1),
        (5, "background", -1),
    ]


def test_a_wrong_class_is_put_right_and_what_repeats_an_object_is_taken_away() -> None:
    matched = pair(FALSE, TWO)
    alarms = sort_alarms(FALSE, matched, TWO)
    fixed = without_fault(FALSE, matched, TWO, alarms, "classification")
    assert fixed.labels.tolist() == [0, 0, 1, 0, 0, 0]
    # The poor box is about an object that is found already.
    assert len(without_fault(FALSE, matched, TWO, alarms, "localisation")) == 5
    assert without_fault(FALSE, matched, TWO, alarms, "background").boxes.tolist() == FALSE.boxes[:5].tolist()


def test_on_an_image_without_objects_everything_is_background() -> None:
    nothing = Targets.empty()
    alarms = sort_alarms(FALSE, pair(FALSE, nothing), nothing)
    assert {each.kind for each in alarms} == {"background"}
