"""Writes the pages of the reference, and those that repeat a file beside docs/.

python -m docs_tools.reference

A test compares each page with what would be written now.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from docs_tools.blocks import DOCS, ROOT
from docs_tools.error_pages import errors_page
from docs_tools.markdown import cell, code, table
from docs_tools.python_pages import python_page
from docs_tools.setting_pages import settings_page
from fpn.cli.app import COMMANDS
from fpn.cli.help import Page, read_pages

_FENCE = re.compile(r"\n(```\w+\n)")
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)]+)\)")


def commands_page() -> str:
    """Every verb with all that its help says."""
    pages = read_pages()
    lines = ["# Commands", "", "What `--help` says of each of them.", ""]
    lines += table(
        ("verb", "what it does"), ((f"[{verb}](#fpn-{verb})", cell(what)) for verb, (_, what) in COMMANDS.items())
    )
    for verb in COMMANDS:
        lines += _command(verb, pages[verb])
    return "\n".join(lines)


def _command(verb: str, page: Page) -> list[str]:
    lines = [f"## fpn {verb}", "", code(page["usage"]), ""]
    for paragraph in "\n".join(page["text"]).split("\n\n"):
        lines += [cell(paragraph), ""]
    for panel in page["panels"]:
        if len(page["panels"]) > 1:
            lines += [f"**{panel['title']}**", ""]
        rows = [(" ".join(code(name) for name in row["names"]), cell(row["text"])) for row in panel["rows"]]
        lines += table(("option", "meaning"), rows)
    return lines


def copied_page(source: Path) -> str:
    """A file of the repository as a page; what it links to outside of docs/ is named instead."""
    text = source.read_text(encoding="utf-8")

    def named(link: re.Match[str]) -> str:
        words, path = link.groups()
        target = (source.parent / path.partition("#")[0]).resolve()
        if target.is_relative_to(DOCS):
            return f"[{words}]({target.relative_to(DOCS)})"
        return f"{words} (`{target.relative_to(ROOT)}`)"

    return _FENCE.sub("\n<!-- generated -->\n\\1", _LINK.sub(named, text))


PAGES: Mapping[str, Callable[[], str]] = {
    "reference/commands.md": commands_page,
    "reference/settings.md": settings_page,
    "reference/errors.md": errors_page,
    "reference/python.md": python_page,
    "benchmarks.md": lambda: copied_page(ROOT / "benchmarks" / "README.md"),
    "contributing.md": lambda: copied_page(ROOT / "CONTRIBUTING.md"),
}


def written(name: str) -> str:
    """The text of one of these pages, as it would be written now."""
    return re.sub(r"\n{3,}", "\n\n", PAGES[name]()).strip() + "\n"


if __name__ == "__main__":
    for each in PAGES:
        (DOCS / each).parent.mkdir(exist_ok=True)
        (DOCS / each).write_text(written(each), encoding="utf-8")
