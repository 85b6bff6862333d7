"""What all verbs show: messages on standard error, results on standard output, progress bars."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


def errors() -> Console:
    """Standard error, where all goes that is not a result. Made anew: tests and notebooks replace the stream."""
    return Console(stderr=True, highlight=False, markup=False)


def say_error(message: str) -> None:
    """One clear message, its first word red."""
    _print(errors(), Text.assemble(("error: ", "bold red"), message))


def say_warning(message: str) -> None:
    """Something that does not stop the work."""
    _print(errors(), Text.assemble(("warning: ", "bold yellow"), message))


def say_note(message: str) -> None:
    """Advice: nothing is wrong, but something could be better."""
    _print(errors(), Text.assemble(("note: ", "bold cyan"), message))


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Python's warnings are shown as ours are, without the line of code that they come from."""
    before = warnings.formatwarning
    warnings.formatwarning = _as_line
    try:
        yield
    finally:
        warnings.formatwarning = before


def _as_line(message: Warning | str, *_: object, **__: object) -> str:
    return f"warning: {message}\n"


def say_renamed(names: Mapping[str, str]) -> None:
    """A warning of images whose names had to change; `names`: old path -> new name."""
    if names:
        old, new = next(iter(names.items()))
        shown = old if old.isprintable() else repr(old)
        say_warning(
            f"{len(names)} images renamed so that lists can hold their names and no two share one, such as {shown}: "
            f"now {new}"
        )


def say(message: RenderableType = "") -> None:
    """A result, or where it lies."""
    _print(Console(highlight=False, markup=False), message)


def _print(console: Console, message: RenderableType) -> None:
    # A file or a pipe gets each message as one line, for grep; a terminal gets it wrapped between words.
    if isinstance(message, Padding) and isinstance(message.renderable, Text) and not console.is_terminal:
        message = Text.assemble(" " * message.left, message.renderable)
    console.print(message, soft_wrap=isinstance(message, str | Text) and not console.is_terminal)


class _PerSecond(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        """In a few letters."""
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")


@contextmanager
def progress_bar(what: str, total: int | None, *, per_second: bool = False) -> Iterator[Callable[..., None]]:
    """A bar on a terminal, nothing elsewhere; call what it gives with the number done so far.

    With a `total` of None call it with that and of how many. `per_second`: show how many a second are done.
    """
    pace = (_PerSecond(),) if per_second else ()
    columns = (TextColumn(what), BarColumn(bar_width=30), MofNCompleteColumn(), *pace, TimeRemainingColumn())
    console = errors()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, of=total: bar.update(task, completed=done, total=of)
