"""Runs one input within bounds of time and memory and says what came of it."""

from __future__ import annotations

import gc
import resource
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fpn.errors import FpnError
from fuzz.elsewhere import ELSEWHERE
from fuzz.targets import Target


class Bounds(NamedTuple):
    """What an input may take: seconds of processor time (others may work on the machine), and memory (address space)
    beyond what the process has before the first one."""

    seconds: float
    mebibytes: int


# Other toolkits' files are small here and nothing is built of them; datasets and models take longer.
_BOUNDS = dict.fromkeys(("checkpoints", "results", "hdf5", "settings"), Bounds(1.0, 200))


def bounds_of(reader: str) -> Bounds:
    """What an input of a reader may take."""
    return _BOUNDS.get(reader, Bounds(5.0, 512))


class Slow(BaseException):
    """Not an `Exception`, so that no reader can mistake it for a broken file."""


def outcome(target: Target, data: bytes, bounds: Bounds) -> str | None:
    """None if the input was read, "" if it was refused as it should be, else what went wrong."""
    try:
        with _time_limit(bounds.seconds):
            target(data)
        return None
    except FpnError as error:
        return "" if _well_said(str(error)) else f"message: {str(error)[:200]!r}"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # Slow, and what Rust panics become, are no Exceptions
        return f"{type(error).__name__}: {str(error)[:200]} at {_place(error)}"


def _well_said(message: str) -> bool:
    """Something that a terminal can print, of a length that a person reads."""
    try:
        return 0 < len(message.encode()) < 20_000
    except UnicodeEncodeError:
        return False


def _place(error: BaseException) -> str:
    """The innermost line of ours, which tells findings apart."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/fpn/" in frame.filename] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _too_slow(*_: object) -> None:
    raise Slow("takes too long")


def arm(bounds: Bounds) -> None:
    """Bound this process's memory from now on; call after everything is imported and warm."""
    signal.signal(signal.SIGPROF, _too_slow)
    gc.collect()
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    bound = now + bounds.mebibytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


def peak_mebibytes() -> int:
    """The most memory that this process, or one that it began, ever really had."""
    return max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, ELSEWHERE.mebibytes)


def processor_seconds() -> float:
    """What this process and those that it began have used."""
    return time.process_time() + ELSEWHERE.seconds
