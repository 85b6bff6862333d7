from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fpn.errors import DataError, DataNotFoundError
from fpn.evaluation.matches import match_detections, read_results

from .test_coco import found, truth


def test_a_second_detection_of_an_object_is_false_and_one_in_a_crowd_is_neither() -> None:
    objects = truth((1, 3, [0, 0, 100, 100]), (2, 3, [50, 50, 100, 100]))
    objects["annotations"][1]["iscrowd"] = 1
    results = [
        found(1, 3, [0, 0, 100, 100], 0.9),
        found(1, 3, [0, 0, 100, 100], 0.8),
        found(2, 3, [60, 60, 20, 20], 0.7),
        found(2, 3, [300, 200, 20, 20], 0.6),
    ]
    matches = match_detections(objects, results)
    table = matches.tables[0][0]
    assert table.scores.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert table.images.tolist() == [0, 0, 1, 1]
    assert table.true[0].tolist() == [True, False, False, False]
    assert table.false[0].tolist() == [False, True, False, True]
    assert table.objects.tolist() == [1, 0]
    assert matches.classes.ids == (3, 7)


def test_an_overlap_of_0_62_is_enough_for_three_of_the_ten() -> None:
    matches = match_detections(truth((1, 7, [0, 0, 100, 100])), [found(1, 7, [0, 0, 62, 100], 0.5)])
    assert matches.tables[1][0].true[:, 0].tolist() == [True] * 3 + [False] * 7


def test_objects_count_with_those_of_their_size() -> None:
    # Areas of 400, 2500 and 10000: small, medium, large.
    boxes = ([0, 0, 20, 20], [0, 0, 50, 50], [0, 0, 100, 100])
    matches = match_detections(truth(*((1, 3, list(map(float, box))) for box in boxes)), [])
    assert [int(table.objects.sum()) for table in matches.tables[0]] == [3, 1, 1, 1]


def test_one_image_of_many_is_as_if_it_were_all() -> None:
    results = [found(image, 3, [0, 0, 100, 100], 0.9) for image in (1, 2)]
    table = match_detections(truth((2, 3, [0, 0, 100, 100])), results).tables[0][0].in_image(1)
    assert table.images.tolist() == [0]
    assert table.objects.tolist() == [1]
    assert table.true.all()


def test_a_results_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    records = [found(1, 3, [0.0, 0.0, 5.5, 5.0], 0.25)]
    (tmp_path / "found.json").write_text(json.dumps(records))
    assert read_results(tmp_path / "found.json") == records


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "is no list of COCO results"),
        ("[", "can't be read as JSON"),
        ('[{"image_id": 1, "category_id": 3, "bbox": [0, 0, 1], "score": 1}]', "record 0: expected image_id"),
        ('[{"image_id": 1, "category_id": 3, "bbox": [0, 0, 1, NaN], "score": 1}]', "record 0: expected image_id"),
        ('[{"image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1]}]', "record 0: expected image_id"),
    ],
)
def test_a_results_file_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "found.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_results(tmp_path / "found.json")


def test_a_results_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"gone\.json"):
        read_results(tmp_path / "gone.json")


def test_equal_scores_keep_the_order_of_their_images() -> None:
    results = [found(image, 3, [0, 0, 10, 10], 0.5) for image in (2, 1)]
    assert np.array_equal(match_detections(truth(), results).tables[0][0].images, [0, 1])
