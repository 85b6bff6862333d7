"""Work that many threads may do at once, and work that changes something beneath them and has to be alone."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Many together, or one alone.

    Who wants to be alone lets nobody new in, and waits until the others are out. A thread that is inside may go in once
    more, together or alone: it never waits for itself.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # Thread -> how often it is inside; more than one place is a `with` within a `with`.
        self._inside: defaultdict[int, int] = defaultdict(int)
        self._alone: int | None = None
        os.register_at_fork(after_in_child=self._forget)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Not while somebody is alone."""
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._alone in (None, me) or me in self._inside)
            self._inside[me] += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside[me] -= 1
                if not self._inside[me]:
                    del self._inside[me]
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Not while others are inside."""
        me = threading.get_ident()
        with self._changed:
            before = self._alone
            self._changed.wait_for(lambda: self._alone in (None, me))
            self._alone = me
            self._changed.wait_for(lambda: self._inside.keys() <= {me})
        try:
            yield
        finally:
            with self._changed:
                self._alone = before if before == me else None
                self._changed.notify_all()

    def _forget(self) -> None:
        """A forked process has none of the other threads."""
        self._changed, self._alone = threading.Condition(), None
        self._inside.clear()


# PyTorch's tracer puts another `__call__` into all modules of the process for as long as it traces one network. A
# network that another thread runs meanwhile would be traced as well, and fails.
NETWORKS = Turns()
