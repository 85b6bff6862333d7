"""What `fpn check` shows: tables that can be read at 80 columns, and for each kind of finding a few and the remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fpn.data.checks.inspection import CheckReport
from fpn.data.issues import KINDS
from fpn.detectors.anchor_reach import thresholds_of
from fpn.studies.anchor_fit import AnchorFit

_SHOWN = 3
_CLASSES = 30
_COLOURS = {"error": "bold red", "warning": "bold yellow", "information": "bold cyan"}
_HEADINGS = {
    "error": "ERRORS: training would stop, or learn or measure something wrong",
    "warning": "WARNINGS: worth a look",
    "information": "INFORMATION",
}


def show(
    report: CheckReport, fit: AnchorFit | None, *, whose: str = "", every: bool = False
) -> Iterator[RenderableType]:
    """The parts of the report in order, anchors where they were tried.

    Args:
        report: what was found.
        fit: of anchors; None: they were not tried.
        whose: who chose size and anchors, as a sentence.
        every: all findings instead of the first few of a kind.
    """
    yield Text(f"{report.name}: {report.format}", style="bold")
    for part in (_splits(report), _classes(report), _sizes(report), *([] if fit is None else [_anchors(fit)])):
        yield Text()
        yield part
    if fit is not None:
        if whose:
            yield Text(whose)
        yield from _suggestion(fit)
    for severity, heading in _HEADINGS.items():
        kinds = [kind for kind in KINDS if KINDS[kind].severity == severity and report.of(kind)]
        if kinds:
            yield Text()
            yield Text(heading, style=_COLOURS[severity])
            for kind in kinds:
                yield from _kind(report, kind, every)
    yield Text()
    yield _verdict(report)


def _table(*columns: str, title: str | None = None) -> Table:
    """A table whose columns hold numbers but for the first."""
    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False, show_edge=False
    )
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", overflow="fold")
    return table


def _splits(report: CheckReport) -> Table:
    columns = {"images": "images", "objects": "objects", "outlined": "with outlines", "pointed": "with keypoints"}
    shown = [key for key in columns if any(key in counts for counts in report.splits.values())]
    table = _table("split", *(columns[key] for key in shown), title="Splits")
    for name, counts in report.splits.items():
        table.add_row(_plain(name), *(str(counts.get(key, 0)) for key in shown))
    return table


def _classes(report: CheckReport) -> RenderableType:
    table = _table("class", "id", "objects", "in images", "ignored", title="Classes, the commonest first")
    rows = sorted(report.classes.items(), key=lambda pair: -pair[1]["objects"])
    for name, row in rows[:_CLASSES]:
        table.add_row(_plain(name), *(str(row[key]) for key in ("id", "objects", "images", "ignored")))
    if len(rows) <= _CLASSES:
        return table
    rest = sum(row["objects"] for _, row in rows[_CLASSES:])
    return Group(table, Text(f"... {len(rows) - _CLASSES} more classes with {rest} objects together"))


def _sizes(report: CheckReport) -> RenderableType:
    objects, images = report.sizes["objects"], report.sizes["images"]
    table = _table(
        "",
        "least",
        "5 %",
        "25 %",
        "median",
        "75 %",
        "95 %",
        "most",
        title="Sizes in pixels (an object's side: the root of its area)",
    )
    rows = {
        "side of objects": objects["side"],
        "height / width": objects["height/width"],
        "objects an image": objects["an image"],
        "image width": images["width"],
        "image height": images["height"],
    }
    for name, values in rows.items():
        if values:
            table.add_row(name, *(f"{value:.4g}" for value in values.values()))
    small = f"small (side below 32): {objects['small']}, medium: {objects['medium']}, "
    return Group(table, _bars(objects["histogram"]), Text(f"{small}large (from 96): {objects['large']}"))


def _bars(histogram: Mapping[str, int]) -> Table:
    """Objects by the root of their area, an octave a row."""
    table = Table.grid(padding=(0, 1))
    most = max(histogram.values(), default=1)
    for start, count in histogram.items():
        low = "0" if start == "1" else start
        table.add_row(Text(f"{low} to {2 * int(start)}", justify="right"), f"{count}", "█" * round(40 * count / most))
    return table


def _anchors(fit: AnchorFit) -> RenderableType:
    speech = fit.dialect
    limit = f", long at most {speech.pixels.long_side}" if speech.pixels.long_side else ""
    title = f"Objects by the level of their best anchor (short side {speech.pixels.short_side}{limit})"
    table = _table("level", "stride", "anchor", "objects", "fit well", "fairly", "not at all")
    for row in fit.levels:
        sizes = "/".join(f"{size:g}" for size in row["sizes"])
        numbers = (str(row[key]) for key in ("objects", "well", "fairly", "not"))
        table.add_row(str(row["level"]), str(row["stride"]), sizes, *numbers)
    low, well = thresholds_of(speech)
    legend = f"Well: IoU with the anchor {well:g} and more; not at all: below {low:g}."
    return Group(Text(title, style="bold"), table, Text(legend))


def _suggestion(fit: AnchorFit) -> Iterable[Text]:
    if not fit.unreached:
        return
    said = f"{fit.unreached} of {fit.objects} objects are fit by no anchor."
    if fit.suggestion is None:
        yield Text(f"{said} No other anchors or image size would be worth the change.")
        return
    better, speech = fit.suggestion, fit.dialect
    sizes = " ".join(f"{level[0]:g}" for level in better["anchor_sizes"])  # others of a level follow from its first
    ratios = " ".join(f"{ratio:g}" for ratio in better["anchor_ratios"])
    options = []
    if better["anchor_sizes"] != [list(level) for level in speech.anchors.sizes]:
        options.append(f"--anchor-sizes {sizes}")
    if better["anchor_ratios"] != list(speech.anchors.ratios):
        options.append(f"--anchor-ratios {ratios}")
    if better["short_side"] != speech.pixels.short_side:
        options.append(f"--short-side {better['short_side']}")
    yield Text(f"{said} With these it would be {better['unreached']}:")
    yield Text(f"  fpn train ... {' '.join(options)}", style="bold")


def _kind(report: CheckReport, kind: str, every: bool) -> Iterator[RenderableType]:
    about, found = KINDS[kind], report.of(kind)
    yield Text.assemble((f"{len(found):>6}  ", _COLOURS[about.severity]), (about.title, "bold"))
    shown = found if every else found[:_SHOWN]
    lines = [Text(_plain(finding.message)) for finding in shown]
    if len(shown) < len(found):
        lines.append(Text(f"... and {len(found) - len(shown)} more (--all-entries, or --output report.json)"))
    fix = f" --fix {about.repair}." if about.repair else ""
    lines.append(Text(f"> {about.remedy}{fix}", style="italic"))
    yield from (Padding(line, (0, 0, 0, 8), expand=False) for line in lines)


def _verdict(report: CheckReport) -> Text:
    counts: Counter[str] = Counter(KINDS[finding.kind].severity for finding in report.findings)
    said = ", ".join(f"{counts[severity]} {_many(severity, counts[severity])}" for severity in _HEADINGS)
    if report.passed:
        return Text.assemble(("Ready for training: ", "bold green"), said)
    return Text.assemble(("Not ready for training: ", "bold red"), said)


def _many(severity: str, count: int) -> str:
    if severity == "information":
        return "notes" if count != 1 else "note"
    return severity if count == 1 else f"{severity}s"


def _plain(text: Any) -> str:
    """Text out of a file, without what would move a terminal's cursor."""
    return "".join(character if character.isprintable() else "?" for character in str(text))
