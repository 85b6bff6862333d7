"""A SIGTERM, such as `kill` and schedulers send, ends a command as Ctrl-C does: nothing half-written is left."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from fpn.training.interrupt import Terminated


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Raise `Terminated` where a SIGTERM comes, unless somebody else listens to it already.

    Processes that are forked meanwhile end at once, as they would without it.
    """
    listens = threading.current_thread() is threading.main_thread()
    if not listens or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    owner = os.getpid()

    def end(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != owner:
            os.kill(os.getpid(), number)
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
