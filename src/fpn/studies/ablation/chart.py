"""The tables as an image: a dot for each seed, a bar at their mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fpn.features.necks.designs import DESIGNS, FPN
from fpn.studies.ablation.statistics import values
from fpn.studies.ablation.tables import HEADINGS, Findings
from fpn.studies.markup import Markup, tag
from fpn.studies.standalone_svg import FAINT, INK, PLAIN, STRONG, svg_document, svg_line, svg_text

FIGURES = ("ar1000", "ar1000_small", "ap", "ap_small")
_NAMES, _PANEL, _GAP, _LINE, _TOP, _BOTTOM = 230.0, 170.0, 24.0, 26.0, 44.0, 34.0


def chart(findings: Findings) -> str:
    """An SVG document: one panel a figure, one line a row, FPN in another colour and dashed through all lines."""
    rows = findings.rows
    width = _NAMES + len(FIGURES) * (_PANEL + _GAP)
    height = _TOP + _LINE * len(rows) + _BOTTOM
    parts = [svg_text(8.0, _middle(place), _label(row), _colour(row)) for place, row in enumerate(rows)]
    for place, figure in enumerate(FIGURES):
        parts += _panel(findings, figure, left=_NAMES + place * (_PANEL + _GAP))
    return svg_document(_title(findings), width, height, parts)


def _panel(findings: Findings, figure: str, *, left: float) -> Iterator[Markup]:
    found = {row: list(values(findings.outcomes, row, figure).values()) for row in findings.rows}
    low, high, step = _scale([100 * value for each in found.values() for value in each])
    bottom = _TOP + _LINE * len(found)

    def place(value: float) -> float:
        return round(left + _PANEL * (100 * value - low) / (high - low), 1)

    yield svg_text(left, 20.0, HEADINGS[figure], INK, bold=True)
    for tick in range(low, high + 1, step):
        x = place(tick / 100)
        yield svg_line((x, _TOP - 8), (x, bottom), FAINT)
        yield svg_text(x, bottom + 18, str(tick), INK, anchor="middle")
    if found.get(FPN):
        x = place(_mean(found[FPN]))
        yield svg_line((x, _TOP - 8), (x, bottom), STRONG, dashed=True)
    for line, (row, seeds) in enumerate(found.items()):
        yield from _marks([place(value) for value in seeds], _middle(line), _colour(row))


def _marks(places: Sequence[float], middle: float, colour: str) -> Iterator[Markup]:
    if not places:
        return
    mean = round(_mean(places), 1)
    yield tag("line", x1=mean, y1=middle - 8, x2=mean, y2=middle + 8, stroke=colour, stroke_width=3)
    for x in places:
        yield tag("circle", cx=x, cy=middle, r=3.5, fill=colour, fill_opacity=0.55)


def _scale(percent: Sequence[float]) -> tuple[int, int, int]:
    """Ends and step of an axis: whole steps around all numbers. It need not begin at 0, since dots have no length."""
    low, high = (min(percent), max(percent)) if percent else (0.0, 100.0)
    step = next(step for step in (1, 2, 5, 10, 20, 50) if (high - low) / step <= 4 or step == 50)
    first = int(low // step) * step
    last = -int(-high // step) * step
    return first, max(last, first + step), step


def _title(findings: Findings) -> str:
    return f"Designs of the paper's comparison, {len(findings.seeds)} seeds: a dot each, a bar at their mean, percent"


def _label(row: str) -> str:
    return f"{DESIGNS[row].letter} {DESIGNS[row].title}"


def _colour(row: str) -> str:
    return STRONG if row == FPN else PLAIN


def _middle(line: int) -> float:
    return _TOP + _LINE * (line + 0.5)


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)
