"""SVG files that stand alone, written by hand: no plotting library. Their pieces, and lines over a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fpn.studies.markup import Markup, tag

_SVG = "http://www.w3.org/2000/svg"
INK, FAINT, PLAIN, STRONG = "#222222", "#dddddd", "#4c78a8", "#d95f02"

_PALE = 0.18
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM, _LEGEND = 640.0, 380.0, 64.0, 24.0, 44.0, 52.0, 20.0


def svg_document(title: str, width: float, height: float, parts: Iterable[Markup]) -> str:
    """A whole document on white; `title`: for those who can't see it."""
    size = {"width": f"{width:g}", "height": f"{height:g}"}
    inside = [tag("title", title), tag("rect", **size, fill="white"), *parts]
    look = {"font_family": "sans-serif", "font_size": 12, "role": "img"}
    lines = [Markup(f"\n{part}") for part in inside]
    return f"{tag('svg', lines, Markup(chr(10)), xmlns=_SVG, viewBox=f'0 0 {width:g} {height:g}', **size, **look)}\n"


def svg_text(x: float, y: float, text: str, colour: str, *, anchor: str = "start", bold: bool = False) -> Markup:
    """Text whose middle is at y."""
    return tag("text", text, x=x, y=y + 4, fill=colour, text_anchor=anchor, font_weight="bold" if bold else None)


def svg_line(start: tuple[float, float], end: tuple[float, float], colour: str, *, dashed: bool = False) -> Markup:
    """A thin line."""
    ends = {"x1": start[0], "y1": start[1], "x2": end[0], "y2": end[1]}
    return tag("line", **ends, stroke=colour, stroke_dasharray="3 3" if dashed else None)


@dataclass(frozen=True)
class DrawnLine:
    """One thing that a chart shows.

    Attributes:
        name: in the legend; empty: not there.
        points: x and y, in order.
        colour: of line or dots.
        dots: dots alone instead of a line.
        band: for each point the low and the high end of a band around it; empty: none.
        dashed: whether the line is.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: str = PLAIN
    dots: bool = False
    band: Sequence[tuple[float, float]] = ()
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class LogChart:
    """Lines over a logarithmic axis.

    Attributes:
        title: above the chart.
        across, up: what the axes are of.
        ticks: values on the axis across, and what is written there.
        lines: those that lie below first.
        markers: names and places of upright lines.
        bounds: what the axis up may not leave.
    """

    title: str
    across: str
    up: str
    ticks: Sequence[tuple[float, str]]
    lines: Sequence[DrawnLine]
    markers: Sequence[tuple[str, float]] = ()
    bounds: tuple[float, float] = (-math.inf, math.inf)


def draw_chart(chart: LogChart) -> str:
    """An SVG document."""
    return _Drawing(chart).document()


class _Drawing:
    def __init__(self, chart: LogChart) -> None:
        self.chart = chart
        across = [x for line in chart.lines for x, _ in line.points] + [x for x, _ in chart.ticks]
        self.first, self.last = math.log(min(across)), math.log(max(across))
        values = [y for line in chart.lines for _, y in line.points]
        values += [y for line in chart.lines for pair in line.band for y in pair]
        low, high = max(min(values), chart.bounds[0]), min(max(values), chart.bounds[1])
        self.step = _round_step((high - low) / 5)
        self.low = math.floor(low / self.step + 1e-9) * self.step
        self.high = max(math.ceil(high / self.step - 1e-9) * self.step, self.low + self.step)

    def at(self, x: float, y: float) -> tuple[float, float]:
        wide, deep = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        y = min(max(y, self.low), self.high)
        right = (math.log(x) - self.first) / max(self.last - self.first, 1e-9)
        return round(_LEFT + wide * right, 1), round(_TOP + deep * (self.high - y) / (self.high - self.low), 1)

    def document(self) -> str:
        named = [line for line in self.chart.lines if line.name]
        bands = [part for line in self.chart.lines for part in self.band(line)]
        drawn = [part for line in self.chart.lines for part in self.line(line)]
        legend = [part for place, line in enumerate(named) for part in _legend(line, _HEIGHT + 8.0 + _LEGEND * place)]
        height = _HEIGHT + _LEGEND * len(named) + (12.0 if named else 0.0)
        parts = [*bands, *self.frame(), *self.markers(), *drawn, *legend]
        return svg_document(self.chart.title, _WIDTH, height, parts)

    def frame(self) -> Iterator[Markup]:
        chart, right, bottom = self.chart, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        yield svg_text(8.0, 14.0, chart.title, INK, bold=True)
        yield svg_text(8.0, 32.0, chart.up, INK)
        for number in range(round((self.high - self.low) / self.step) + 1):
            value = self.low + number * self.step
            _, y = self.at(math.exp(self.first), value)
            yield svg_line((_LEFT, y), (right, y), FAINT)
            yield svg_text(_LEFT - 8, y, f"{value:.6g}", INK, anchor="end")
        for value, name in chart.ticks:
            x, _ = self.at(value, self.low)
            yield svg_line((x, _TOP), (x, bottom), FAINT)
            yield svg_text(x, bottom + 16, name, INK, anchor="middle")
        yield svg_text((_LEFT + right) / 2, bottom + 36, chart.across, INK, anchor="middle")

    def markers(self) -> Iterator[Markup]:
        for place, (name, value) in enumerate(self.chart.markers):
            x, _ = self.at(value, self.low)
            yield svg_line((x, _TOP), (x, _HEIGHT - _BOTTOM), STRONG, dashed=True)
            anchor, beside = ("end", -6) if x > _WIDTH / 2 else ("start", 6)
            yield svg_text(x + beside, _TOP + 10.0 + 16.0 * place, name, STRONG, anchor=anchor)

    def band(self, line: DrawnLine) -> Iterator[Markup]:
        if line.band:
            pairs = list(zip(line.points, line.band, strict=True))
            round_it = [self.at(x, low) for (x, _), (low, _) in pairs]
            round_it += [self.at(x, high) for (x, _), (_, high) in reversed(pairs)]
            yield tag("polygon", points=_joined(round_it), fill=line.colour, fill_opacity=_PALE)

    def line(self, line: DrawnLine) -> Iterator[Markup]:
        points = [self.at(x, y) for x, y in line.points]
        if line.dots:
            yield from (_dot(x, y, line.colour) for x, y in points)
        else:
            yield tag("polyline", points=_joined(points), fill="none", **_stroke(line))


def _legend(line: DrawnLine, y: float) -> Iterator[Markup]:
    if line.dots:
        yield _dot(_LEFT + 12, y, line.colour)
    else:
        if line.band:
            yield tag("rect", x=_LEFT, y=y - 6, width=24, height=12, fill=line.colour, fill_opacity=_PALE)
        yield tag("line", x1=_LEFT, y1=y, x2=_LEFT + 24, y2=y, **_stroke(line))
    yield svg_text(_LEFT + 34, y, line.name, INK)


def _dot(x: float, y: float, colour: str) -> Markup:
    return tag("circle", cx=x, cy=y, r=4, fill=colour, fill_opacity=0.65)


def _stroke(line: DrawnLine) -> dict[str, object]:
    return {"stroke": line.colour, "stroke_width": 2, "stroke_dasharray": "5 4" if line.dashed else None}


def _joined(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)


def _round_step(least: float) -> float:
    """1, 2 or 5 times a power of ten, and at least this."""
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
