"""How long work over a dataset reports how far it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

# What draws a progress bar for so many steps, such as `partial(progress_bar, "images")` of the command line.
Progress: TypeAlias = Callable[[int], AbstractContextManager[Callable[[int], None]]]


def no_bar(total: int) -> AbstractContextManager[Callable[[int], None]]:
    """No progress is shown."""
    return nullcontext(lambda done: None)
