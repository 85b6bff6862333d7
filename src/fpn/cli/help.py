"""Help at once: its pages are kept as text beside this file. To make them takes a second, to show them a tenth of that.

`python -m fpn.cli.help_pages` writes them anew from the verbs' signatures, docstrings and options; a test says when.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

PAGES = Path(__file__).with_name("help_pages.json")
_FLAGS = {"--help", "-h"}
_NARROWEST = 40
# Names that would take more of the line than this stand one below the other.
_NAMES_SHARE = 0.4
_CYAN, _PLAIN = "\x1b[36m", "\x1b[0m"


class HelpRow(TypedDict):
    """An argument, an option or a verb.

    Keys:
        names: what to type.
        text: what it means, its choices and its default.
        required: whether it has to be given.
    """

    names: list[str]
    text: str
    required: bool


class Panel(TypedDict):
    """Rows under a title."""

    title: str
    rows: list[HelpRow]


class Page(TypedDict):
    """The help of a verb, or of `fpn` itself.

    Keys:
        usage: what to type, on one line.
        text: paragraphs, and empty lines between them.
        panels: what can be typed.
    """

    usage: str
    text: list[str]
    panels: list[Panel]


def read_pages() -> dict[str, Page]:
    """Help by verb; that of `fpn` itself is under ""."""
    pages: dict[str, Page] = json.loads(PAGES.read_text(encoding="utf-8"))
    return pages


def asked_page(words: Sequence[str]) -> Page | None:
    """The page that was asked for by `fpn`, `fpn --help` or `fpn VERB ... --help`; None: something else was."""
    options = words[: words.index("--")] if "--" in words else words
    if words and not _FLAGS & set(options):
        return None
    return read_pages().get("" if not words or words[0] in _FLAGS else words[0])


def show_page(page: Page) -> None:
    """Print a page as wide as the terminal; 80 columns where there is none."""
    width = max(shutil.get_terminal_size((80, 24)).columns, _NARROWEST)
    coloured = sys.stdout.isatty() and os.name != "nt" and not os.environ.get("NO_COLOR")
    lines = "\n".join(render(page, width, coloured=coloured))
    try:
        lines.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # an old terminal's code page has no rounded corners
        lines = lines.translate(str.maketrans("╭╮╰╯─│", "++++-|"))
    print(lines, flush=True)


def render(page: Page, width: int, *, coloured: bool = False) -> Iterator[str]:
    """A page's lines, none longer than `width`; colours take no place."""
    yield from (f"Usage: {page['usage']}", "")
    for paragraph in page["text"]:
        yield from textwrap.wrap(paragraph, width, break_on_hyphens=False) or [""]
    yield ""
    for panel in page["panels"]:
        title = f"╭─ {panel['title']} "
        yield title + "─" * (width - len(title) - 1) + "╮"
        for line, shown in _render_rows(panel["rows"], width - 4):
            names = f"{_CYAN}{line[:shown]}{_PLAIN}{line[shown:]}" if coloured and line[:shown].strip() else line
            yield f"│ {names}{' ' * (width - 4 - len(line))} │"
        yield "╰" + "─" * (width - 2) + "╯"


def _render_rows(rows: Sequence[HelpRow], width: int) -> Iterator[tuple[str, int]]:
    """Lines of two columns, each with the width of the first one."""
    mark = 3 if any(row["required"] for row in rows) else 0
    names = [_names(row, int(width * _NAMES_SHARE) - mark) for row in rows]
    first = max(len(name) for each in names for name in each) + mark + 2
    for row, each in zip(rows, names, strict=True):
        text = textwrap.wrap(row["text"], width - first, break_on_hyphens=False)
        for number in range(max(len(each), len(text))):
            left = each[number] if number < len(each) else ""
            begin = ("*" if row["required"] and number == 0 else "").ljust(mark)
            yield f"{begin}{left}".ljust(first) + (text[number] if number < len(text) else ""), first


def _names(row: HelpRow, width: int) -> list[str]:
    """A row's names on one line, or on one each where they are too long."""
    together = " ".join(row["names"])
    if len(together) <= width:
        return [together]
    return [row["names"][0], *(f"  {name}" for name in row["names"][1:])]
