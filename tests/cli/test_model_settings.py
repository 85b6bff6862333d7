from __future__ import annotations

from pathlib import Path

import pytest

from fpn.cli.model_settings import combine, read_assignments
from fpn.cli.options import Given, ModelOptions
from fpn.errors import ConfigError


def settings(values: dict[str, object]) -> dict[str, object]:
    return ModelOptions(**values).recipe(given=True)


def test_sections_of_a_file_stay_when_an_option_sets_something_else() -> None:
    file = {"short_side": 96, "set": ['roi.sampler="pool"', "box.limit=5"]}
    together = settings(combine(file, {"set": ("rpn.nms=0.6",)}))
    assert together == {"short_side": 96, "roi.sampler": "pool", "box.limit": 5, "rpn.nms": 0.6}


@pytest.mark.parametrize(
    ("file", "option", "expected"),
    [
        ({"set": ["box.limit=5"]}, {"max_detections": 300}, {"box_limit": 300}),
        ({"max_detections": 5}, {"set": ("box.limit=300",)}, {"box.limit": 300}),
        ({"set": ['pixels={"short_side": 333}']}, {"short_side": 640}, {"short_side": 640}),
        ({"set": ["box_limit=5"]}, {"set": ("box.limit=300",)}, {"box.limit": 300}),
        ({"channels": 8}, {"set": ("neck.channels=6",)}, {"neck_output_channels": 8, "neck.channels": 6}),
        (
            {"anchor_sizes": [8, 16]},
            {"set": ("anchors.sizes=[[4], [8]]",)},
            {"anchors.sizes": [[4], [8]]},
        ),
    ],
)
def test_an_option_wins_however_the_two_name_the_setting(
    file: dict[str, object], option: dict[str, object], expected: dict[str, object]
) -> None:
    assert settings(combine(file, option)) == expected


@pytest.mark.parametrize(
    "source",
    [
        {"max_detections": 300, "set": ["box.limit=5"]},
        {"set": ["roi.sampler=crop", 'roi={"sampler": "pool"}']},
        {"short_side": 640, "set": ["pixels.short_side=333"]},
    ],
)
def test_two_values_of_one_setting_in_one_place_are_refused(source: dict[str, object]) -> None:
    for file, options in ((source, {}), ({}, source)):
        with pytest.raises(ConfigError, match=r"two values of one setting\. Keep one\."):
            combine(file, options)


def test_the_same_value_twice_does_no_harm() -> None:
    assert settings(combine({"max_detections": 5, "set": ["box.limit=5"]}, {})) == {"box_limit": 5}


def test_a_text_that_looks_like_a_number_stays_a_text() -> None:
    together = combine({"set": ['box={"score_limit": "0.5"}']}, {})
    assert read_assignments(together["set"]) == {"box.score_limit": "0.5"}


def test_a_text_in_place_of_a_list_is_named() -> None:
    with pytest.raises(ConfigError, match=r"set 'roi.sampler=pool': expected a list, such as \['roi.sampler=pool'\]"):
        combine({"set": "roi.sampler=pool"}, {})


def test_a_wrong_setting_is_refused_before_the_data_are_read() -> None:
    with pytest.raises(ConfigError, match=r"roi\.sampler 'aling': choose one of .* Did you mean 'align'"):
        Given(Path("there/is/no/such/data"), None, {"model": ModelOptions(set=("roi.sampler=aling",))})


def test_an_unknown_detector_gets_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'retinanet'"):
        ModelOptions(detector="retinanett")


def test_options_are_settings_of_the_kind_of_detector_that_is_asked_for() -> None:
    asked = ModelOptions(detector="retinanet", max_detections=300, anchor_sizes=(16.0,))
    assert asked.recipe(given=True) == {
        "dense_limit": 300,
        "anchors_sizes": ((16.0, 16 * 2 ** (1 / 3), 16 * 2 ** (2 / 3)),),
    }
    assert ModelOptions(detector="faster_rcnn", max_detections=300).recipe(given=True) == {"box_limit": 300}


@pytest.mark.parametrize(
    ("kind", "option", "having"),
    [
        ("retinanet", "head_width", "faster_rcnn"),
        ("fcos", "anchor_sizes", "retinanet"),
        ("atss", "roi_samples", "rcnn"),
    ],
)
def test_an_option_of_a_part_that_a_detector_lacks_is_refused(kind: str, option: str, having: str) -> None:
    values = {"head_width": 64, "roi_samples": 64, "anchor_sizes": (16.0,)}
    with pytest.raises(ConfigError, match=f"{option}: {kind} has no such part; it is for .*{having}"):
        ModelOptions(detector=kind, **{option: values[option]}).recipe()


def test_two_ways_to_one_setting_agree_on_the_kind_of_detector() -> None:
    with pytest.raises(ConfigError, match="two values of one setting"):
        combine({}, {"detector": "fcos", "max_detections": 300, "set": ["dense.limit=200"]})
    combine({}, {"detector": "fcos", "max_detections": 300, "set": ["dense.limit=300"]})
