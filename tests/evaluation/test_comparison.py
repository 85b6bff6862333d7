from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fpn.errors import ConfigError
from fpn.evaluation.comparison import Comparison, Difference, compare_matches, count_steps
from fpn.evaluation.matches import ClassMatches, Matches, match_detections

from .simulated import simulate
from .test_coco import found, truth

OBJECTS = truth((1, 3, [0, 0, 50, 50]), (2, 3, [0, 0, 50, 50]), categories=(3,))
FIRST, SECOND = (found(image, 3, [0, 0, 50, 50], 0.9) for image in (1, 2))


def compared(a: list[dict[str, object]], b: list[dict[str, object]], resamples: int = 400) -> Comparison:
    return compare_matches(
        match_detections(OBJECTS, a), match_detections(OBJECTS, b), dataset="two", resamples=resamples
    )


def test_a_model_beside_itself_is_0_with_a_probability_of_a_half() -> None:
    matches = simulate(np.random.default_rng(0), 20)
    four = with_sizes(matches)
    comparison = compare_matches(four, four, dataset="drawn", resamples=100)
    assert comparison.identical
    assert {(each.difference, each.low, each.high) for each in comparison.differences} == {(0, 0, 0)}
    assert {each.probability for each in comparison.differences} == {0.5}
    assert {each.influence for each in comparison.by_image} == {0}


def with_sizes(matches: Matches) -> Matches:
    """Tables for all four sizes: all objects are medium ones."""
    nothing = np.zeros((10, 0), dtype=bool)
    tables = []
    for (table,) in matches.tables:
        none = ClassMatches(table.images[:0], table.scores[:0], nothing, nothing, table.objects * 0)
        tables.append((table, none, table, none))
    return Matches(matches.image_ids, matches.file_names, matches.classes, tuple(tables))


def test_who_finds_one_object_more_is_better_by_half_and_the_image_is_named() -> None:
    comparison = compared([FIRST], [FIRST, SECOND])
    (ap,) = (each for each in comparison.differences if (each.metric, each.name) == ("ap", None))
    assert (ap.a, ap.b, ap.difference) == pytest.approx((51 / 101, 1, 50 / 101))
    assert (ap.low, ap.high) == (0, 1)
    # Better unless the first image is drawn twice, a quarter of all draws, which counts by half: 1 - 1 / 8.
    assert ap.probability == pytest.approx(7 / 8, abs=0.03)
    first, second = comparison.by_image
    assert second.file_name == "2.jpg"
    assert (second.a, second.b) == pytest.approx((0, 1))
    # Without the second image both are perfect; without the first one B leads by 1, so the first one matters most.
    assert second.influence == pytest.approx(50 / 101)
    assert first.influence == pytest.approx(50 / 101 - 1)


@pytest.mark.parametrize(
    ("a", "low", "high", "said"),
    [
        (
            0.5,
            -0.1,
            0.3,
            "Verdict: B is neither surely better nor surely worse than A: its AP is 0.600, that of A 0.500",
        ),
        (0.5, 0.1, 0.3, "Verdict: B is better than A: its AP is 0.600, that of A 0.500 (+0.100), which is more than"),
        (0.7, -0.3, -0.1, "Verdict: B is worse than A: its AP is 0.600, that of A 0.700 (-0.100), which is more than"),
        (
            0.5,
            math.nan,
            math.nan,
            "Verdict: not known. B against A: its AP is 0.600, that of A 0.500 (+0.100), and too",
        ),
    ],
)
def test_a_verdict_says_in_words_whether_b_is_better(a: float, low: float, high: float, said: str) -> None:
    ap = Difference("ap", None, a, 0.6, 0.6 - a, low, high, 0.5)
    found = replace(compared([FIRST], [FIRST, SECOND], resamples=10), differences=(ap,), images=20)
    assert found.verdict().startswith(said)
    of_few = replace(found, images=19).verdict()
    assert of_few.startswith("Verdict: not sure" if low > 0 or high < 0 else said)
    assert "equal in every draw" in compared([FIRST], [FIRST], resamples=10).verdict()


def test_turned_round_the_difference_and_the_probability_are_too() -> None:
    there, back = (compared(*pair).find("ap") for pair in (([FIRST], [FIRST, SECOND]), ([FIRST, SECOND], [FIRST])))
    assert back.difference == -there.difference
    assert (back.low, back.high) == (-there.high, -there.low)
    assert back.probability == pytest.approx(1 - there.probability)


def test_json_and_two_csv_files_hold_what_the_table_shows(tmp_path: Path) -> None:
    comparison = compared([FIRST], [FIRST, SECOND], resamples=50)
    written = comparison.save(tmp_path / "figures.json")
    assert [path.name for path in written] == ["figures.json", "figures.csv", "figures-images.csv"]
    figures = json.loads(written[0].read_text())
    assert figures["differences"][0]["difference"] == pytest.approx(50 / 101)
    rows = list(csv.DictReader(io.StringIO(written[1].read_text("utf-8-sig"))))
    assert [(row["metric"], row["name"]) for row in rows[:2]] == [("ap", ""), ("ap50", "")]
    images = list(csv.DictReader(io.StringIO(written[2].read_text("utf-8-sig"))))
    assert [row["file_name"] for row in images] == ["1.jpg", "2.jpg"]
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(comparison.table(), comparison.image_table(1))
    text = console.export_text()
    assert "+0.000 .. +1.000" in text
    assert "1.jpg" in text
    assert "(+0.4950 with all)" in text
    assert "+1.0000" in text  # B leads by so much where the first image is left out
    assert "2.jpg" not in text


def test_progress_ends_with_the_last_step() -> None:
    done: list[int] = []
    matches = match_detections(OBJECTS, [FIRST])
    compare_matches(matches, matches, dataset="two", resamples=100, progress=done.append)
    assert done == sorted(done)
    assert done[-1] == count_steps(2, 100) == 204


def test_a_metric_that_no_object_counts_for_is_named() -> None:
    with pytest.raises(ConfigError, match="metric 'ap_small' of all classes: no object counts"):
        compared([FIRST], [SECOND], resamples=10).find("ap_small")


def test_matches_of_other_images_are_refused() -> None:
    other = {**OBJECTS, "images": OBJECTS["images"][:1], "annotations": OBJECTS["annotations"][:1]}
    with pytest.raises(ConfigError, match="different images"):
        compare_matches(match_detections(OBJECTS, []), match_detections(other, []), dataset="two")
