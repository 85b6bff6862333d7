"""Processes of their own for tests, forked from one that has imported torch: that takes longer than the tests do."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PRELOADED = [
    "fpn.cli.train",
    "fpn.data.formats.open",
    "fpn.detectors",
    "fpn.serving",
    "fpn.training.trainer",
    "torch.distributed.run",
]


def context() -> ForkServerContext:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    return server


def start(
    work: Callable[..., Any], *arguments: object, says: Path, environment: Mapping[str, str] | None = None
) -> BaseProcess:
    """Begin `work(*arguments)` in another process, whose output goes to the file `says`."""
    child = context().Process(target=_begin, args=(work, arguments, says, dict(environment or {})))
    child.start()
    return child


def finish(child: BaseProcess, *, says: Path, seconds: float = 120) -> str:
    """Wait for the end, which has to be a good one; what it said."""
    child.join(seconds)
    assert child.exitcode == 0, (child.exitcode, says.read_text())
    return says.read_text()


def wait_for(moment: Callable[[], object], child: BaseProcess, *, says: Path, seconds: float = 120) -> None:
    """Until something has happened in a process that is still alive."""
    deadline = time.monotonic() + seconds
    while not moment():
        assert child.is_alive(), (child.exitcode, says.read_text())
        assert time.monotonic() < deadline, f"it never came: {says.read_text()}"
        time.sleep(0.002)


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """This process's standard output and error, and that of its children, into a file."""
    with path.open("a") as stream:
        for old in (sys.stdout, sys.stderr):
            os.dup2(stream.fileno(), old.fileno())
        yield


def _begin(work: Callable[..., Any], arguments: tuple[object, ...], says: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    with output_to(says):
        status = work(*arguments)
        sys.stdout.flush()
        sys.exit(status if isinstance(status, int) else 0)


def run_fpn(words: list[str], flush_seconds: float = 0.0) -> int:
    """`fpn`, on a disk where each flush takes this long."""
    from fpn.cli import main

    flush = os.fsync

    def flush_slowly(file: int) -> None:
        time.sleep(flush_seconds)
        flush(file)

    os.fsync = flush_slowly
    return main(words)


def take_memory(mebibytes: int) -> None:
    """Use that much of it."""
    import torch

    torch.ones(mebibytes, 2**18)
