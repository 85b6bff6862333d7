"""Charts as SVG, as wide as a phone: lines, bars and shares. Colours are classes of the page's own style."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fpn.studies.markup import Markup, join_markup, tag

# Units are pixels of a narrow phone, so that letters there are as large as they say.
WIDTH, _HEIGHT = 340.0, 210.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 10.0, 24.0, 36.0
_LETTER = 6.2
_LEGEND_LINE, _BAR_LINE = 17.0, 22.0
# Colours that the style has.
SERIES = 4


@dataclass(frozen=True)
class ChartAxis:
    """One axis: what it is of, its ends, and where it is labelled."""

    title: str
    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """0 at the low end, 1 at the high one."""
        return (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)


SHARE_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def share_axis(title: str) -> ChartAxis:
    """From 0 to 1."""
    return ChartAxis(title, 0.0, 1.0, SHARE_TICKS)


def axis_of(title: str, values: Sequence[float], *, from_zero: bool = False, snug: bool = False) -> ChartAxis:
    """Round steps around all of the values; `snug`: it ends with the last of them."""
    low, high = (float(min(values)), float(max(values))) if values else (0.0, 1.0)
    low = min(low, 0.0) if from_zero else low
    if high - low < 1e-9 * max(1.0, abs(high)):
        high = low + (abs(low) or 1.0)
    step = _round_step((high - low) / 4)
    first, last = (
        math.floor(low / step + 1e-9),
        math.floor(high / step + 1e-9) if snug else math.ceil(high / step - 1e-9),
    )
    ticks = tuple(number * step for number in range(first, last + 1))
    return ChartAxis(title, first * step, high if snug else last * step, ticks)


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= least * (1 - 1e-9))


@dataclass(frozen=True)
class ChartLine:
    """One line of a chart: what it is, its points in order, and the number of its colour."""

    name: str
    points: Sequence[tuple[float, float]]
    series: int = 0


@dataclass(frozen=True)
class Marker:
    """A line across the whole chart at some x, and what it is."""

    name: str
    x: float


def line_chart(
    title: str, description: str, lines: Sequence[ChartLine], x: ChartAxis, y: ChartAxis, markers: Sequence[Marker] = ()
) -> Markup:
    """Lines over one another, with a legend where there are several things to tell apart."""
    legend = [(line.name, f"line s{line.series}") for line in lines] if len(lines) + len(markers) > 1 else []
    legend += [(marker.name, "marker") for marker in markers]
    plot = _Plot(x, y, _HEIGHT - _TOP - _BOTTOM)
    parts = [*plot.frame(), *(plot.marker(marker) for marker in markers), *(plot.line(line) for line in lines)]
    return _svg(title, description, [*parts, *_legend(legend, _HEIGHT)], _HEIGHT + _LEGEND_LINE * len(legend))


def reliability_chart(title: str, description: str, bins: Sequence[tuple[float, float, float, int]]) -> Markup:
    """Bars of how often scores of a bin are right, and the line on which they would be true.

    Args:
        title, description: for those who can't see it.
        bins: low and high end of the scores, share that is right, how many.
    """
    x, y = share_axis("score"), share_axis("share that is right")
    plot = _Plot(x, y, _HEIGHT - _TOP - _BOTTOM)
    bars = [plot.bar(low, high, share) for low, high, share, number in bins if number]
    ideal = plot.line(ChartLine("", [(0.0, 0.0), (1.0, 1.0)], 1))
    legend = [("how often it is right", "block s0"), ("if scores were true", "line s1")]
    parts = [*plot.frame(), *bars, ideal, *_legend(legend, _HEIGHT)]
    return _svg(title, description, parts, _HEIGHT + _LEGEND_LINE * len(legend))


def share_bars(title: str, description: str, rows: Sequence[tuple[str, float, str]]) -> Markup:
    """Horizontal bars of shares 0 to 1: a name, the share, and what is written behind it."""
    names = min(140.0, 8 + _LETTER * max((len(name) for name, _, _ in rows), default=0))
    notes = 8 + _LETTER * max((len(note) for _, _, note in rows), default=0)
    room = WIDTH - names - notes - 8
    parts: list[Markup] = []
    for place, (name, share, note) in enumerate(rows):
        y = 4.0 + _BAR_LINE * place
        parts += [
            _words(names - 6, y + 14, name, anchor="end"),
            _box("track", names, y + 3, room, 14.0),
            _box("block s0", names, y + 3, room * min(max(share, 0.0), 1.0), 14.0),
            _words(names + room + 6, y + 14, note),
        ]
    return _svg(title, description, parts, 8 + _BAR_LINE * len(rows))


def heat_map(title: str, description: str, rows: Sequence[Sequence[float]]) -> Markup:
    """A square for each number 0 to 1, the darker the larger: for tables that have too many cells to read."""
    side = WIDTH / max(1, len(rows[0]) if rows else 1)
    squares = [
        _box(f"heat h{heat(value)}", side * across, side * down, side, side)
        for down, row in enumerate(rows)
        for across, value in enumerate(row)
        if value > 0
    ]
    height = side * len(rows)
    return _svg(title, description, [_box("track", 0.0, 0.0, WIDTH, height), *squares], height)


def heat(share: float) -> int:
    """Which of the style's six shades a share 0 to 1 has."""
    return 0 if share <= 0 else min(5, 1 + int(5 * share))


@dataclass(frozen=True)
class _Plot:
    """The part of a chart between its axes; `deep`: its height."""

    x: ChartAxis
    y: ChartAxis
    deep: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        wide = WIDTH - _LEFT - _RIGHT
        return round(_LEFT + wide * self.x.place(x), 1), round(_TOP + self.deep * (1 - self.y.place(y)), 1)

    def frame(self) -> Iterator[Markup]:
        left, bottom = self.at(self.x.low, self.y.low)
        right, top = self.at(self.x.high, self.y.high)
        for tick in self.y.ticks:
            _, y = self.at(self.x.low, tick)
            yield tag("line", class_="grid", x1=left, y1=y, x2=right, y2=y)
            yield _words(left - 5, y + 4, _short(tick), anchor="end")
        for tick in self.x.ticks:
            x, _ = self.at(tick, self.y.low)
            yield tag("line", class_="grid", x1=x, y1=top, x2=x, y2=bottom)
            yield _words(x, bottom + 15, _short(tick), anchor="middle" if tick < self.x.high else "end")
        yield _words((left + right) / 2, bottom + 29, self.x.title, anchor="middle")
        yield _words(4.0, _TOP - 12, self.y.title)

    def line(self, line: ChartLine) -> Markup:
        points = " ".join("{},{}".format(*self.at(x, y)) for x, y in line.points)
        return tag("polyline", class_=f"line s{line.series}", points=points)

    def marker(self, marker: Marker) -> Markup:
        (x, bottom), (_, top) = self.at(marker.x, self.y.low), self.at(marker.x, self.y.high)
        return tag("line", class_="marker", x1=x, y1=top, x2=x, y2=bottom)

    def bar(self, low: float, high: float, share: float) -> Markup:
        (left, top), (right, bottom) = self.at(low, share), self.at(high, self.y.low)
        return _box("block s0", left + 1, top, right - left - 2, bottom - top)


def _svg(title: str, description: str, parts: Sequence[Markup], height: float) -> Markup:
    head = (tag("title", title), tag("desc", description))
    return tag("svg", *head, *parts, role="img", viewBox=f"0 0 {WIDTH:g} {height:g}", class_="chart")


def _legend(entries: Sequence[tuple[str, str]], top: float) -> Iterator[Markup]:
    for place, (name, look) in enumerate(entries):
        y = top + _LEGEND_LINE * place
        if look.startswith("block"):
            yield _box(look, _LEFT, y + 1, 22.0, 10.0)
        else:
            yield tag("line", class_=look, x1=_LEFT, y1=y + 6, x2=_LEFT + 22, y2=y + 6)
        yield _words(_LEFT + 30, y + 10, name)


def _words(x: float, y: float, text: str, *, anchor: str | None = None) -> Markup:
    return tag("text", text, x=round(x, 1), y=round(y, 1), text_anchor=anchor)


def _box(look: str, x: float, y: float, width: float, height: float) -> Markup:
    sizes = {"x": x, "y": y, "width": max(width, 0.0), "height": max(height, 0.0)}
    return tag("rect", class_=look, **{name: round(value, 1) for name, value in sizes.items()})


def _short(value: float) -> str:
    if 0 < abs(value) < 0.01:
        digits, power = f"{value:.2g}".split("e") if "e" in f"{value:.2g}" else f"{value:.1e}".split("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:,.4g}" if abs(value) < 1e5 else f"{value / 1000:,.4g}k"


def figure(chart: Markup, caption: str) -> Markup:
    """A chart with what it shows."""
    return tag("figure", join_markup([chart, tag("figcaption", caption)]))
