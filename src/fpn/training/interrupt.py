"""Ctrl-C, or a scheduler's SIGTERM, as a wish to stop after this step."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM has come. What cleans up, or saves, after a Ctrl-C does so now."""


class Interrupt:
    """Turns the first Ctrl-C (or a scheduler's SIGTERM) into a wish to stop after this step; a second stops at once.

    Attributes:
        wished: whether one has come.

    Args:
        speaks: whether this process answers the wish on standard error.
    """

    def __init__(self, *, speaks: bool) -> None:
        self.wished = False
        self._terminated = False
        self._speaks = speaks
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._wish)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def end(self) -> KeyboardInterrupt:
        """What to raise when the wish is granted: by it the command tells which of the two has come."""
        return Terminated() if self._terminated else KeyboardInterrupt()

    def _wish(self, number: int, _frame: FrameType | None) -> None:
        self.wished, self._terminated = True, number == signal.SIGTERM
        self._restore()
        if self._speaks:
            # Not through a stream: the signal may have come while something is written to it.
            os.write(2, b"\nstopping after this step; once more to stop at once\n")

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
