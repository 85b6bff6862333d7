"""The chapters of the page about where the figures come from: training, data, model, machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fpn.studies.markup import Markup, join_markup
from fpn.studies.report.chapters import ReportFigures
from fpn.studies.report.charts import SERIES, ChartLine, axis_of, figure, line_chart, share_axis
from fpn.studies.report.elements import Chapter, chapter, fold_away, foreign, grid, note, paragraph, table
from fpn.studies.report.verdict import share
from fpn.wording import counted


def training_chapter(figures: ReportFigures) -> Chapter:
    """The course of the training."""
    course = figures["training"]
    if not course["found"]:
        return chapter("training", "Training", paragraph(f"No training curves: {course['why']}."))
    charts = [*_loss_charts(course["steps"]), *_epoch_charts(course["epochs"])]
    empty = paragraph("Its log holds no curves yet.") if not charts else None
    without = note("Nothing was measured while it trained.") if charts and not course["epochs"] else None
    return chapter("training", "Training", grid(charts) if charts else None, empty, without)


def _loss_charts(steps: Sequence[ReportFigures]) -> Iterator[Markup]:
    if len(steps) < 2:
        return
    x = axis_of("step", [float(each["step"]) for each in steps], snug=True)
    for key, title in (("loss", "Loss"), ("learning_rate", "Learning rate")):
        points = [(float(each["step"]), float(each[key])) for each in steps if key in each]
        if len(points) > 1:
            values = [value for _, value in points]
            said = f"From {values[0]:.3g} at step {points[0][0]:g} to {values[-1]:.3g} at step {points[-1][0]:g}."
            chart = line_chart(title, said, [ChartLine(title, points)], x, axis_of("", values, from_zero=True))
            yield figure(chart, f"{title} by step")


def _epoch_charts(epochs: Sequence[ReportFigures]) -> Iterator[Markup]:
    if len(epochs) < 2:
        return
    measured = [key for key in ("ap", "ap50", "mask_ap", "keypoint_ap") if all(key in each for each in epochs)]
    lines = [
        ChartLine(
            key.replace("_", " ").replace("ap", "AP"),
            [(float(each["epoch"]), max(float(each[key]), 0.0)) for each in epochs],
            series,
        )
        for series, key in enumerate(measured[:SERIES])
    ]
    if lines:
        last = "; ".join(f"{line.name} {line.points[-1][1]:.3f} after epoch {line.points[-1][0]:g}" for line in lines)
        x = axis_of("epoch", [float(each["epoch"]) for each in epochs], snug=True)
        yield figure(line_chart("AP by epoch", last, lines, x, share_axis("")), "Measured after each epoch")


def data_chapter(figures: ReportFigures) -> Chapter:
    """What the images are, and what fpn check says of them."""
    data, check = figures["dataset"], figures["check"]
    rows = [
        (foreign(each["class"]), each["objects"], share(each["share_of_images"]))
        for each in sorted(data["classes"], key=lambda each: -each["objects"])
    ]
    unread = [(foreign(path), why) for path, why in data["unreadable"].items()]
    return chapter(
        "data",
        "The data",
        paragraph(foreign(data["name"]), f": {data['in_words']}."),
        table("Classes, the commonest first", ("<class", "objects", "in images"), rows),
        table("Images that can't be read", ("<image", "<why"), unread) if unread else None,
        _findings(check),
    )


def _findings(check: ReportFigures) -> Markup:
    if not check["found"]:
        return note(f"The whole dataset was not checked: {check['why']}. fpn check DATA does it.")
    if not check["findings"]:
        return paragraph("fpn check finds nothing wrong in the whole dataset.")
    rows = [(kind["severity"], kind["count"], kind["what"], kind["remedy"]) for kind in check["findings"]]
    splits = ", ".join(f"{name} ({counted(each['images'], 'image')})" for name, each in check["splits"].items())
    return join_markup(
        [
            table("What fpn check finds in the whole dataset", ("<kind", "count", "<what", "<what helps"), rows),
            note("Splits: ", splits, "."),
        ]
    )


def model_chapter(figures: ReportFigures) -> Chapter:
    """What the model is made of."""
    model = figures["model"]
    recipe = {key: value for key, value in model["recipe"].items() if key not in ("classes", "category_ids", "dialect")}
    rows = _plain(recipe)
    rows += [("weights", f"{model['parameters']:,}"), ("classes", str(len(model["classes"])))]
    learned = model["trained_on"]
    if learned.get("name"):
        rows.append(("trained on", f"{learned['name']}, {counted(learned['images'], 'image')}"))
    rows += [
        (f"trained for ({key}s)", str(model["trained"][key])) for key in ("epoch", "step") if key in model["trained"]
    ]
    sections = {part: values for part, values in model["recipe"]["dialect"].items() if isinstance(values, Mapping)}
    dialect = [row for part, values in sections.items() for row in _by_path(part, values)]
    return chapter(
        "model",
        "The model",
        table("What it is made of", ("<setting", "<value"), rows),
        _plan(model["plan"]),
        fold_away(
            "Settings of its training", table("Settings", ("<setting", "<value"), _plain(model["config"]), fold=False)
        )
        if model["config"]
        else None,
        fold_away("All its conventions", table("Conventions", ("<setting", "<value"), dialect, fold=False)),
    )


def _by_path(path: str, values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """All settings of a section and of those within it, by their names' whole paths."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        inner = f"{path}.{name}"
        rows += _by_path(inner, value) if isinstance(value, Mapping) else [(inner, _said(value))]
    return rows


def _plain(settings: ReportFigures) -> list[tuple[str, str]]:
    return [(key.replace("_", " "), _said(value)) for key, value in settings.items()]


def _said(value: object) -> str:
    """As people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value))
    return "-" if value is None else str(value)


def _plan(plan: ReportFigures | None) -> Markup | None:
    """What the recipe chose, and why."""
    if not isinstance(plan, Mapping) or not isinstance(plan.get("settings"), Mapping):
        return None
    rows = [
        (key.replace("_", " "), _said(each.get("value")), "given" if each.get("given") else str(each.get("reason", "")))
        for key, each in plan["settings"].items()
        if isinstance(each, Mapping)
    ]
    caption = f"Recipe {plan.get('recipe')}: {plan.get('because')}"
    return table(caption, ("<setting", "<value", "<why"), rows) if rows else paragraph(f"{caption}.")


def speed_chapter(figures: ReportFigures) -> Chapter:
    """How fast it was here."""
    speed = figures["speed"]
    machine = speed["machine"]
    rows = _plain(machine)
    return chapter(
        "speed",
        "Speed",
        paragraph(
            f"{counted(speed['images'], 'image')} in {speed['seconds']:.1f} s: {speed['images_per_second']:.2g} images "
            f"a second, reading, detecting and counting together, {speed['batch_size']} at once. Measured while this "
            "report was made, on this machine, with whatever else it did: a rough figure; fpn benchmark measures "
            "carefully."
        ),
        note(f"Network: {speed['network']}."),
        table("The machine", ("<what", "<value"), rows, fold=False),
    )


# In the order of the page.
BACKGROUND: Sequence[Callable[[ReportFigures], Chapter]] = (
    training_chapter,
    data_chapter,
    model_chapter,
    speed_chapter,
)
