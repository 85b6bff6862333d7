"""Where a study that takes long shows how far it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Screen:
    """How progress is shown.

    Attributes:
        tell: a line, such as which of all runs begins.
        bar: a title and a total -> a context that gives a function for the number done.
        training: show the training's own bar.
    """

    tell: Callable[[str], None] = lambda _: None
    bar: Callable[[str, int], AbstractContextManager[Callable[[int], None]]] = lambda _, __: nullcontext(lambda _: None)
    training: bool = False
