from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from fpn.studies.report.charts import (
    ChartLine,
    Marker,
    axis_of,
    heat,
    heat_map,
    line_chart,
    reliability_chart,
    share_axis,
    share_bars,
)


def points(svg: str) -> list[tuple[float, float]]:
    (found,) = ET.fromstring(svg).findall("polyline")
    return [tuple(map(float, pair.split(","))) for pair in found.get("points").split()]


def test_a_line_begins_left_below_and_ends_right_above() -> None:
    chart = line_chart(
        "t", "d", [ChartLine("a", [(0.0, 0.0), (0.5, 1.0), (1.0, 1.0)])], share_axis("x"), share_axis("y")
    )
    # 340 wide: 40 for numbers, 10 at the right; 210 high: 24 above, 36 below.
    assert points(chart) == [(40.0, 174.0), (185.0, 24.0), (330.0, 24.0)]


def test_what_lies_beyond_an_axis_stays_on_its_end() -> None:
    chart = line_chart("t", "d", [ChartLine("a", [(-1.0, 2.0)])], share_axis("x"), share_axis("y"))
    assert points(chart) == [(40.0, 24.0)]


def test_a_chart_says_what_it_shows_to_those_who_cannot_see_it() -> None:
    root = ET.fromstring(line_chart("<AP>", "rises & falls", [], share_axis("x"), share_axis("y"), [Marker("m", 0.5)]))
    assert (root.get("role"), root.find("title").text, root.find("desc").text) == ("img", "<AP>", "rises & falls")


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.3, 7.9], (0, 2, 4, 6, 8)),
        ([20, 1000], (0, 250, 500, 750, 1000)),
        ([5, 5], (4, 6, 8, 10)),
        ([], (0, 0.25, 0.5, 0.75, 1)),
    ],
)
def test_an_axis_has_round_steps_around_all_values(values: list[float], ticks: tuple[float, ...]) -> None:
    axis = axis_of("x", [float(value) for value in values])
    assert axis.ticks == pytest.approx(ticks)
    assert (axis.low, axis.high) == pytest.approx((ticks[0], ticks[-1]))


def test_a_snug_axis_ends_with_its_last_value() -> None:
    axis = axis_of("step", [20.0, 1022.0], snug=True)
    assert (axis.low, axis.high, axis.ticks) == (0.0, 1022.0, (0.0, 500.0, 1000.0))


def test_bars_are_as_long_as_their_shares() -> None:
    root = ET.fromstring(share_bars("t", "d", [("all", 1.0, "4 of 4"), ("half", 0.5, "2 of 4")]))
    whole, half = (float(each.get("width")) for each in root.findall("rect") if each.get("class") == "block s0")
    assert half == pytest.approx(whole / 2, abs=0.1)


def test_only_bins_with_detections_have_a_bar() -> None:
    chart = reliability_chart("t", "d", [(0.0, 0.1, 0.0, 0), (0.9, 1.0, 0.5, 8)])
    assert len(re.findall(r'<rect class="block s0" x="3', chart)) == 1


def test_a_heat_map_draws_what_is_above_nothing() -> None:
    root = ET.fromstring(heat_map("t", "d", [[1.0, 0.0], [0.1, 0.0]]))
    assert [each.get("class") for each in root.findall("rect")] == ["track", "heat h5", "heat h1"]
    assert [heat(value) for value in (0.0, 0.01, 0.5, 1.0)] == [0, 1, 3, 5]
