"""One training at a time for a run's folder."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from fpn.errors import OutputError

if sys.platform != "win32":
    import fcntl

# What Windows locks, which knows no locks of folders.
LOCK_FILE = ".at-work"
# What its C library says of a place that is locked.
_LOCKED = (errno.EACCES, errno.EDEADLK)
_held: set[int] = set()


@contextmanager
def hold(run: Path) -> Iterator[None]:
    """Keep a run's folder for this process; the system takes it back however the process ends, and nothing stays there.

    Where the file system knows no locks, nothing is kept.

    Raises:
        OutputError: another process trains there.
    """
    if sys.platform == "win32":
        with _hold_file(run):
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


@contextmanager
def _hold_file(run: Path) -> Iterator[None]:
    """As Windows does it: by a file, which a killed process leaves there, but not its lock."""
    windows: Any = import_module("msvcrt")
    place = run / LOCK_FILE
    file = os.open(place, os.O_RDWR | os.O_CREAT)
    try:
        try:
            windows.locking(file, windows.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in _LOCKED:
                raise _at_work(run) from error
        yield
    finally:
        os.close(file)
        with suppress(OSError):  # whoever else has it open holds it by now, or is about to be told
            place.unlink()


def _lock(folder: int, run: Path) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _at_work(run) from error
    except OSError:
        return


def _at_work(run: Path) -> OutputError:
    return OutputError(f"{run}: another training is at work there. Let it end, or stop it (Ctrl-C saves its state).")


def _let_go() -> None:
    """Processes that read images are copies of this one, and would keep the folder after its end."""
    for folder in _held:
        os.close(folder)
    _held.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_let_go)
