"""A label budget as a table for people, a chart of its curve, and JSON and CSV for programs."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict
from pathlib import Path

import numpy as np

from fpn.evaluation.bootstrap import Interval
from fpn.files import write_text
from fpn.spreadsheets import write_csv
from fpn.studies.label_budget.forecast import TIMES, LabelForecast
from fpn.studies.standalone_svg import PLAIN, STRONG, DrawnLine, LogChart, draw_chart
from fpn.studies.tables import TextTable

_FIGURES, _CHART, _TABLE = "label-budget.json", "label-budget.svg", "label-budget.csv"


def budget_table(found: LabelForecast) -> TextTable:
    """What was measured, and what is forecast."""
    rows = []
    for images, values in found.sizes().items():
        spread = f"± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
        rows.append((f"{images}", f"{len(values)} pilots", f"{100 * statistics.fmean(values):.1f}", spread, ""))
    for each in found.forecasts:
        gain = f"{100 * each.gain.value:+z.1f}  {_span(each.gain, sign='+')}"
        rows.append((f"{each.images}", f"{each.times} x", f"{100 * each.mean.value:.1f}", _span(each.mean), gain))
    rows.append(("any number", "ceiling", f"{100 * found.ceiling.value:.1f}", _span(found.ceiling), ""))
    name, held_out = found.held_out
    return TextTable(
        title=f"{found.dataset}: what more labels would bring",
        columns=(">images", "", ">AP", ">interval", ">gain over now"),
        rows=tuple(rows),
        notes=(
            f"AP in points of 100, on {held_out} held-out images of {name}. Measured: mean ± standard deviation of the "
            f"pilots. Forecast: {found.confidence:.0%} intervals of a curve error = c + a / images^b through all of "
            "them; they hold the pilots' chance, the curve's freedom and the choice of held-out images.",
        ),
    )


def save_budget(found: LabelForecast, folder: Path) -> list[Path]:
    """Write `label-budget.json`, `.csv` and `.svg` into the folder; each file atomically.

    Raises:
        OutputError: one can't be written.
    """
    figures, chart = folder / _FIGURES, folder / _CHART
    write_text(figures, json.dumps(found.to_dict(), indent=1) + "\n")
    write_text(chart, draw_curve(found))
    rows = ({k: v for k, v in asdict(pilot).items() if k != "resampled"} for pilot in found.pilots)
    return [figures, write_csv(folder / _TABLE, rows), chart]


def draw_curve(found: LabelForecast) -> str:
    """An SVG document: a dot a pilot, the curve through them, and its interval as a band."""
    smallest, largest = min(pilot.images for pilot in found.pilots), found.images
    places = np.geomspace(smallest, TIMES[-1] * largest, 25).tolist()
    means = [found.curve.mean(place, found.confidence) for place in places]
    sizes = [*found.sizes(), *(each.images for each in found.forecasts)]
    line = DrawnLine(
        f"the fitted curve and its {found.confidence:.0%} interval",
        [(place, 100 * mean.value) for place, mean in zip(places, means, strict=True)],
        PLAIN,
        band=[(100 * mean.low, 100 * mean.high) for mean in means],
    )
    dots = [(float(pilot.images), 100 * pilot.ap) for pilot in found.pilots]
    chart = LogChart(
        title=f"{found.dataset}: AP by labelled images",
        across="labelled images to learn from",
        up="AP of a pilot, points",
        ticks=[(float(size), str(size)) for size in sizes],
        lines=[line, DrawnLine("a pilot each", dots, STRONG, dots=True)],
        markers=[("now", float(largest))],
        bounds=(0.0, 100.0),
    )
    return draw_chart(chart)


def _span(interval: Interval, *, sign: str = "") -> str:
    return f"{100 * interval.low:{sign}.1f} .. {100 * interval.high:{sign}.1f}"
