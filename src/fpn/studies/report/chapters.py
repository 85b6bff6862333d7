"""The chapters of the page about figures: each from the table that `gather` made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

from fpn.studies.markup import Markup, join_markup, tag
from fpn.studies.report.charts import (
    ChartLine,
    Marker,
    figure,
    heat,
    heat_map,
    line_chart,
    reliability_chart,
    share_axis,
    share_bars,
)
from fpn.studies.report.elements import Chapter, cards, chapter, fold_away, foreign, grid, note, paragraph, table
from fpn.studies.report.glossary import glossary
from fpn.studies.report.verdict import grade, share
from fpn.wording import counted

ReportFigures: TypeAlias = Mapping[str, Any]

# Classes whose curves are shown at once; the others are folded away.
_CURVES = 6
# Classes up to which the confusion matrix is a table that can be read.
_READABLE = 12
_CONFUSIONS = 15
# What a model may find beside boxes: task, what its AP is called, what it compares.
_BESIDE = (("masks", "Mask", "outlines instead of boxes"), ("keypoints", "Keypoint", "points instead of boxes"))
_NO_INTERVALS = (
    "There are no intervals: they tell how much a figure changes from image to image, and this is one image. Measure "
    "on more: some dozens tell something. fpn train --validation-share 0.2 holds a fifth of the images out, and fpn "
    "split writes them apart."
)
_COSTS = ("share", "AP points", "<what helps")


def verdict_chapter(figures: ReportFigures) -> Chapter:
    """The first glance."""
    overall, numbers = figures["operating_point"]["overall"], figures["figures"]
    interval = (figures["intervals"] or {}).get("ap")
    known = interval if interval and interval[1] is not None else None
    within = f"95 %: {known[1]:.3f} to {known[2]:.3f}" if known else _why_no_interval(figures)
    speed = figures["speed"]
    entries = [
        ("AP", grade(numbers["ap"]), within),
        *((f"{name} AP", grade(numbers[task]["ap"]), what) for task, name, what in _BESIDE if numbers.get(task)),
        ("Objects found", share(overall["recall"]), f"of {overall['objects']}, at the threshold in use"),
        (
            "Detections that are right",
            share(overall["precision"]),
            f"{overall['false_alarms']:.2g} wrong ones an image",
        ),
        ("Speed", f"{speed['images_per_second']:.2g} images/s", "on the machine of this report"),
    ]
    told = figures["verdict"]
    cautions = (
        tag("ul", (tag("li", each) for each in told["cautions"]), class_="cautions") if told["cautions"] else None
    )
    return chapter(
        "verdict",
        "In short",
        cards(entries),
        tag("ul", (tag("li", each) for each in told["sentences"])),
        [tag("h3", "Before you believe it"), cautions] if cautions else None,
        glossary(),
    )


def _why_no_interval(figures: ReportFigures) -> str:
    return "no interval: only one image" if figures["intervals"] is None else "no interval: too few objects"


def precision_chapter(figures: ReportFigures) -> Chapter:
    """AP by class, with intervals."""
    numbers, intervals = figures["figures"], figures["intervals"] or {}
    rows = [_ap_row(tag("strong", "all"), numbers, intervals, numbers["objects"])]
    for each in numbers["per_class"]:
        of_class = intervals.get("per_class", {}).get(each["name"], {})
        rows.append(_ap_row(foreign(each["name"]), each, of_class, each["objects"]))
    columns = ("<class", "objects", "AP", "95 % interval", "AP50", "95 % interval", "AP75", "small", "medium", "large")
    resamples = (
        f"Intervals: the images were drawn {intervals['resamples']} times with replacement; in 95 of 100 draws the "
        "figure lies between these ends."
        if intervals
        else ""
    )
    return chapter(
        "ap",
        "Average precision",
        note(
            "AP is COCO's grade from 0 to 1: whether all objects are found, nothing else is, and boxes fit, over all "
            "thresholds. AP50 and AP75 ask for boxes that overlap by half and by three quarters. Small objects have "
            "less than 32 x 32 pixels, large ones more than 96 x 96. ",
            resamples or _NO_INTERVALS,
        ),
        table("AP by class", columns, rows),
        _masks(numbers["masks"]) if numbers.get("masks") else None,
        _keypoints(numbers["keypoints"]) if numbers.get("keypoints") else None,
        note(
            "Average recall with up to 1, 10 and 100 detections an image: ",
            ", ".join(grade(numbers[key]) for key in ("ar1", "ar10", "ar100")),
            ".",
        ),
    )


def _ap_row(name: object, numbers: ReportFigures, intervals: ReportFigures, objects: int) -> Sequence[object]:
    sizes = (grade(numbers[f"ap_{size}"]) for size in ("small", "medium", "large"))
    ap, ap50 = (_interval(intervals.get(metric)) for metric in ("ap", "ap50"))
    return (name, objects, grade(numbers["ap"]), ap, grade(numbers["ap50"]), ap50, grade(numbers["ap75"]), *sizes)


def _masks(numbers: ReportFigures) -> Markup:
    """The same grades, of outlines."""
    columns = ("<class", "mask AP", "AP50", "AP75", "small", "medium", "large")
    named = [(tag("strong", "all"), numbers), *((foreign(each["name"]), each) for each in numbers["per_class"])]
    keys = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    rows = [(name, *(grade(each[key]) for key in keys)) for name, each in named]
    return join_markup([note("Of masks: outlines instead of boxes have to overlap."), table("Mask AP", columns, rows)])


def _keypoints(numbers: ReportFigures) -> Markup:
    """Precision and recall of all points together."""
    columns = ("<keypoints", "all", "at 0.5", "at 0.75", "medium", "large")
    rows = [
        (what, *(grade(numbers[f"{key}{end}"]) for end in ("", "50", "75", "_medium", "_large")))
        for what, key in (("AP", "ap"), ("recall (AR)", "ar"))
    ]
    told = note("Of keypoints: their likeness (OKS: distance by the object's size) takes the place of overlap.")
    return join_markup([told, table("Keypoint AP and recall", columns, rows)])


def _interval(ends: Sequence[float | None] | None) -> str:
    return "-" if not ends or ends[1] is None else f"{ends[1]:.3f} to {ends[2]:.3f}"


def thresholds_chapter(figures: ReportFigures) -> Chapter:
    """Thresholds by class, and curves along the score."""
    point = figures["operating_point"]
    best = point["best_f1"] or [None] * len(point["per_class"])
    rows = [
        (
            foreign(now["name"]),
            now["objects"],
            f"{now['threshold']:.3f}",
            *(grade(now[key]) for key in ("precision", "recall", "f1")),
            f"{now['false_alarms']:.2f}",
            "-" if other is None else f"{other['threshold']:.3f}",
            "-" if other is None else grade(other["f1"]),
        )
        for now, other in zip(point["per_class"], best, strict=True)
    ]
    overall = point["overall"]
    values = (grade(overall[key]) for key in ("precision", "recall", "f1"))
    rows.append(
        (tag("strong", "all"), overall["objects"], "", *values, f"{overall['false_alarms']:.2f}", "", _best(point))
    )
    columns = (
        "<class",
        "objects",
        "threshold",
        "precision",
        "recall",
        "F1",
        "wrong an image",
        "best threshold",
        "its F1",
    )
    used = (
        f"Thresholds are the model's own, chosen for {point['goal']}."
        if point["how"] == "calibrated"
        else "The model has no thresholds of its own; fpn predict shows detections from 0.5 on."
    )
    return chapter(
        "thresholds",
        "Thresholds, precision and recall",
        note(
            used,
            " Precision: share of the detections that are right. Recall: share of the objects that are found. F1: one "
            "number for both. Right is a detection that overlaps an object of its class by half (IoU 0.5). Best: of "
            "the highest F1 on these images, so a little too good; fpn calibrate writes such thresholds into a model.",
        ),
        table("Thresholds in use, and the best ones for F1", columns, rows),
        _curves(figures),
    )


def _best(point: ReportFigures) -> str:
    return "-" if point["best_f1_overall"] is None else grade(point["best_f1_overall"]["f1"])


def _curves(figures: ReportFigures) -> list[Markup]:
    thresholds = figures["operating_point"]["thresholds"]
    drawn = [_class_curves(curve, thresholds[curve["class"]]) for curve in figures["curves"]]
    shown = [grid(drawn[:_CURVES])]
    rest = len(drawn) - _CURVES
    return shown if rest <= 0 else [*shown, fold_away(f"Curves of {rest} more classes", grid(drawn[_CURVES:]))]


def _class_curves(curve: ReportFigures, threshold: float) -> Markup:
    name, score = curve["class"], curve["score"]
    title = tag("h3", foreign(name), " ", tag("small", counted(curve["objects"], "object")))
    if not score or not curve["objects"]:
        why = "no object of it is labelled here" if not curve["objects"] else "nothing was found"
        return tag("div", title, note(f"No curves: {why}."))
    pairs = list(zip(curve["recall"], curve["precision"], strict=True))
    highest = max(curve["f1"])
    both = line_chart(
        f"Precision by recall of {name}",
        f"Precision begins at {pairs[0][1]:.2f} and is {pairs[-1][1]:.2f} at the highest recall, {pairs[-1][0]:.2f}.",
        [ChartLine("precision by recall", list(recall_steps(pairs)))],
        share_axis("recall"),
        share_axis("precision"),
    )
    along = line_chart(
        f"Precision, recall and F1 of {name} by threshold",
        f"F1 is highest, {highest:.2f}, at a threshold of {score[curve['f1'].index(highest)]:.2f}.",
        [
            ChartLine(what, list(_steps(score, curve[what.lower()])), series)
            for series, what in enumerate(("F1", "precision", "recall"))
        ],
        share_axis("threshold"),
        share_axis(""),
        [Marker(f"threshold in use, {threshold:.2f}", threshold)],
    )
    caption = "Precision by recall: for each share of the objects, the best precision with which so many are found"
    return tag("div", title, figure(both, caption), figure(along, "Along the threshold"))


def recall_steps(pairs: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Precision by recall as COCO takes it: at each recall the best precision that is reached there or beyond.

    Args:
        pairs: recall and precision, the highest score first, so that recall never falls.
    """
    best = list(accumulate((precision for _, precision in reversed(pairs)), max))[::-1]
    before = 0.0
    for (recall, _), precision in zip(pairs, best, strict=True):
        yield from ((before, precision), (recall, precision))
        before = recall
    yield before, 0.0


def _steps(scores: Sequence[float], values: Sequence[float]) -> Iterator[tuple[float, float]]:
    """A value holds for all thresholds from its score down to the next one; the last for all that are lower."""
    for score, value, lower in zip(scores, values, [*scores[1:], 0.0], strict=True):
        yield from ((score, value), (lower, value))


def confusion_chapter(figures: ReportFigures) -> Chapter:
    """What was taken for what."""
    classes, counts = figures["confusion"]["classes"], figures["confusion"]["table"]
    shares = [[value / max(1, sum(row)) for value in row] for row in counts]
    mixed = sorted(
        (
            (counts[row][column], shares[row][column], classes[row], classes[column])
            for row in range(len(classes))
            for column in range(len(classes))
            if row != column and counts[row][column]
        ),
        reverse=True,
        key=lambda each: each[0],
    )
    taken = [(foreign(a), foreign(b), number, share(part)) for number, part, a, b in mixed[:_CONFUSIONS]]
    often = (
        table("Most often taken for one another", ("<is", "<was called", "objects", "share of the class"), taken)
        if taken
        else paragraph("No object was called by another class's name.")
    )
    return chapter(
        "confusion",
        "What is taken for what",
        note(
            "At the thresholds in use, boxes overlapping by half. A row is what is there, a column what the model said."
        ),
        _matrix(classes, counts, shares) if len(classes) <= _READABLE else _large_matrix(classes, shares),
        often if len(classes) > 1 else None,
    )


def _matrix(classes: Sequence[str], counts: Sequence[Sequence[int]], shares: Sequence[Sequence[float]]) -> Markup:
    names = [*map(foreign, classes), tag("em", "nothing there")]
    rows = [
        (name, *(_cell(number, part) for number, part in zip(row, parts, strict=True)))
        for name, row, parts in zip(names[:-1], counts, shares, strict=False)
    ]
    # No share of anything: what is not there has no number.
    rows.append((names[-1], *(_cell(number, 0.0) for number in counts[-1])))
    return table("Confusion matrix (objects)", ("<is", *names[:-1], "not found"), rows, fold=False, look="matrix")


def _cell(number: int, part: float) -> Markup:
    return tag("td", str(number) if number else "", class_=f"h{heat(part)}" if part else None)


def _large_matrix(classes: Sequence[str], shares: Sequence[Sequence[float]]) -> Markup:
    right = sum(row[place] for place, row in enumerate(shares[:-1])) / max(1, len(classes))
    chart = heat_map(
        "Confusion matrix",
        f"{len(classes)} classes; on average {share(right)} of a class get its name. report.json has all numbers.",
        shares,
    )
    return figure(
        chart, "Rows and columns in the order of the classes, background last; dark on the diagonal is right."
    )


def calibration_chapter(figures: ReportFigures) -> Chapter:
    """Whether scores are what they say."""
    found = figures["calibration"]
    if not found["detections"]:
        return chapter("calibration", "Are scores true?", paragraph("There are no detections to tell by."))
    bins = [(each["from"], each["to"], each["right"] or 0.0, each["detections"]) for each in found["bins"]]
    gap = (found["mean_score"] or 0) - (found["share_right"] or 0)
    tendency = (
        "about as they should be" if abs(gap) < 0.03 else "too high on average" if gap > 0 else "too low on average"
    )
    chart = reliability_chart(
        "Share of right detections by score",
        "; ".join(
            f"scores {low:.1f} to {high:.1f}: {share(right)} of {number}" for low, high, right, number in bins if number
        ),
        bins,
    )
    rows = [
        (f"{each['from']:.1f} to {each['to']:.1f}", each["detections"], grade(each["score"]), grade(each["right"]))
        for each in found["bins"]
    ]
    per_class = [(foreign(each["class"]), each["detections"], grade(each["ece"])) for each in found["per_class"]]
    return chapter(
        "calibration",
        "Are scores true?",
        paragraph(
            f"Expected calibration error (ECE): {found['ece']:.3f}. Scores are {tendency}: {found['mean_score']:.2f}, "
            f"while {share(found['share_right'])} of the {found['detections']} detections are right."
        ),
        note("Were a score the chance of being right, bars would end at the line, and the ECE would be 0."),
        grid(
            [
                figure(chart, "Share that is right, by score"),
                table("Reliability", ("<scores", "detections", "mean score", "right"), rows),
            ]
        ),
        table("Calibration error by class", ("<class", "detections", "ECE"), per_class) if len(per_class) > 1 else None,
    )


def sizes_chapter(figures: ReportFigures) -> Chapter:
    """By size and by level of the pyramid."""
    sizes, numbers, budget = figures["sizes"], figures["figures"], figures["budget"]
    if not sizes:
        return chapter("sizes", "Sizes and levels", paragraph("There are no objects to tell by."))
    bars = [
        (f"{each['from']}-{each['to']} px", each["found"] / each["objects"], f"{each['found']} of {each['objects']}")
        for each in sizes
        if each["objects"]
    ]
    chart = share_bars("Objects found, by size", "; ".join(f"{name}: {told}" for name, _, told in bars), bars)
    rows = [
        (
            size,
            grade(numbers[f"ap_{size}"]),
            _interval((figures["intervals"] or {}).get(f"ap_{size}")),
            grade(numbers[f"ar_{size}"]),
        )
        for size in ("small", "medium", "large")
    ]
    return chapter(
        "sizes",
        "Sizes and levels",
        note("Size: the root of an object's area in pixels. Found: at the thresholds in use."),
        grid(
            [
                figure(chart, "Objects found, by size"),
                table("AP and recall by size", ("<size", "AP", "95 % interval", "AR"), rows),
            ]
        ),
        _levels(budget),
    )


def _levels(budget: ReportFigures) -> Markup:
    if not budget["found"]:
        return note(f"Levels of the pyramid are told by the error budget, which is not here: {budget['why']}.")
    lost: dict[str, int] = {}
    for line in budget["stages"]:
        for level, each in line["by_level"].items():
            lost[level] = lost.get(level, 0) + each["count"]
    rows = [
        (foreign(level), number, lost.get(level, 0), share(lost.get(level, 0) / number))
        for level, number in budget["objects_by_level"].items()
        if number
    ]
    return table(
        f"By level of the pyramid, objects lost at a score of {budget['threshold']:.2f}",
        ("<level of its size", "objects", "lost", "share"),
        rows,
    )


def budget_chapter(figures: ReportFigures) -> Chapter:
    """What is lost where, and what it costs."""
    budget = figures["budget"]
    if not budget["found"]:
        return chapter("budget", "Where objects are lost", paragraph(f"Not part of this report: {budget['why']}."))
    return chapter(
        "budget",
        "Where objects are lost",
        note(
            f"Each object without a detection of its class of {budget['threshold']:.2f} or more (the middle of the "
            "thresholds in use) is traced to the stage that lost it. AP points, hundredths of AP: what would come back "
            "if that stage did its part, in the AP of these detections alone. Stages overlap: points don't add up. "
            "misses.csv and false_alarms.csv beside this page list them; fpn diagnose --draw draws them."
        ),
        table(
            f"{budget['lost']} of {budget['objects']} objects are lost",
            ("<where", "objects", *_COSTS),
            _lines(budget["stages"]),
        )
        if budget["lost"]
        else paragraph("No object is lost."),
        table(
            f"{counted(budget['false_alarms'], 'detection')} found nothing",
            ("<what is wrong", "count", *_COSTS),
            _lines(budget["kinds"]),
        )
        if any(line["count"] for line in budget["kinds"])
        else paragraph("Nothing is found in vain."),
    )


def _lines(lines: Sequence[ReportFigures]) -> Iterator[Sequence[object]]:
    for line in sorted(lines, key=lambda each: -float(each["points"])):
        if line["count"]:
            yield (line["title"], line["count"], share(line["share"]), f"{line['points']:+z.1f}", line["remedy"])


# In the order of the page.
MEASURED: Sequence[Callable[[ReportFigures], Chapter]] = (
    verdict_chapter,
    precision_chapter,
    thresholds_chapter,
    confusion_chapter,
    calibration_chapter,
    sizes_chapter,
    budget_chapter,
)
