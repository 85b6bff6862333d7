"""One training at a time for a run's folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fpn.errors import OutputError

if sys.platform != "win32":
    import fcntl

_held: set[int] = set()


@contextmanager
def hold(run: Path) -> Iterator[None]:
    """Keep a run's folder for this process; the system takes it back however the process ends, and nothing stays there.

    On Windows, and where the file system knows no locks, nothing is kept.

    Raises:
        OutputError: another process trains there.
    """
    if sys.platform == "win32":
        yield
        return
    folder = os.open(run, os.O_RDONLY)
    _held.add(folder)
    try:
        _lock(folder, run)
        yield
    finally:
        _held.discard(folder)
        os.close(folder)


def _lock(folder: int, run: Path) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            f"{run}: another training is at work there. Let it end, or stop it (Ctrl-C saves its state)."
        ) from error
    except OSError:
        return


def _let_go() -> None:
    """Processes that read images are copies of this one, and would keep the folder after its end."""
    for folder in _held:
        os.close(folder)
    _held.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_let_go)
