from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fpn.errors import ConfigError
from fpn.evaluation.bootstrap import (
    RESAMPLED,
    Interval,
    alone,
    as_it_is,
    average_precisions,
    bootstrap_intervals,
    draw_images,
    interval,
    metric_values,
)
from fpn.evaluation.coco import coco_metrics
from fpn.evaluation.matches import Matches, match_detections

from .simulated import NAMES, simulate
from .test_coco import found, scattered, shaped, truth


def values_of(matches: Matches, weights: np.ndarray) -> dict[tuple[str, str | None], np.ndarray]:
    return metric_values(average_precisions(matches, weights), matches.classes.names)


def known(value: float) -> float:
    """COCO's -1 for what has no value."""
    return float("nan") if value == -1 else value


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_each_image_once_is_cocos_average_precision(seed: int, iou_type: Any) -> None:
    ground_truth, results = scattered(seed) if iou_type == "bbox" else shaped(seed)
    matches = match_detections(ground_truth, results, iou_type=iou_type)
    values = values_of(matches, as_it_is(matches))
    measured = coco_metrics(ground_truth, results, iou_type=iou_type)
    for metric in RESAMPLED:
        for name, figures in [(None, measured), *((each.name, each) for each in measured.per_class)]:
            expected = known(getattr(figures, metric))
            assert values[metric, name][0] == pytest.approx(expected, abs=1e-12, nan_ok=True), (metric, name)


def repeated(ground_truth: Any, results: list[Any], counts: list[int]) -> tuple[Any, list[Any]]:
    """A dataset in which each image is there so many times, its copies side by side."""
    images, annotations, records = [], [], []
    for image, count in zip(sorted(ground_truth["images"], key=lambda each: each["id"]), counts, strict=True):
        for _ in range(count):
            number = len(images) + 1
            images.append({**image, "id": number})
            annotations += [
                {**each, "id": len(annotations) + n, "image_id": number}
                for n, each in enumerate((a for a in ground_truth["annotations"] if a["image_id"] == image["id"]), 1)
            ]
            records += [{**each, "image_id": number} for each in results if each["image_id"] == image["id"]]
    return {**ground_truth, "images": images, "annotations": annotations}, records


@pytest.mark.parametrize("seed", range(3))
def test_a_resample_is_the_average_precision_of_a_dataset_with_these_copies(seed: int) -> None:
    ground_truth, results = scattered(seed)
    for place, record in enumerate(results):  # of equal scores the order would be another one
        record["score"] = (place * 7919 % len(results)) / len(results)
    matches = match_detections(ground_truth, results)
    weights = draw_images(len(matches), 3, seed)
    values = values_of(matches, weights)
    for row, counts in enumerate(weights.tolist()):
        measured = coco_metrics(*repeated(ground_truth, results, counts))
        for metric in RESAMPLED:
            expected = known(getattr(measured, metric))
            assert values[metric, None][row] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_two_images_one_found_and_one_not_are_between_0_and_1() -> None:
    # Precision is 1 up to the recall of a half, read at 0, 0.01, ..., 0.5: 51 of 101.
    objects = truth((1, 3, [0, 0, 50, 50]), (2, 3, [0, 0, 50, 50]), categories=(3,))
    matches = match_detections(objects, [found(1, 3, [0, 0, 50, 50], 0.9)])
    weights = np.array([[1, 1], [2, 0], [0, 2]], dtype=np.int32)
    assert values_of(matches, weights)["ap", None].tolist() == pytest.approx([51 / 101, 1, 0])
    assert [alone(matches, place) for place in (0, 1)] == pytest.approx([1, 0])


def test_an_image_without_objects_has_no_average_precision_of_its_own() -> None:
    matches = match_detections(truth((1, 3, [0, 0, 50, 50])), [found(2, 3, [0, 0, 50, 50], 0.9)])
    assert np.isnan(alone(matches, 1))


def test_every_resample_draws_as_many_images_as_there_are_and_a_seed_draws_the_same() -> None:
    weights = draw_images(9, 50, seed=3)
    assert weights.shape == (50, 9)
    assert set(weights.sum(axis=1).tolist()) == {9}
    assert np.array_equal(weights, draw_images(9, 50, seed=3))
    assert not np.array_equal(weights, draw_images(9, 50, seed=4))


def test_an_interval_is_the_middle_of_what_was_drawn() -> None:
    drawn = np.array([*np.arange(101) / 100, np.nan])
    assert as_numbers(interval(0.4, drawn, 0.9, images=10**9)) == pytest.approx((0.4, 0.05, 0.95))


def test_of_few_images_it_is_wider() -> None:
    # t with 9 degrees of freedom is 1.833 at 95 %; times sqrt(10 / 9) 1.932, which is the normal's 2.66 %.
    drawn = np.arange(101) / 100
    assert interval(0.4, drawn, 0.9, images=10).low == pytest.approx(0.0266, abs=2e-4)


def as_numbers(found: Interval) -> tuple[float, float, float]:
    return found.value, found.low, found.high


def test_95_percent_intervals_hold_the_truth_in_90_to_99_of_100_simulated_sets() -> None:
    """Of AP, that of each class, and how far a better detector is ahead, on 100 images."""
    true = {key: each[0] for key, each in figures(np.random.SeedSequence(7), 10_000, resamples=None).items()}
    held = dict.fromkeys(true, 0)
    for seed in range(100):
        for key, values in figures(np.random.SeedSequence(100 + seed), 100, resamples=160).items():
            each = interval(float("nan"), values, 0.95, images=100)
            held[key] += int(each.low <= true[key] <= each.high)
    assert all(90 <= count <= 99 for count in held.values()), held


def figures(seeds: np.random.SeedSequence, images: int, *, resamples: int | None) -> dict[str | None, np.ndarray]:
    a, b = (simulate(random, images, objects=2.0, skill=skill) for random, skill in two(seeds))
    weights = as_it_is(a) if resamples is None else draw_images(images, resamples, 0)
    of_a, of_b = (overall_and_by_class(each, weights) for each in (a, b))
    return {**of_a, "ahead": of_b[None] - of_a[None]}


def two(seeds: np.random.SeedSequence) -> list[tuple[np.random.Generator, float]]:
    """Randomness and skill of two detectors."""
    return [(np.random.default_rng(seed), skill) for seed, skill in zip(seeds.spawn(2), (0.0, 0.2), strict=True)]


def overall_and_by_class(matches: Matches, weights: np.ndarray) -> dict[str | None, np.ndarray]:
    by_class = average_precisions(matches, weights, sizes=1)[..., 0].mean(axis=1)
    return {None: by_class.mean(axis=1), **{name: by_class[:, place] for place, name in enumerate(NAMES)}}


def test_intervals_are_of_all_and_of_each_class_that_has_objects() -> None:
    objects = truth((1, 3, [0, 0, 50, 50]), (2, 3, [0, 0, 50, 50]))
    done: list[int] = []
    found_in = match_detections(objects, [found(1, 3, [0, 0, 50, 50], 0.9)])
    intervals = bootstrap_intervals(found_in, resamples=100, progress=done.append)
    assert done == [64, 100]
    assert as_numbers(intervals.overall["ap"]) == pytest.approx((51 / 101, 0, 1))
    assert intervals.per_class["class 7"] == {}
    assert "ap_small" not in intervals.overall  # no object is
    assert intervals.to_dict()["per_class"]["class 3"]["ap50"] == pytest.approx([51 / 101, 0, 1])
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(intervals.table())
    assert "0.505 │ 0.000 .. 1.000" in console.export_text()


def test_one_image_is_too_few_to_draw_from() -> None:
    with pytest.raises(ConfigError, match="images: 1, resamples: 100"):
        draw_images(1, 100, 0)
    with pytest.raises(ConfigError, match=r"confidence 95\.0"):
        bootstrap_intervals(match_detections(truth(), []), confidence=95.0)
