from __future__ import annotations

import re
from typing import Any

from fpn.studies.report.chapters import precision_chapter, recall_steps, thresholds_chapter

GRADES = {"ap": 0.5, "ap50": 0.75, "ap75": 0.25, "ap_small": None, "ap_medium": 0.125, "ap_large": 1.0}
RECALL = {"ar": 0.6, "ar50": 0.8, "ar75": 0.4, "ar_medium": 0.3, "ar_large": 0.9}


def rows(**beside: Any) -> dict[str, list[list[str]]]:
    """Caption of each table of the chapter -> the texts of its cells, row by row."""
    measured = {**GRADES, "objects": 8, "ar1": 0.1, "ar10": 0.2, "ar100": 0.3, "per_class": [], **beside}
    html = precision_chapter({"figures": measured, "intervals": None}).body
    tables = re.findall(r"<caption>(.*?)</caption>.*?<tbody>(.*?)</tbody>", html, flags=re.S)
    return {
        caption: [re.findall(r"<t[hd][^>]*>(?:<[^>]*>)?([^<]*)", row) for row in body.split("</tr>")[:-1]]
        for caption, body in tables
    }


def test_masks_have_a_table_by_class() -> None:
    found = rows(masks={**GRADES, "per_class": [{"name": "nut", **GRADES, "ap": 0.4}]})
    assert found["Mask AP"] == [
        ["all", "0.500", "0.750", "0.250", "-", "0.125", "1.000"],
        ["nut", "0.400", "0.750", "0.250", "-", "0.125", "1.000"],
    ]


def test_keypoints_have_precision_and_recall() -> None:
    assert rows(keypoints={**GRADES, **RECALL})["Keypoint AP and recall"] == [
        ["AP", "0.500", "0.750", "0.250", "0.125", "1.000"],
        ["recall (AR)", "0.600", "0.800", "0.400", "0.300", "0.900"],
    ]


def test_boxes_alone_have_one_table() -> None:
    assert list(rows()) == ["AP by class"]


def test_a_curve_along_the_threshold_holds_each_value_down_to_the_next_score() -> None:
    now = {"name": "a", "objects": 4, "threshold": 0.5, "precision": 1.0, "recall": 0.5, "f1": 0.75, "false_alarms": 0}
    point = {"per_class": [now], "overall": now, "how": "usual", "thresholds": {"a": 0.5}}
    point |= dict.fromkeys(("best_f1", "best_f1_overall"))
    curve = {"score": [0.75, 0.25], "precision": [1.0, 0.5], "recall": [0.5, 0.5], "f1": [0.75, 0.5]}
    body = thresholds_chapter({"operating_point": point, "curves": [{"class": "a", "objects": 4, **curve}]}).body
    drawn = re.findall(r'<polyline class="line s1" points="([^"]*)"', body)[-1]
    x, y = zip(*(map(float, each.split(",")) for each in drawn.split()), strict=True)
    assert x[1] == x[2]
    assert (y[0], y[2]) == (y[1], y[3])
    assert x[0] > x[1] > x[3]
    assert y[0] < y[2]  # a better precision is higher up


def test_precision_by_recall_is_drawn_in_steps_as_coco_takes_it() -> None:
    """Right, wrong, right, right, wrong, of five objects: 3 of 4 is better than 2 of 3, and holds back to there."""
    found = [(0.2, 1.0), (0.2, 0.5), (0.4, 2 / 3), (0.6, 0.75), (0.6, 0.6)]
    corners = list(dict.fromkeys(recall_steps(found)))
    assert corners == [(0.0, 1.0), (0.2, 1.0), (0.2, 0.75), (0.4, 0.75), (0.6, 0.75), (0.6, 0.6), (0.6, 0.0)]


def test_without_intervals_the_page_says_why_and_what_would_help() -> None:
    measured = {**GRADES, "objects": 8, "ar1": 0.1, "ar10": 0.2, "ar100": 0.3, "per_class": []}
    html = precision_chapter({"figures": measured, "intervals": None}).body
    assert "this is one image. Measure on more" in html
