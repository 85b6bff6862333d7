"""Writes the pages of `fpn.cli.help` from what the verbs' signatures, docstrings and options say.

python -m fpn.cli.help_pages
"""

from __future__ import annotations

import io
import json
from typing import Any

from cyclopts import App
from cyclopts.help import HelpEntry, HelpPanel
from rich.console import Console, ConsoleOptions

from fpn.cli.app import COMMANDS, make_app
from fpn.cli.help import PAGES, HelpRow, Page
from fpn.files import write_text

# Wide enough that nothing is wrapped: that is done when a page is shown.
_WIDE = 100_000


class Recorder:
    """Takes what cyclopts would print as it is made.

    Attributes:
        page: all that came so far.
    """

    def __init__(self) -> None:
        """An empty page."""
        self.page = Page(usage="", text=[], panels=[])

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """The line that says what to type."""
        self.page["usage"] = _plain(usage).removeprefix("Usage: ")

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        """The paragraphs above the panels."""
        self.page["text"] = _plain(description).splitlines()

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """One panel."""
        if panel.entries:
            rows = [_row(entry, panel.format) for entry in panel.entries]
            self.page["panels"].append({"title": _plain(panel.title), "rows": rows})


def _row(entry: HelpEntry, kind: str) -> HelpRow:
    names = [*entry.names, *(f"({short})" for short in entry.shorts)]
    notes = [f"[choices: {', '.join(entry.choices)}]"] if entry.choices else []
    notes += [f"[default: {entry.default}]"] if entry.default is not None else []
    notes += ["[required]"] if entry.required else []
    return {
        "names": [" ".join(names)] if kind == "command" else list(entry.display_labels_with_metavar),
        "text": " ".join([_plain(entry.description), *notes]),
        "required": entry.required,
    }


def _plain(renderable: Any) -> str:
    """What it is without colours and wrapping."""
    if renderable is None:
        return ""
    page = io.StringIO()
    Console(file=page, width=_WIDE, highlight=False, markup=False).print(renderable)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines()).strip()


def make_pages() -> dict[str, Page]:
    """Help by verb, as cyclopts makes it; that of `fpn` itself is under ""."""
    return {verb: _make_page(verb) for verb in ("", *COMMANDS)}


def _make_page(verb: str) -> Page:
    recorder, app = Recorder(), make_app(verb or None)
    app.help_formatter = recorder
    app.help_print([verb] if verb else [], console=Console(file=io.StringIO()))
    page = recorder.page
    if verb:
        page["usage"] = page["usage"].replace("[ARGS]", _optional(app[verb]))
    return page


def _optional(verb: App) -> str:
    """Arguments that may be left out, by name: [DATA], and [IMAGES ...] of several."""
    arguments = verb.assemble_argument_collection()
    found = [each for each in arguments if each.field_info.is_positional and not each.required]
    return " ".join(f"[{each.name} ...]" if "tuple" in str(each.hint) else f"[{each.name}]" for each in found)


if __name__ == "__main__":
    write_text(PAGES, json.dumps(make_pages(), indent=1) + "\n")
