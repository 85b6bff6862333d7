"""The few things that sections are made of: headed chapters, tables that scroll, folds, cards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fpn.studies.markup import Markup, join_markup, tag

# Rows of a table that are shown before the rest is folded away.
_SHOWN = 20


@dataclass(frozen=True)
class Chapter:
    """A part of the page that the table of contents leads to.

    Attributes:
        name: its anchor.
        title: its heading.
        body: what is below.
    """

    name: str
    title: str
    body: Markup

    def html(self) -> Markup:
        """With its heading."""
        return tag("section", tag("h2", self.title, id=self.name), self.body, aria_labelledby=self.name)


def chapter(name: str, title: str, *parts: object) -> Chapter:
    """A chapter of several parts, as `tag` takes them."""
    return Chapter(name, title, join_markup(parts))


def paragraph(*words: object, look: str | None = None) -> Markup:
    """A paragraph."""
    return tag("p", *words, class_=look)


def note(*words: object) -> Markup:
    """A paragraph that explains."""
    return paragraph(*words, look="note")


def foreign(text: object) -> Markup:
    """Somebody else's name, such as a class's or a file's, which may be written in either direction."""
    return tag("bdi", text)


def table(
    caption: str,
    columns: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    fold: bool = True,
    look: str | None = None,
) -> Markup:
    """Rows under headings; the first cell of each names it, the others are numbers.

    Args:
        caption: what it shows.
        columns: headings; a text that begins with "<" is of words, not of numbers. Markup stays as it is.
        rows: their cells.
        fold: long tables show their first rows, and the rest on request.
        look: class of the style that it has.
    """
    rows = list(rows)
    if not fold or len(rows) <= _SHOWN + 5:
        return _scrolling(caption, columns, rows, look)
    rest = f"{len(rows) - _SHOWN} more rows: {caption}"
    return join_markup(
        [
            _scrolling(caption, columns, rows[:_SHOWN], look),
            fold_away(rest, _scrolling(rest, columns, rows[_SHOWN:], look)),
        ]
    )


def _scrolling(caption: str, columns: Sequence[object], rows: Sequence[Sequence[object]], look: str | None) -> Markup:
    wordy = [_is_of_words(column) for column in columns]
    heads = (
        tag("th", str(column)[1:] if words else column, scope="col", class_="words" if words else None)
        for column, words in zip(columns, wordy, strict=True)
    )
    body = tag("tbody", (tag("tr", _cells(row, wordy)) for row in rows))
    inner = tag("table", tag("caption", caption), tag("thead", tag("tr", heads)), body, class_=look)
    return tag("div", inner, class_="scroll", role="region", aria_label=caption, tabindex="0")


def _is_of_words(column: object) -> bool:
    """A name of somebody else's, such as "<b>", is markup by now and has no mark of ours."""
    return isinstance(column, str) and not isinstance(column, Markup) and column.startswith("<")


def _cells(row: Sequence[object], wordy: Sequence[bool]) -> Iterable[Markup]:
    first, *others = row
    yield tag("th", first, scope="row", class_="words")
    for cell, words in zip(others, wordy[1:], strict=True):
        yield (
            cell
            if isinstance(cell, Markup) and cell.startswith("<td")
            else tag("td", cell, class_="words" if words else None)
        )


def fold_away(title: str, *parts: object) -> Markup:
    """What is shown on request, and in print."""
    return tag("details", tag("summary", title), *parts)


def cards(entries: Sequence[tuple[str, str, str]]) -> Markup:
    """ReportFigures for the first glance: what, how much, and in other words."""
    made = (
        tag("div", tag("dt", what), tag("dd", tag("strong", value), tag("span", more)), class_="card")
        for what, value, more in entries
    )
    return tag("dl", made, class_="cards")


def grid(parts: Iterable[object], look: str = "grid") -> Markup:
    """Side by side where there is room."""
    return tag("div", parts, class_=look)
