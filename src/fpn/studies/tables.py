"""A table that is written once and shown twice: in the terminal, and as markdown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """Rows of text under a title.

    Attributes:
        title: what the rows are about.
        columns: their headings; one that begins with ">" is aligned to the right.
        rows: a cell may have several lines; of the first cell, all but the first line are an explanation.
        notes: sentences below.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = field(default=())

    def rich(self) -> Group:
        """For a terminal of 80 columns or more."""
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
        for heading in self.columns:
            right = heading.startswith(">")
            table.add_column(heading.lstrip(">"), justify="right" if right else "left", overflow="fold", no_wrap=right)
        explained = any("\n" in row[0] for row in self.rows)
        for number, row in enumerate(self.rows):
            table.add_row(_explained(row[0]), *(Text(cell) for cell in row[1:]))
            if explained and number + 1 < len(self.rows):
                table.add_row()
        notes = [Text(note, style="dim") for note in self.notes]
        return Group(Text(self.title, style="bold cyan"), Text(), table, *([Text()] if notes else []), *notes)

    def markdown(self, *, depth: int = 2) -> str:
        """The same as GitHub's markdown, with a heading of that depth."""
        lines = [f"{'#' * depth} {self.title}", ""]
        lines.append(_line(heading.lstrip(">") for heading in self.columns))
        lines.append("|" + "|".join(" ---: " if heading.startswith(">") else " --- " for heading in self.columns) + "|")
        lines += [_line((_named(row[0]), *row[1:])) for row in self.rows]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines)


def _explained(cell: str) -> Text:
    name, _, explanation = cell.partition("\n")
    return Text.assemble((name, "bold"), (f"\n{explanation}", "dim")) if explanation else Text(name)


def _named(cell: str) -> str:
    name, _, explanation = cell.partition("\n")
    return f"**{name}**\n{explanation}" if explanation else name


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"
