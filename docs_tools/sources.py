"""Code that a page shows is the code of the tree: found by name, so that a change can't leave the page behind."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

from docs_tools.blocks import ROOT, Block, read_blocks

SOURCE = ROOT / "src"


def code_of(name: str) -> str:
    """The source of a function, class or method, without its docstring but for the first line.

    Args:
        name: such as fpn.ops.boxes.box_area or fpn.heads.rpn.Rpn.forward.

    Raises:
        LookupError: there is none of that name.
    """
    path, inner = _module(name)
    text = path.read_text(encoding="utf-8")
    node: ast.AST = ast.parse(text)
    for part in inner:
        node = _member(node, part, name)
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    lines = text.splitlines()[first - 1 : node.end_lineno]
    docstring = node.body[0]
    if isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant) and docstring.end_lineno:
        start, end = docstring.lineno - first, docstring.end_lineno - first
        if end > start:
            lines[start : end + 1] = [f'{lines[start].rstrip()}"""']
    return textwrap.dedent("\n".join(lines)) + "\n"


def _module(name: str) -> tuple[Path, list[str]]:
    """The longest part of a dotted name that is a file, and the rest."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = SOURCE.joinpath(*parts[:length]).with_suffix(".py")
        if path.is_file():
            return path, parts[length:]
    raise LookupError(f"{name}: no such module in src/")


def _member(node: ast.AST, part: str, name: str) -> ast.AST:
    for each in getattr(node, "body", []):
        if isinstance(each, ast.FunctionDef | ast.ClassDef) and each.name == part:
            return each
    raise LookupError(f"{name}: {part} is not defined there")


def code_blocks(page: Path) -> list[Block]:
    """Blocks of a page that show code of the tree."""
    return [block for block in read_blocks(page) if block.mark("code of ") is not None]


def refresh_code(page: Path) -> int:
    """Write the code that a page shows anew; gives how many blocks changed."""
    changed = 0
    for block in reversed(code_blocks(page)):
        now = code_of(block.mark("code of ") or "")
        if now != block.text:
            lines = page.read_text(encoding="utf-8").splitlines()
            lines[block.line : block.line + len(block.text.splitlines())] = now.splitlines()
            page.write_text("\n".join(lines) + "\n", encoding="utf-8")
            changed += 1
    return changed
