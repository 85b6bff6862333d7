"""The page of settings: every field of every checked configuration, with its default, range and meaning."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from inspect import get_annotations
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from docs_tools.blocks import ROOT
from docs_tools.markdown import cell, code, table

_SOURCE = ROOT / "src"
_ROOTS = ("Section", "CheckedSettings")
_HEAD = """\
# Settings

Every value that can be set, with its default, what may stand there, and what it means. An unknown name, another type
or a value out of range is an error that says the nearest name and what may stand there.

The settings of a run, its data and its detector (the first tables) are the options of `fpn train`; in a settings file
(`fpn train --config FILE.toml`) and in Python they have the same names, with hyphens or underscores in the file. The
*sections* of a detector (the later tables) are its conventions; their defaults here are those of the section alone, and
[Dialects](../dialects.md) has those of every toolkit. One is changed by its path: `--set rpn.nms=0.6`, `[rpn]` in a
file, `rpn_nms=0.6` in Python.

```toml
data = "cells"
epochs = 24
learning-rate = 0.0002

[rpn]
nms = 0.6
```
"""


@cache
def classes() -> dict[str, type[BaseModel]]:
    """Every checked configuration of the package by its full name, in the order of the source, the command's first."""
    bases: dict[str, list[str]] = {}
    where: dict[str, str] = {}
    for path in sorted((_SOURCE / "fpn").rglob("*.py")):
        module = ".".join(path.relative_to(_SOURCE).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [ast.unparse(base).partition("[")[0] for base in node.bases]
                where[node.name] = module
    names = [name for name in bases if name not in _ROOTS and _derives(name, bases)]
    first = sorted(names, key=lambda name: (where[name] not in ("fpn.cli.options", "fpn.training.config"), where[name]))
    return {f"{where[name]}.{name}": getattr(import_module(where[name]), name) for name in first}


def _derives(name: str, bases: dict[str, list[str]]) -> bool:
    return any(base in _ROOTS or _derives(base, bases) for base in bases.get(name, []))


def settings_page() -> str:
    """The page."""
    lines = [_HEAD]
    for name, kind in classes().items():
        own = {field: info for field, info in kind.model_fields.items() if field in _own_fields(kind)}
        lines += [f"## {kind.__name__}", "", f"{cell((kind.__doc__ or '').split(chr(10) * 2)[0])} ({code(name)})", ""]
        lines += _inherited(kind)
        if own:
            head = ("name", "default", "what may stand there", "meaning")
            lines += table(head, (_row(*each) for each in own.items()))
    return "\n".join(lines)


def _own_fields(kind: type[BaseModel]) -> set[str]:
    """Fields that a class declares itself, or declares anew."""
    return set(get_annotations(kind))


def _inherited(kind: type[BaseModel]) -> list[str]:
    bases = [base for base in kind.__bases__ if base in classes().values()]
    links = ", ".join(f"[{base.__name__}](#{base.__name__.lower()})" for base in bases)
    return [f"Also has all of {links}.", ""] if links else []


def _row(name: str, info: FieldInfo) -> tuple[str, str, str, str]:
    return code(name), _default(info), cell("; ".join(_range(info))), cell(info.description or _sentence(info))


def _sentence(info: FieldInfo) -> str:
    """What a field without a description is: a section of its own."""
    kind = info.annotation
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        raise ValueError(f"{info}: is no section, and says nothing of itself: give it a description")
    return f"The section {_type(info.annotation)}, below."


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True) if info.default_factory is None else None
    if info.default_factory is not None:
        value = info.default_factory()  # type: ignore[call-arg]
    if value is PydanticUndefined:
        return "(needed)"
    if isinstance(value, BaseModel):
        return cell(f"as {type(value).__name__}")
    return code(_shown(value))


def _shown(value: Any) -> str:
    return f"({', '.join(map(_shown, value))})" if isinstance(value, tuple) else str(value)


def _range(info: FieldInfo) -> Iterator[str]:
    yield _type(info.annotation)
    for limit in info.metadata:
        for sign, word in (("ge", "from"), ("gt", "above"), ("le", "up to"), ("lt", "below")):
            value = getattr(limit, sign, None)
            if value is not None:
                yield f"{word} {value}"


def _type(annotation: Any) -> str:
    """A type in words, with ranges that it carries."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " or ".join(_type(each) for each in inner)
    if origin is Annotated:
        limits = [text for each in inner[1:] for text in _limits(each)]
        return " ".join([_type(inner[0]), *limits])
    if origin is tuple:
        if len(inner) == 2 and inner[1] is Ellipsis:
            return f"any number of ({_type(inner[0])})"
        return f"({', '.join(map(_type, inner))})"
    names = {int: "whole number", float: "number", bool: "yes or no", str: "text", type(None): "None"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _limits(info: Any) -> Iterator[str]:
    for limit in getattr(info, "metadata", [info]):
        for sign, word in (("ge", "from"), ("gt", "above"), ("le", "up to"), ("lt", "below")):
            value = getattr(limit, sign, None)
            if value is not None:
                yield f"{word} {value}"
