"""What the fields of a dialect mean, and who differs in which. Every meaning is declared with its setting."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache

from fpn.detectors.dialect import Dialect, TwoStageDialect
from fpn.detectors.presets import DIALECTS_OF
from fpn.detectors.toolkits import DIALECTS
from fpn.sections import options_of
from fpn.studies.explain.geometry import is_pyramid_only
from fpn.studies.tables import TextTable

# What a pyramid without a detector has conventions about.
_PYRAMID_SECTIONS = ("backbone", "neck")


@dataclass(frozen=True)
class Convention:
    """A setting of a dialect.

    Attributes:
        path: its name, behind its section's.
        section: the part of the detector that it is about.
        meaning: what it decides, in one line.
    """

    path: str
    section: str
    meaning: str

    def of(self, dialect: Dialect) -> object:
        """What the dialect has there."""
        value: object = dialect
        for name in self.path.split("."):
            value = getattr(value, name)
        return value


@cache
def conventions(kind: type[Dialect] = TwoStageDialect) -> tuple[Convention, ...]:
    """All settings of a kind of detector's dialects, in order."""
    options = (option for option in options_of(kind) if "." in option.path)
    return tuple(Convention(each.path, each.path.split(".")[0], each.meaning) for each in options)


def differences(one: Dialect, other: Dialect) -> TextTable:
    """The fields in which two dialects of one kind of detector differ, each with its meaning."""
    known = conventions(type(one))
    shared = [each for each in known if _concerns(one, each.section) and _concerns(other, each.section)]
    rows = [
        (_with_meaning(each), written(each.of(one)), written(each.of(other)))
        for each in shared
        if each.of(one) != each.of(other)
    ]
    names = (one.name, other.name) if one.name != other.name else (f"{one.name} here", other.name)
    return TextTable(
        title=f"{names[0]} and {names[1]} differ in {len(rows)} of {len(shared)} conventions",
        columns=("convention", *names),
        rows=tuple(rows),
    )


def whole(dialect: Dialect) -> list[TextTable]:
    """All fields of one dialect, a table a section."""
    return [
        TextTable(
            title=_title(type(dialect), section),
            columns=("convention", dialect.name),
            rows=tuple((_with_meaning(each), written(each.of(dialect))) for each in fields),
        )
        for section, fields in _by_section(type(dialect))
        if _concerns(dialect, section)
    ]


def compared(dialects: Iterable[Dialect] = tuple(DIALECTS.values())) -> list[TextTable]:
    """Who follows which convention: for each field its values, and for each value the dialects; a table a section."""
    dialects = tuple(dialects)
    kind = type(dialects[0])
    return [
        TextTable(
            title=_title(kind, section),
            columns=("convention", "value: dialects"),
            rows=tuple(
                (_with_meaning(each), _who(each, [d for d in dialects if _concerns(d, section)])) for each in fields
            ),
        )
        for section, fields in _by_section(kind)
    ]


def compared_kinds() -> list[TextTable]:
    """`compared` of Faster R-CNN, and of every other kind of detector the sections that are not as Faster R-CNN's or as
    those of a kind before it."""
    tables = compared()
    told: list[TextTable] = []
    for kind, dialects in DIALECTS_OF.items():
        if kind == "faster_rcnn":
            continue
        own = [table for table in compared(dialects.values()) if _is_own(table.title.partition(":")[0], dialects)]
        own = [table for table in own if table not in told]
        told += own
        named = [replace(sources(dialects.values()), title="the dialects"), *own]
        tables += [replace(table, title=f"{kind}, {table.title}") for table in named]
    return tables


def _is_own(section: str, dialects: Mapping[str, Dialect]) -> bool:
    """Whether it is a section that Faster R-CNN lacks, or a toolkit has it otherwise there."""
    same = [(each, DIALECTS[name]) for name, each in dialects.items() if name in DIALECTS]
    return any(getattr(each, section) != getattr(other, section, None) for each, other in same)


def sources(dialects: Iterable[Dialect] = tuple(DIALECTS.values())) -> TextTable:
    """Where each dialect's values were read."""
    rows = tuple((dialect.name, dialect.source) for dialect in dialects)
    return TextTable(title="The dialects", columns=("dialect", "where its values were read"), rows=rows)


def _title(kind: type[Dialect], section: str) -> str:
    """A section's name and what it is about."""
    return f"{section}: {kind.model_fields[section].description}"


def _concerns(dialect: Dialect, section: str) -> bool:
    return section in _PYRAMID_SECTIONS or not is_pyramid_only(dialect)


def _by_section(kind: type[Dialect]) -> list[tuple[str, list[Convention]]]:
    names = list(dict.fromkeys(each.section for each in conventions(kind)))
    return [(name, [each for each in conventions(kind) if each.section == name]) for name in names]


def _with_meaning(convention: Convention) -> str:
    return f"{convention.path}\n{convention.meaning}"


def _who(convention: Convention, dialects: Iterable[Dialect]) -> str:
    """One line a value, the one that most dialects share first."""
    by_value: dict[str, list[str]] = {}
    for dialect in dialects:
        by_value.setdefault(written(convention.of(dialect)), []).append(dialect.name)
    if len(by_value) == 1:
        return f"{next(iter(by_value))}: all"
    ordered = sorted(by_value.items(), key=lambda item: -len(item[1]))
    return "\n".join(f"{value}: {', '.join(names)}" for value, names in ordered)


def written(value: object) -> str:
    """A field's value as text: 0.7, (10, 10, 5, 5), 32 64 128."""
    if isinstance(value, tuple) and all(isinstance(part, tuple) for part in value):
        return " ".join(written(part) if len(part) > 1 else written(part[0]) for part in value)
    if isinstance(value, tuple):
        return f"({', '.join(map(written, value))})"
    if isinstance(value, float):
        return f"{value:.7g}"
    return str(value)


def introduction() -> str:
    """The words at the head of docs/dialects.md."""
    return textwrap.dedent(
        """\
        # Dialects

        Toolkits that all implement Feature Pyramid Networks differ in the conventions below, and that is why weights
        do not travel between them. A detector of `fpn` is built from one of these dialects
        (`fpn.faster_rcnn(dialect="detectron2")`, `fpn train --dialect detectron2`), and any setting can be changed.

        This page is made by `fpn explain --dialects --markdown > docs/dialects.md`: values from
        `src/fpn/detectors/toolkits.py`, meanings from the section of each part. A test fails when the page is older
        than those. Two dialects side by side: `fpn explain --dialect torchvision --against detectron2`. A setting is
        changed by its name: `--set roi.sampler=pool` on the command line, `[roi]` in a TOML file,
        `fpn.faster_rcnn(roi_sampler="pool")` in Python.

        First come the dialects of Faster R-CNN, then of every other kind of detector what is not as there or as in a
        kind before it (cascade_mask_rcnn has the sections of cascade_rcnn); kinds are chosen with `--detector`.

        `pytorch_fpn` and `minimal` are pyramids without a detector: they appear only where pyramids are concerned."""
    )
