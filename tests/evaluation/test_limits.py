from __future__ import annotations

from typing import Any

import pytest
import torch

from fpn.detectors.full_images import FullImages
from fpn.evaluation.coco import coco_metrics
from fpn.evaluation.limits import report_limit
from fpn.structures import Detections

# An image with 150 objects side by side, and one with 2.
BOXES = [(1, [20.0 * (n % 15), 20.0 * (n // 15), 15.0, 15.0]) for n in range(150)]
BOXES += [(2, [0.0, 0.0, 15.0, 15.0]), (2, [50.0, 50.0, 15.0, 15.0])]
TRUTH: dict[str, Any] = {
    "images": [{"id": n, "width": 400, "height": 300, "file_name": f"{n}.jpg"} for n in (1, 2)],
    "annotations": [
        {"id": n, "image_id": i, "category_id": 3, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
        for n, (i, b) in enumerate(BOXES, start=1)
    ],
    "categories": [{"id": 3, "name": "cell"}],
}


def results(count: int) -> list[dict[str, Any]]:
    """The first `count` objects of each image, found exactly, with falling scores."""
    kept = [(i, b) for image in (1, 2) for i, b in [each for each in BOXES if each[0] == image][:count]]
    return [{"image_id": i, "category_id": 3, "bbox": b, "score": 1 - n / 1000} for n, (i, b) in enumerate(kept)]


def full(limit: int, *counts: int) -> FullImages:
    seen = FullImages(limit)
    for number, count in enumerate(counts):
        scores = torch.linspace(0.9, 0.3, count)
        seen.look(Detections(torch.zeros(count, 4), scores, torch.zeros(count, dtype=torch.int64)), f"{number}.jpg")
    return seen


def test_ap_and_ar_with_all_detections_stand_beside_cocos_hundred() -> None:
    report = report_limit(full(200, 150, 2), TRUTH, results(200))
    assert report is not None
    assert report.figures is not None
    # COCO's: 100 of the 150 objects, and both of the other image.
    assert coco_metrics(TRUTH, results(200)).ar100 == pytest.approx(102 / 152)
    assert (report.figures.ar, report.figures.ap) == (pytest.approx(1.0), pytest.approx(1.0))
    assert report.figures.ar_large == -1.0
    assert (report.reached, report.advice) == (0, "")


def test_where_the_limit_is_reached_the_advice_says_so_and_what_more_there_is() -> None:
    report = report_limit(full(120, 120, 2), TRUTH, results(120))
    assert report is not None
    assert (report.reached, report.crowded, report.most, report.larger) == (1, 1, 150, 360)
    assert report.advice == (
        "the limit of 120 detections was reached in 1 of 2 images, such as 0.jpg: what scores below 0.30 may be "
        "missing there; 1 image has more than 120 objects (up to 150)"
    )
    assert report.figures is not None
    assert report.figures.ar == pytest.approx(122 / 152)


def test_what_can_be_set_is_the_limit_of_a_tile_where_tiles_are_put_together() -> None:
    report = report_limit(full(100, 100, 2), TRUTH, results(120), of_image=400)
    assert report is not None
    assert (report.limit, report.larger) == (400, 300)


def test_up_to_a_hundred_cocos_own_figures_are_these() -> None:
    report = report_limit(full(100, 40, 2), TRUTH, results(40))
    assert report is not None
    assert (report.figures, report.advice) == (None, "1 image has more than 100 objects (up to 150)")
    assert report_limit(full(100, 40, 2), {**TRUTH, "annotations": TRUTH["annotations"][:90]}, []).advice == ""
    assert report_limit(FullImages(None), TRUTH, []) is None


@pytest.mark.parametrize(("objects", "surest", "told"), [(40, 0.3, False), (40, 0.6, True), (60, 0.3, True)])
def test_a_limit_that_unsure_guesses_reach_among_few_objects_is_no_news(
    objects: int, surest: float, told: bool
) -> None:
    seen = FullImages(100)
    scores = torch.linspace(0.9, surest, 100)
    seen.look(Detections(torch.zeros(100, 4), scores, torch.zeros(100, dtype=torch.int64)), "0.jpg")
    report = report_limit(seen, {**TRUTH, "annotations": TRUTH["annotations"][:objects]}, [])
    assert report is not None
    assert (report.reached, bool(report.advice)) == (1, told)
