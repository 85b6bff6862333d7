"""A diagnosis as tables for people, and as JSON and CSV for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from fpn.files import write_figures
from fpn.spreadsheets import write_csv
from fpn.studies.diagnosis.budget import SIZE_NAMES, BudgetLine
from fpn.studies.diagnosis.diagnosis import Diagnosis, FalseAlarm, Miss
from fpn.studies.tables import TextTable
from fpn.wording import counted

# Stages or kinds that a row of a class or level names.
_NAMED = 3
_LEVEL = "level of its size"


def diagnosis_tables(found: Diagnosis) -> list[TextTable]:
    """Stages, false alarms, and both by class and by level."""
    tables = [_stages(found)]
    if found.misses:
        tables.append(_groups("Lost objects by class", "class", found.per_class, found.stages, "by_class"))
        tables.append(_groups("Lost objects by level", _LEVEL, found.per_level, found.stages, "by_level"))
    tables.append(_kinds(found))
    if found.alarms:
        kinds = found.kinds[:-1]  # the last one is about lost objects
        tables.append(_groups("False alarms by class", "class", found.per_class, kinds, "by_class"))
        tables.append(_groups("False alarms by level", _LEVEL, found.per_level, kinds, "by_level"))
    return tables


def _stages(found: Diagnosis) -> TextTable:
    lost, all_ = len(found.misses), found.objects
    return TextTable(
        title=f"{all_ - lost} of {all_} objects are found in {counted(found.images, 'image')}, {lost} are lost",
        columns=("where it was lost", ">lost", ">share", ">AP points", *(f">{name}" for name in SIZE_NAMES)),
        rows=tuple(_row(line, sized=True) for line in found.stages if line.count)
        or (("nothing is lost", "", "", "", "", "", ""),),
        notes=(
            f"Found: by a detection of its class with a score of {found.threshold:g} or more and IoU 0.5. AP of these "
            f"detections: {_grade(found.now.ap)}, at IoU 0.5: {_grade(found.now.ap50)}.",
            "AP points, hundredths of AP: what would come back if the stage did its part for the objects that it "
            "lost, and the rest went on from there. Stages overlap, so that points do not add up.",
        ),
    )


def _grade(ap: float) -> str:
    """Below 0 where there was nothing to measure."""
    return "-" if ap < 0 else f"{ap:.3f}"


def _kinds(found: Diagnosis) -> TextTable:
    return TextTable(
        title=f"{counted(len(found.alarms), 'detection')} found nothing",
        columns=("what is wrong", ">count", ">share", ">AP points"),
        rows=tuple(_row(line, sized=False) for line in found.kinds if line.count)
        or (("nothing is found in vain", "", "", ""),),
        notes=("Kinds and repairs of TIDE (arXiv:2008.08115); share of the missed: of all lost objects.",),
    )


def _row(line: BudgetLine, *, sized: bool) -> tuple[str, ...]:
    sizes = [str(line.by_size.get(name, (0, 0.0))[0] or "") for name in SIZE_NAMES] if sized else []
    return (f"{line.title}\n{line.remedy}", str(line.count), f"{line.share:.0%}", f"{line.points:+z.1f}", *sizes)


def _groups(
    title: str,
    column: str,
    objects: Mapping[str, int],
    lines: Sequence[BudgetLine],
    by: Literal["by_class", "by_level"],
) -> TextTable:
    """What each class or level has most of, with the points that it costs there."""
    parts: dict[str, list[tuple[int, float, str]]] = {name: [] for name in objects}
    for line in lines:
        for name, (count, points) in getattr(line, by).items():
            if count:
                parts.setdefault(name, []).append((count, points, line.title))
    rows = []
    for name, mine in parts.items():
        most = sorted(mine, key=lambda each: -each[0])[:_NAMED]
        named = ", ".join(f"{title} {count} ({points:+z.1f})" for count, points, title in most)
        rows.append((name, str(objects.get(name, 0)), str(sum(count for count, _, _ in mine)), named))
    return TextTable(
        title=title, columns=(column, ">objects", ">count", "mostly, with the points of its own AP"), rows=tuple(rows)
    )


def diagnosis_json(found: Diagnosis) -> dict[str, Any]:
    """All of it, JSON-able."""
    return {
        "dataset": found.dataset,
        "threshold": found.threshold,
        "images": found.images,
        "objects": found.objects,
        "lost": len(found.misses),
        "false_alarms": len(found.alarms),
        "ap": found.now.ap,
        "ap50": found.now.ap50,
        "objects_by_class": dict(found.per_class),
        "objects_by_level": dict(found.per_level),
        "stages": [line.to_dict() for line in found.stages],
        "kinds": [line.to_dict() for line in found.kinds],
        "misses": [_miss(miss) for miss in found.misses],
        "alarms": [asdict(alarm) for alarm in found.alarms],
        "unreadable": dict(found.unreadable),
    }


def save_diagnosis(found: Diagnosis, folder: Path) -> list[Path]:
    """Write diagnosis.json, budget.csv, misses.csv and false_alarms.csv, each whole or not at all.

    Raises:
        OutputError: one can't be written.
    """
    tables = {
        "budget.csv": (_BUDGET_COLUMNS, _budget_rows([*found.stages, *found.kinds])),
        "misses.csv": (_MISS_COLUMNS, map(_miss_row, found.misses)),
        "false_alarms.csv": (_ALARM_COLUMNS, map(_alarm_row, found.alarms)),
    }
    write_figures(folder / "diagnosis.json", "fpn diagnose", diagnosis_json(found))
    for name, (columns, rows) in tables.items():
        write_csv(folder / name, (dict(zip(columns, row, strict=True)) for row in rows), columns)
    return [folder / name for name in ("diagnosis.json", *tables)]


_BUDGET_COLUMNS = ("stage", "by", "group", "count", "ap_points")
_MISS_COLUMNS = ("image", "class", "stage", "reason", "level", "area", "x1", "y1", "x2", "y2")
_ALARM_COLUMNS = ("image", "class", "kind", "score", "x1", "y1", "x2", "y2")


def _budget_rows(lines: Sequence[BudgetLine]) -> Iterable[tuple[object, ...]]:
    for line in lines:
        yield line.name, "all", "all", line.count, round(line.points, 3)
        for by, groups in (("class", line.by_class), ("size", line.by_size), ("level", line.by_level)):
            for name, (count, points) in groups.items():
                yield line.name, by, name, count, round(points, 3)


def _miss(miss: Miss) -> dict[str, Any]:
    return {
        "image": miss.path,
        "image_id": miss.image_id,
        "class": miss.class_name,
        "area": miss.area,
        "stage": miss.lost.stage,
        "reason": miss.lost.reason,
        "level": miss.lost.level,
        "boxes": {mark.what: {"box": list(mark.box), "text": mark.text} for mark in miss.lost.marks},
    }


def _miss_row(miss: Miss) -> tuple[object, ...]:
    box = (round(value, 2) for value in miss.lost.marks[0].box)
    return (miss.path, miss.class_name, miss.lost.stage, miss.lost.reason, miss.lost.level, miss.area, *box)


def _alarm_row(alarm: FalseAlarm) -> tuple[object, ...]:
    box = (round(value, 2) for value in alarm.box)
    return (alarm.path, alarm.class_name, alarm.kind, round(alarm.score, 4), *box)
