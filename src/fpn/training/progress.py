"""What a person sees while a detector trains: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

# Where output is a file, a line at most this often: a night's log stays readable.
SECONDS_BETWEEN_LINES = 15.0
# Longer times left, of which nobody means any, are not shown.
_SHOWN = 1e9


class Reporter:
    """Shows nothing; the base of what does."""

    def begin(self, *, done: int, total: int, epochs: int) -> None:
        """The run has `total` steps in `epochs` epochs, of which `done` steps are behind it."""

    def step(self, step: int, epoch: int) -> None:
        """Optimizer step number `step` is done, in epoch 1, 2, ..."""

    def values(self, losses: Mapping[str, float], images_per_second: float) -> None:
        """The means of a log interval: "loss", then its terms."""

    def note(self, text: str) -> None:
        """Something to keep on the screen, such as an epoch's result."""

    def end(self) -> None:
        """No more to come."""


class Bar(Reporter):
    """One rich progress bar: epoch, step, loss terms, images a second, time left."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.completed}/{task.total}"),
            _TimeLeft(),
            TimeElapsedColumn(),
            # Where the terminal is narrow the last loss terms give way, not the rest.
            TextColumn("{task.fields[values]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            console=console,
            expand=True,
        )
        self._task = self._progress.add_task("training", total=None, values="")
        self._epochs = 0
        self._clock = _Clock()

    def begin(self, *, done: int, total: int, epochs: int) -> None:
        """See `Reporter.begin`."""
        self._epochs = epochs
        self._clock.begin(done, total)
        self._progress.update(self._task, total=total, completed=done, description=f"epoch 1/{epochs}")
        self._progress.start()

    def step(self, step: int, epoch: int) -> None:
        """See `Reporter.step`."""
        left = self._clock.seconds_left(step)
        self._progress.update(self._task, completed=step, description=f"epoch {epoch}/{self._epochs}", left=left)

    def values(self, losses: Mapping[str, float], images_per_second: float) -> None:
        """See `Reporter.values`."""
        self._progress.update(self._task, values=_describe(losses, images_per_second))

    def note(self, text: str) -> None:
        """See `Reporter.note`."""
        self._progress.console.print(text, markup=False, highlight=False)

    def end(self) -> None:
        """See `Reporter.end`."""
        self._progress.stop()


class Lines(Reporter):
    """Plain lines for a file or a pipe."""

    def __init__(self, console: Console, *, every: float = SECONDS_BETWEEN_LINES) -> None:
        self._console = console
        self._every = every
        self._last = float("-inf")
        self._where = ""
        self._epochs = self._total = 0
        self._clock = _Clock()

    def begin(self, *, done: int, total: int, epochs: int) -> None:
        """See `Reporter.begin`."""
        self._epochs, self._total = epochs, total
        self._clock.begin(done, total)

    def step(self, step: int, epoch: int) -> None:
        """See `Reporter.step`."""
        left = _duration(self._clock.seconds_left(step))
        self._where = f"epoch {epoch}/{self._epochs}  step {step}/{self._total}  left {left}"

    def values(self, losses: Mapping[str, float], images_per_second: float) -> None:
        """See `Reporter.values`."""
        if time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            self.note(f"{self._where}  {_describe(losses, images_per_second)}")

    def note(self, text: str) -> None:
        """See `Reporter.note`."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def make_reporter(show: bool) -> Reporter:
    """A bar on a terminal, lines elsewhere, nothing if not asked. On standard error: standard output is for results."""
    if not show:
        return Reporter()
    console = Console(stderr=True)
    return Bar(console) if console.is_terminal else Lines(console)


class _Clock:
    """Time left from the steps since this process began; those before a resume took no time here."""

    def begin(self, done: int, total: int) -> None:
        self._start, self._done, self._total = time.monotonic(), done, total

    def seconds_left(self, step: int) -> float | None:
        if step <= self._done:
            return None
        return (time.monotonic() - self._start) / (step - self._done) * (self._total - step)


class _TimeLeft(ProgressColumn):
    """Over the whole run, validations included; rich's own looks at the last steps only and jumps at each one."""

    def render(self, task: Task) -> Text:
        return Text(f"left {_duration(task.fields.get('left'))}", style="progress.remaining")


def _duration(seconds: float | None) -> str:
    return "-:--:--" if seconds is None or seconds > _SHOWN else str(timedelta(seconds=round(seconds)))


def _describe(losses: Mapping[str, float], images_per_second: float) -> str:
    terms = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
    return f"{images_per_second:.1f} images/s  {terms}"
