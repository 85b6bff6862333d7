from __future__ import annotations

import xml.etree.ElementTree as ET

from fpn.studies.standalone_svg import PLAIN, DrawnLine, LogChart, draw_chart

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*lines: DrawnLine, **options) -> ET.Element:
    ticks = [(1.0, "1"), (10.0, "10"), (100.0, "100")]
    return ET.fromstring(draw_chart(LogChart(title="T < 1", across="n", up="AP", ticks=ticks, lines=lines, **options)))


def points(element: ET.Element) -> list[tuple[float, float]]:
    return [tuple(map(float, pair.split(","))) for pair in element.get("points").split()]


def test_a_decade_is_as_wide_as_the_next_and_the_highest_value_is_at_the_top():
    line = DrawnLine("found", [(1.0, 0.0), (10.0, 50.0), (100.0, 100.0)], PLAIN)
    (curve,) = drawn(line).iter(f"{SVG}polyline")
    (x0, y0), (x1, y1), (x2, y2) = points(curve)
    assert x1 - x0 == x2 - x1 == 276.0  # half of 640 - 64 - 24
    assert (y0, y1, y2) == (328.0, 186.0, 44.0)


def test_a_band_goes_along_its_low_ends_and_back_along_the_high_ones():
    line = DrawnLine("found", [(1.0, 50.0), (100.0, 50.0)], band=[(0.0, 100.0), (25.0, 75.0)])
    (band,) = drawn(line).iter(f"{SVG}polygon")
    assert points(band) == [(64.0, 328.0), (616.0, 257.0), (616.0, 115.0), (64.0, 44.0)]


def test_dots_names_and_markers_are_there_and_text_is_escaped():
    image = drawn(DrawnLine("a & b", [(1.0, 1.0), (10.0, 2.0)], dots=True), markers=[("now", 10.0)])
    assert len(list(image.iter(f"{SVG}circle"))) == 2 + 1  # and one in the legend
    texts = list(image.itertext())
    assert {"T < 1", "a & b", "now", "n", "AP"} <= set(texts)


def test_what_lies_beyond_the_bounds_is_drawn_at_them():
    (curve,) = drawn(DrawnLine("", [(1.0, -5.0), (10.0, 10.0), (100.0, 500.0)]), bounds=(0.0, 100.0)).iter(
        f"{SVG}polyline"
    )
    assert [y for _, y in points(curve)] == [328.0, 299.6, 44.0]
