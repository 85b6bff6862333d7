"""Settings that are written as Python, read as data: literals, `dict(...)`, lists and names given before."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from fpn.errors import ConfigError

_LONGEST, _DEEPEST = 1_000_000, 60
# What stands for an expression that is no data, such as a call.
UNKNOWN = object()


def read_assignments_of(text: str, where: str) -> dict[str, Any]:
    """Names and values of `name = value` lines; nothing is run. What is no data has the value `UNKNOWN`.

    Raises:
        ConfigError: it is no Python, or far too long or deep.
    """
    if len(text) > _LONGEST:
        raise ConfigError(f"{where}: {len(text)} letters of settings; {_LONGEST} are read")
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{where}: its settings are no Python ({str(error)[:200]})") from None
    found: dict[str, Any] = {}
    for line in tree.body:
        if isinstance(line, ast.Assign) and len(line.targets) == 1 and isinstance(line.targets[0], ast.Name):
            found[line.targets[0].id] = _value(line.value, found, 0, where)
    return found


def _value(node: ast.expr, known: Mapping[str, Any], depth: int, where: str) -> Any:
    if depth > _DEEPEST:
        raise ConfigError(f"{where}: its settings are nested more than {_DEEPEST} deep")

    def inner(each: ast.expr) -> Any:
        return _value(each, known, depth + 1, where)

    match node:
        case ast.Constant(value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value)) if isinstance(value, int | float):
            return -value
        case ast.List(elts) | ast.Tuple(elts) | ast.Set(elts):
            return [inner(each) for each in elts]
        case ast.Dict(keys, values):
            return {_key(key): inner(each) for key, each in zip(keys, values, strict=True)}
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            return {each.arg or "": inner(each.value) for each in keywords}
        case ast.Name(id=name):
            return known.get(name, UNKNOWN)
    return UNKNOWN


def _key(node: ast.expr | None) -> Any:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str | int) else ""
