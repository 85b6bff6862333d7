"""The paper's tables from what was measured, and sentences that say what they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fpn.features.necks.designs import DESIGNS, FPN
from fpn.studies.ablation.outcomes import DETECTION_FIGURES, FIGURES, PROPOSAL_FIGURES, Cost, Outcome
from fpn.studies.ablation.statistics import CLEAR, Spread, paired, ranking, summary
from fpn.studies.tables import TextTable

HEADINGS: Mapping[str, str] = {
    "ar100": "AR100",
    "ar1000": "AR1k",
    "ar1000_small": "AR1k_s",
    "ar1000_medium": "AR1k_m",
    "ar1000_large": "AR1k_l",
    "ap50": "AP@.5",
    "ap": "AP",
    "ap_small": "AP_s",
    "ap_medium": "AP_m",
    "ap_large": "AP_l",
}


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that an ablation has measured so far.

    Attributes:
        outcomes: of complete rows and seeds.
        costs: by row; empty until all rows are through.
    """

    outcomes: Sequence[Outcome]
    costs: Mapping[str, Cost]

    @property
    def rows(self) -> list[str]:
        """Those with an outcome, in the paper's order."""
        return [row for row in DESIGNS if any(outcome.row == row for outcome in self.outcomes)]

    @property
    def seeds(self) -> list[int]:
        """Those with an outcome of any row."""
        return sorted({outcome.seed for outcome in self.outcomes})


def text_tables(findings: Findings, *, wide: bool) -> list[TextTable]:
    """All tables, in the order of the paper.

    Args:
        findings: with at least one outcome.
        wide: with the paper's names of the rows and all its columns; else for a terminal of 80 columns.
    """
    tables = [proposals(findings, wide), detections(findings, wide)]
    if FPN in findings.rows and len(findings.rows) > 1:
        tables += [differences(findings, figures, wide) for figures in (PROPOSAL_FIGURES, DETECTION_FIGURES)]
    return [*tables, costs(findings, wide)] if findings.costs else tables


def proposals(findings: Findings, wide: bool) -> TextTable:
    """The layout of the paper's table 1."""
    rows = []
    for row in findings.rows:
        anchors = next(outcome.anchors for outcome in findings.outcomes if outcome.row == row)
        rows.append((*_name(row, wide), _in_thousands(anchors), *_paths(row), *_means(findings, row, PROPOSAL_FIGURES)))
    return TextTable(
        title="Proposals (the paper's table 1)",
        columns=(*_first_columns("RPN", wide), ">anchors", "lateral", "top-down", *_columns(PROPOSAL_FIGURES)),
        rows=tuple(rows),
        notes=(f"AR in percent, class-free, IoU 0.5 to 0.95; sizes at 1000 proposals. {_of_seeds(findings)}",),
    )


def detections(findings: Findings, wide: bool) -> TextTable:
    """The layout of the paper's table 3."""
    head = ("2fc",) if wide else ()  # the same for all
    rows = [
        (*_name(row, wide), *head, *_paths(row), *_means(findings, row, DETECTION_FIGURES)) for row in findings.rows
    ]
    columns = (*(("head",) if wide else ()), "lateral", "top-down", *_columns(DETECTION_FIGURES))
    return TextTable(
        title="Faster R-CNN (the paper's table 3)",
        columns=(*_first_columns("Faster R-CNN", wide), *columns),
        rows=tuple(rows),
        notes=(f"AP in percent, as COCO counts it. {_of_seeds(findings)}",),
    )


def differences(findings: Findings, figures: tuple[str, ...], wide: bool) -> TextTable:
    """Each row minus FPN, paired by seed."""
    rows = [
        (*_name(row, wide), *(_difference(paired(findings.outcomes, row, FPN, figure)) for figure in figures))
        for row in findings.rows
        if row != FPN
    ]
    note = (
        "Row minus FPN with the same seed: mean ± standard deviation of the seeds' differences, in points. "
        f"*: outside their spread, which is to say that the mean exceeds {CLEAR:.0f} standard deviations."
    )
    return TextTable(
        title=f"Differences to FPN, {'proposals' if figures == PROPOSAL_FIGURES else 'Faster R-CNN'}",
        columns=(*_first_columns("row", wide), *_columns(figures)),
        rows=tuple(rows),
        notes=(note,),
    )


def costs(findings: Findings, wide: bool) -> TextTable:
    """Time, parameters, multiply-adds and memory."""
    shown = {row: findings.costs[row] for row in DESIGNS if row in findings.costs}
    columns: tuple[str, ...] = (">detect", ">x FPN", ">train", ">weights", ">mult-adds", ">detect", ">train")
    if wide:
        units = ("ms", "", "ms", "M", "G", "MiB", "MiB")
        columns = tuple(f"{name} {unit}".rstrip() for name, unit in zip(columns, units, strict=True))
    note = (
        "One image at a time. Milliseconds (medians, the rows taking turns) to detect, and to get losses and "
        "gradients; millions of weights; billions of multiply-adds of a detection; MiB of memory: weights and the most "
        "that torch's allocator held at once. The optimizer is not counted."
    )
    return TextTable(
        title="What a row costs",
        columns=(*_first_columns("row", wide), *columns),
        rows=tuple((*_name(row, wide), *_cost(cost, shown.get(FPN))) for row, cost in shown.items()),
        notes=(note,),
    )


def verdicts(findings: Findings) -> list[str]:
    """What the tables say about the paper's claims, in sentences; those that can't be judged are left out."""
    told = [_first(findings, figure) for figure in ("ar1000", "ap")]
    told += [_small_gap(findings, figure, row) for figure in ("ar1000_small", "ap_small") for row in _single_maps()]
    return [sentence for sentence in (*told, _image_pyramid(findings)) if sentence]


def to_json(findings: Findings) -> dict[str, object]:
    """All figures by row: mean, spread, each seed, difference to FPN, cost."""
    return {
        "seeds": findings.seeds,
        "rows": {row: _row_json(findings, row) for row in findings.rows},
        "findings": verdicts(findings),
    }


def _row_json(findings: Findings, row: str) -> dict[str, object]:
    cost = findings.costs.get(row)
    outcomes = findings.outcomes
    return {
        "title": DESIGNS[row].title,
        "place": DESIGNS[row].place,
        "mean": {name: _spread_json(summary(outcomes, row, name)) for name in FIGURES},
        "minus_fpn": {name: _spread_json(paired(outcomes, row, FPN, name)) for name in FIGURES},
        "seeds": [vars(outcome) for outcome in outcomes if outcome.row == row],
        "cost": None if cost is None else vars(cost),
    }


def _spread_json(spread: Spread | None) -> dict[str, object] | None:
    if spread is None:
        return None
    return {"mean": spread.mean, "deviation": spread.deviation, "seeds": spread.count, "clear": spread.clear}


def _first(findings: Findings, figure: str) -> str:
    order = ranking(findings.outcomes, findings.rows, figure)
    if FPN not in order or len(order) < 2:
        return ""
    place, name = order.index(FPN) + 1, HEADINGS[figure]
    rival = order[1] if place == 1 else order[0]
    gap = paired(findings.outcomes, FPN, rival, figure)
    where = "first" if place == 1 else f"number {place}"
    beside = "the next is" if place == 1 else "the first is"
    return f"{name}: FPN is {where} of {len(order)}; {beside} {rival}, FPN minus {rival} is {_told(gap)}."


def _small_gap(findings: Findings, figure: str, row: str) -> str:
    gap = paired(findings.outcomes, FPN, row, figure)
    if gap is None:
        return ""
    return f"Small objects, {HEADINGS[figure]}: FPN minus the single map {row.upper()} is {_told(gap)}."


def _single_maps() -> list[str]:
    return [design.name for design in DESIGNS.values() if design.rival and len(design.out) == 1]


def _image_pyramid(findings: Findings) -> str:
    ours, theirs = findings.costs.get(FPN), findings.costs.get("image_pyramid")
    if ours is None or theirs is None:
        return ""
    return (
        f"The image pyramid takes {theirs.detect_ms / ours.detect_ms:.1f} times FPN's time to detect and "
        f"{theirs.train_ms / ours.train_ms:.1f} times to learn from an image, "
        f"{theirs.multiply_adds / ours.multiply_adds:.1f} times its multiply-adds, and "
        f"{theirs.train_bytes / ours.train_bytes:.1f} times its memory in training."
    )


def _told(spread: Spread | None) -> str:
    if spread is None:
        return "unknown"
    if spread.deviation is None:
        return f"{100 * spread.mean:+z.1f} points with one seed, whose spread is unknown"
    where = "outside" if spread.clear else "within"
    points = f"{100 * spread.mean:+z.1f} ± {100 * spread.deviation:.1f} points"
    return f"{points}, {where} the spread of {spread.count} seeds"


def _name(row: str, wide: bool) -> tuple[str, ...]:
    design = DESIGNS[row]
    return (f"{design.letter} {design.title}", design.feature) if wide else (f"{design.letter} {design.short}",)


def _first_columns(heading: str, wide: bool) -> tuple[str, ...]:
    return (heading, "feature") if wide else (heading,)


def _paths(row: str) -> tuple[str, str]:
    design = DESIGNS[row]
    return "yes" if design.lateral else "", "yes" if design.top_down else ""


def _columns(figures: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f">{HEADINGS[figure]}" for figure in figures)


def _means(findings: Findings, row: str, figures: tuple[str, ...]) -> list[str]:
    found = (summary(findings.outcomes, row, figure) for figure in figures)
    return ["-" if spread is None else f"{100 * spread.mean:.1f}" for spread in found]


def _difference(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    if spread.deviation is None:
        return f"{100 * spread.mean:+z.1f}"
    return f"{100 * spread.mean:+z.1f}±{100 * spread.deviation:.1f}{'*' if spread.clear else ''}"


def _cost(cost: Cost, baseline: Cost | None) -> tuple[str, ...]:
    return (
        f"{cost.detect_ms:.0f}",
        "-" if baseline is None else f"{cost.detect_ms / baseline.detect_ms:.2f}",
        f"{cost.train_ms:.0f}",
        f"{cost.parameters / 1e6:.2f}",
        f"{cost.multiply_adds / 1e9:.2f}",
        f"{cost.detect_bytes / 2**20:.0f}",
        f"{cost.train_bytes / 2**20:.0f}",
    )


def _in_thousands(number: int) -> str:
    return f"{number / 1000:.1f}k"


def _of_seeds(findings: Findings) -> str:
    counts = [sum(outcome.row == row for outcome in findings.outcomes) for row in findings.rows]
    few, many = min(counts), max(counts)
    return f"Means of {many} seed{'s' if many > 1 else ''}{f' ({few} for rows still to come)' if few < many else ''}."
