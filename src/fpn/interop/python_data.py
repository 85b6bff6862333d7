"""Settings that are written as Python, read as data: literals, `dict(...)`, lists and names given before."""

from __future__ import annotations

import ast
from typing import Any

from fpn.errors import ConfigError

_LONGEST, _DEEPEST = 300_000, 60
# Values, each counted as often as a name refers to it.
_MOST = 100_000
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
    found = _Assignments(where)
    for line in tree.body:
        if isinstance(line, ast.Assign) and len(line.targets) == 1 and isinstance(line.targets[0], ast.Name):
            found.assign(line.targets[0].id, line.value)
    return found.known


class _Assignments:
    def __init__(self, where: str) -> None:
        self.where = where
        self.known: dict[str, Any] = {}
        # How many values a name is, and how many were read.
        self._sizes: dict[str, int] = {}
        self._count = 0

    def assign(self, name: str, node: ast.expr) -> None:
        before = self._count
        self.known[name] = self._value(node, 0)
        self._sizes[name] = self._count - before

    def _value(self, node: ast.expr, depth: int) -> Any:
        self._count += self._sizes.get(node.id, 1) if isinstance(node, ast.Name) else 1
        if depth > _DEEPEST or self._count > _MOST:
            raise ConfigError(
                f"{self.where}: its settings are nested more than {_DEEPEST} deep, or are more than {_MOST} values"
            )
        match node:
            case ast.Constant(value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value)) if isinstance(value, int | float):
                return -value
            case ast.List(elts) | ast.Tuple(elts) | ast.Set(elts):
                return [self._value(each, depth + 1) for each in elts]
            case ast.Dict(keys, values):
                return {_key(key): self._value(each, depth + 1) for key, each in zip(keys, values, strict=True)}
            case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
                return {each.arg or "": self._value(each.value, depth + 1) for each in keywords}
            case ast.Name(id=name):
                return self.known.get(name, UNKNOWN)
        return UNKNOWN


def _key(node: ast.expr | None) -> Any:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str | int) else ""
