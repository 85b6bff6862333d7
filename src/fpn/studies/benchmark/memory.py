"""The highest memory that inference or a training step takes."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch


def peak_mebibytes(device: torch.device, work: Callable[..., Any], *arguments: Any) -> float:
    """Of one call: on a GPU what torch took at most, else by how much a new process grew, its libraries not counted.

    Args:
        device: where it works.
        work: a function of a module; on a CPU it runs in a process of its own, since a process's peak never falls.
        arguments: of the function.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work(*arguments)
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) / 2**20
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_grown, torch.get_num_threads(), work, *arguments).result()


def _grown(threads: int, work: Callable[..., Any], *arguments: Any) -> float:
    torch.set_num_threads(threads)
    before = _peak()
    work(*arguments)
    return _peak() - before


def _peak() -> float:
    """This process's highest resident memory so far, MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss: on Linux a new process begins with its parent's.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
