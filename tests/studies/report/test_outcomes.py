from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fpn.evaluation import evaluate, judge_thresholds, match_detections
from fpn.evaluation.known_truth import known_truth
from fpn.shapes import Size
from fpn.structures import Masks
from fpn.studies.report.label_errors import find_label_errors
from fpn.studies.report.outcomes import confusion, found_by_size, judge_images

from .greys import Find, Thing, finder, labelled

NAMES = ("nut", "bolt")
LEFT, RIGHT, LOW = (2.0, 2.0, 22.0, 22.0), (30.0, 2.0, 50.0, 22.0), (2.0, 34.0, 12.0, 44.0)
BOTH: list[Thing] = [("nut", LEFT), ("bolt", RIGHT)]
SEEN: list[Find] = [("nut", LEFT, 0.9), ("bolt", RIGHT, 0.9)]


def look(root: Path, scenes: list[list[Thing]], finds: list[list[Find]], threshold: float = 0.5):
    dataset = labelled(root, scenes, NAMES)
    detector = finder(NAMES, dict(enumerate(finds, start=1)))
    truth = known_truth(detector.classes, dataset).coco
    records = evaluate(detector, dataset, workers=0).detections
    return judge_images(dataset, truth, records, dict.fromkeys(NAMES, threshold)), match_detections(truth, records)


def test_confusion_counts_right_swapped_missed_and_invented(tmp_path: Path) -> None:
    outcomes, matches = look(
        tmp_path / "set",
        [BOTH, BOTH, BOTH],
        [SEEN, [("bolt", LEFT, 0.8), ("nut", LOW, 0.7)], [("nut", LEFT, 0.4)]],
    )
    # Third image: a score of 0.4 does not count. Rows nut, bolt, nothing; columns nut, bolt, not found.
    assert confusion(outcomes, 2) == [[1, 1, 1], [0, 1, 2], [1, 0, 0]]
    assert [(each.right, each.wrong, each.missed) for each in outcomes] == [(2, 0, []), (0, 2, [0, 1]), (0, 0, [0, 1])]
    _, overall = judge_thresholds(matches, dict.fromkeys(NAMES, 0.5))
    assert overall.recall == 2 / 6  # as many as lie on the diagonal
    assert overall.precision == 2 / 4


def test_what_finds_an_object_twice_is_wrong_once(tmp_path: Path) -> None:
    outcomes, _ = look(tmp_path / "set", [[("nut", LEFT)]], [[("nut", LEFT, 0.9), ("nut", (2, 2, 22, 20), 0.6)]])
    assert (outcomes[0].right, outcomes[0].wrong) == (1, 1)
    assert confusion(outcomes, 2) == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_sizes_are_octaves_of_the_root_of_the_area(tmp_path: Path) -> None:
    outcomes, _ = look(tmp_path / "set", [[*BOTH, ("nut", LOW)]], [[("nut", LEFT, 0.9)]])
    assert found_by_size(outcomes) == [
        {"from": 8, "to": 16, "objects": 1, "found": 0},
        {"from": 16, "to": 32, "objects": 2, "found": 1},
    ]


def test_planted_label_errors_are_found_and_nothing_else_is(tmp_path: Path) -> None:
    removed: list[Thing] = [("nut", LEFT)]  # the bolt's label is gone
    added: list[Thing] = [*BOTH, ("nut", LOW)]  # nothing is there
    swapped: list[Thing] = [("bolt", LEFT), ("bolt", RIGHT)]  # the left one is a nut
    outcomes, _ = look(tmp_path / "set", [BOTH, removed, added, swapped, BOTH], [SEEN] * 5)
    errors = find_label_errors(outcomes, NAMES)
    assert [(each.kind, each.image, each.labelled, each.found) for each in errors] == [
        ("unlabelled", "images/2.png", None, "bolt"),
        ("unfound", "images/3.png", "nut", None),
        ("swapped", "images/4.png", "bolt", "nut"),
    ]
    assert [each.box for each in errors] == [RIGHT, LOW, LEFT]


def test_a_detection_that_is_less_sure_than_right_ones_accuses_no_label(tmp_path: Path) -> None:
    unsure: list[Find] = [("nut", LEFT, 0.9), ("bolt", RIGHT, 0.7)]
    outcomes, _ = look(tmp_path / "set", [BOTH, [("nut", LEFT)]], [SEEN, unsure])
    assert find_label_errors(outcomes, NAMES) == []


def test_detections_in_what_is_to_be_ignored_accuse_no_label(tmp_path: Path) -> None:
    outcomes, _ = look(tmp_path / "set", [BOTH, [("nut", LEFT), ("bolt", RIGHT)]], [SEEN, SEEN])
    assert find_label_errors(outcomes, NAMES) == []


def test_masks_and_keypoints_of_truth_and_detections_are_kept_for_drawing(tmp_path: Path) -> None:
    dataset = labelled(tmp_path / "set", [[("nut", LEFT)]], NAMES)
    code = Masks.of_boxes(torch.tensor([LOW]), Size(60, 60)).to_coco(polygons=False)[0]
    found = {"image_id": 1, "category_id": 10, "bbox": [2, 34, 10, 10], "score": 0.9, "segmentation": code}
    found["keypoints"] = [7.0, 40.0, 0.8]
    truth = known_truth(dataset.classes, dataset).coco
    (outcome,) = judge_images(dataset, truth, [found], dict.fromkeys(NAMES, 0.5))
    assert outcome.sure.masks is not None
    assert outcome.sure.masks.boxes().tolist() == [list(LOW)]
    assert outcome.sure.keypoints is not None
    assert outcome.sure.keypoints.tolist() == [[[7.0, 40.0, pytest.approx(0.8)]]]
    assert outcome.truth.masks is None  # no outline is labelled
