"""The page of errors: every class, every finding of `fpn check`, and every message in the source."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

from docs_tools.blocks import ROOT
from docs_tools.markdown import cell, code, table
from fpn import errors
from fpn.data.issues import KINDS

_SOURCE = ROOT / "src" / "fpn"
_HEAD = """\
# Errors

Whatever is wrong with what you gave or with what is around it, `fpn` raises one of the classes below, before any
work is lost. Each is an `FpnError` and also Python's own error that fits, so that either can be caught. The command
line prints the message without a traceback and ends with status 1 (2: the command was misused; 130: stopped by
Ctrl-C; 143: by SIGTERM). Any other exception is a fault of `fpn`: please report it with the output of `fpn doctor`.
"""


@cache
def error_classes() -> dict[str, type[errors.FpnError]]:
    """Every class of error, the root first."""
    found = {name: each for name, each in vars(errors).items() if isinstance(each, type)}
    return {name: each for name, each in found.items() if issubclass(each, errors.FpnError)}


@cache
def messages() -> dict[str, dict[str, list[str]]]:
    """Class of error -> subpackage -> messages, with ... where a value stands."""
    found: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(_SOURCE.rglob("*.py")):
        part = path.relative_to(_SOURCE).with_suffix("").parts
        where = f"fpn.{part[0]}"
        for name, message in _raised(ast.parse(path.read_text(encoding="utf-8"))):
            if message not in found[name][where]:
                found[name][where].append(message)
    return {name: dict(by) for name, by in found.items()}


def _raised(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Name of the error and message of each `raise` and each error that is made, in the order of the source."""
    for node in ast.walk(module):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
            continue
        if node.func.id in error_classes():
            message = _text(node.args[0])
            if len(message.replace("...", "").split()) > 1:
                yield node.func.id, message


def _text(node: ast.expr) -> str:
    """A message as it stands in the source; what is put into it is ..."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return "..."


def errors_page() -> str:
    """The page."""
    lines = [_HEAD, "## Classes", ""]
    rows = []
    for name, each in error_classes().items():
        also = ", ".join(base.__name__ for base in each.__bases__ if base not in (errors.FpnError,))
        rows.append((code(f"fpn.errors.{name}"), also, cell(each.__doc__ or "")))
    lines += table(("class", "is also", "when"), rows)
    lines += [
        "## What `fpn check` finds",
        "",
        "An *error* stops training, or makes it learn or measure something wrong.",
        "",
    ]
    found = (
        (code(name), kind.severity, cell(kind.title), cell(kind.remedy), cell(kind.repair))
        for name, kind in KINDS.items()
    )
    lines += table(("kind", "severity", "what", "what to do", "what `--fix` does"), found)
    lines += [
        "## Messages",
        "",
        "Each with its remedy, as it stands in the source; `...` is where a value is put: a name, a file, a number.",
        "",
    ]
    for name, by in sorted(messages().items()):
        lines += [f"### {name}", ""]
        for where, texts in by.items():
            lines += [f"**{where}**", "", *(f"- {cell(text)}" for text in texts), ""]
    return "\n".join(lines)
