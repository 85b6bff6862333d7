from __future__ import annotations

from typing import Any

import pytest

from fpn.studies.report.verdict import verdict

POINT = {"how": "usual", "thresholds": {"nut": 0.5}, "overall": {"f1": None}, "best_f1_overall": None}


def figures(ap50: float | None, **more: Any) -> dict[str, Any]:
    """Of a model on 20 images with three labels that look wrong."""
    measured = {"ap": ap50, "ap50": ap50, "per_class": [], "objects": 100, "left_out": {}, "limit": None}
    dataset = {"learned": "", "images": 20, "unreadable": {}}
    rest: dict[str, Any] = {"budget": {"found": True, "stages": [], "kinds": [], "objects": 0}, "check": {}}
    about = {"figures": measured, "intervals": None, "operating_point": POINT, "label_errors": [{}] * 3}
    return {**about, "dataset": dataset, **rest, **more}


@pytest.mark.parametrize(
    ("ap50", "said"),
    [
        (0.5, "3 labels look wrong or missing: look at them before you train again."),
        (0.49, "Labels that look wrong to it say little: it is mostly wrong itself."),
        (None, "Labels that look wrong to it say little: it is mostly wrong itself."),
    ],
)
def test_only_a_model_that_is_mostly_right_casts_doubt_on_labels(ap50: float | None, said: str) -> None:
    assert verdict(figures(ap50))["sentences"][-1] == said


def test_without_objects_nothing_is_said_to_cost_little() -> None:
    assert not any("costs" in sentence for sentence in verdict(figures(None))["sentences"])
    assert any("No single fault costs much" in sentence for sentence in verdict(figures(0.9))["sentences"])


def test_one_is_one_and_a_caution_begins_as_a_sentence() -> None:
    told = figures(0.9, dataset={"learned": "", "images": 1, "unreadable": {"a.png": "no image"}})
    told["figures"] |= {"limit": {"advice": "the limit of 10 was reached"}, "objects": 1}
    told["check"] = {"findings": [{"severity": "error", "what": "images that can't be read", "count": 1}]}
    assert verdict(told)["cautions"] == [
        "These are few: 1 image, 1 object. Another sample may tell another story. With one image there are no "
        "intervals, either: nothing tells how far these figures may be off.",
        "Left out, as it can't be read: 1 image.",
        "The limit of 10 was reached. Allow more with --max-detections.",
        "The data have faults that fpn check names: images that can't be read (1).",
    ]


def test_a_page_says_what_the_model_knows_by_heart() -> None:
    told = figures(0.9, dataset={"learned": "was trained on 5 of these 8 images.", "images": 20, "unreadable": {}})
    assert verdict(told)["cautions"] == ["The model was trained on 5 of these 8 images."]
    assert (
        "(expect less on other images: the model was trained on some or all of these)" in verdict(told)["sentences"][0]
    )


def test_masks_and_keypoints_are_named_beside_boxes_where_they_were_measured() -> None:
    told = figures(0.9)
    assert "Of masks" not in verdict(told)["sentences"][0]
    told["figures"] |= {"masks": {"ap": 0.7}, "keypoints": {"ap": 0.25}}
    assert verdict(told)["sentences"][0].endswith(" Of masks it is 0.700. Of keypoints it is 0.250.")
