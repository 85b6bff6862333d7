"""What the fields of a dialect mean, and who differs in which. The source of every meaning is the field's docstring."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from fpn.detectors.dialect import Dialect
from fpn.detectors.toolkits import DIALECTS
from fpn.studies.explain.geometry import is_pyramid_only
from fpn.studies.tables import TextTable

# The identity of a dialect, not a convention.
_IDENTITY = ("name", "source")
# What a pyramid without a detector has conventions about.
_PYRAMID_SECTIONS = ("bottom-up path", "pyramid")
_SECTION = re.compile(r"\s*# --- (.+?) -+$")


@dataclass(frozen=True)
class Convention:
    """A field of `Dialect`.

    Attributes:
        name: of the field.
        section: the part of the detector that it is about.
        meaning: its docstring, as one line.
    """

    name: str
    section: str
    meaning: str


@cache
def conventions() -> tuple[Convention, ...]:
    """All fields in the order of the class, read from its source."""
    source = inspect.getsource(Dialect)
    [body] = [node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    found = []
    for node, behind in itertools.pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if node.target.id in _IDENTITY:
                continue
            section = _section(source.splitlines()[: node.lineno])
            found.append(Convention(node.target.id, section, _docstring(behind, node.target.id)))
    return tuple(found)


def _docstring(node: ast.stmt, field: str) -> str:
    """The string below a field, as one line."""
    value = node.value if isinstance(node, ast.Expr) else None
    assert isinstance(value, ast.Constant), f"Dialect.{field} has no docstring"
    return " ".join(str(value.value).split())


def _section(lines: list[str]) -> str:
    """The last heading above."""
    [*_, last] = [match.group(1) for match in map(_SECTION.match, lines) if match]
    return last


def differences(one: Dialect, other: Dialect) -> TextTable:
    """The fields in which two dialects differ, each with its meaning."""
    shared = [each for each in conventions() if _concerns(one, each.section) and _concerns(other, each.section)]
    rows = [
        (_with_meaning(each), written(getattr(one, each.name)), written(getattr(other, each.name)))
        for each in shared
        if getattr(one, each.name) != getattr(other, each.name)
    ]
    names = (one.name, other.name) if one.name != other.name else (f"{one.name} here", other.name)
    return TextTable(
        title=f"{names[0]} and {names[1]} differ in {len(rows)} of {len(shared)} conventions",
        columns=("convention", *names),
        rows=tuple(rows),
    )


def whole(dialect: Dialect) -> list[TextTable]:
    """All fields of one dialect, a sheet a section."""
    return [
        TextTable(
            title=section,
            columns=("convention", dialect.name),
            rows=tuple((_with_meaning(each), written(getattr(dialect, each.name))) for each in fields),
        )
        for section, fields in _by_section()
        if _concerns(dialect, section)
    ]


def compared(dialects: Iterable[Dialect] = tuple(DIALECTS.values())) -> list[TextTable]:
    """Who follows which convention: for each field its values, and for each value the dialects; a sheet a section."""
    dialects = tuple(dialects)
    return [
        TextTable(
            title=section,
            columns=("convention", "value: dialects"),
            rows=tuple(
                (_with_meaning(each), _who(each.name, [d for d in dialects if _concerns(d, section)]))
                for each in fields
            ),
        )
        for section, fields in _by_section()
    ]


def sources(dialects: Iterable[Dialect] = tuple(DIALECTS.values())) -> TextTable:
    """Where each dialect's values were read."""
    rows = tuple((dialect.name, dialect.source) for dialect in dialects)
    return TextTable(title="The dialects", columns=("dialect", "where its values were read"), rows=rows)


def _concerns(dialect: Dialect, section: str) -> bool:
    return section in _PYRAMID_SECTIONS or not is_pyramid_only(dialect)


def _by_section() -> list[tuple[str, list[Convention]]]:
    names = list(dict.fromkeys(each.section for each in conventions()))
    return [(name, [each for each in conventions() if each.section == name]) for name in names]


def _with_meaning(convention: Convention) -> str:
    return f"{convention.name}\n{convention.meaning}"


def _who(field: str, dialects: Iterable[Dialect]) -> str:
    """One line a value, the one that most dialects share first."""
    by_value: dict[str, list[str]] = {}
    for dialect in dialects:
        by_value.setdefault(written(getattr(dialect, field)), []).append(dialect.name)
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
        (`fpn.faster_rcnn(dialect="detectron2")`, `fpn train --dialect detectron2`), and any field can be changed.

        This page is made by `fpn explain --dialects --markdown > docs/dialects.md`. Its source is
        `src/fpn/detectors/dialects.py`, docstrings included; a test fails when the page is older than that. Two
        dialects side by side: `fpn explain --dialect torchvision --against detectron2`.

        `pytorch_fpn` and `minimal` are pyramids without a detector: they appear only where pyramids are concerned."""
    )
