"""Worker processes: how many, how they start, and what they may share."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fpn.runtime.cores import usable_cores

# That a worker still lives after a SIGTERM.
_SECONDS_TO_SAVE = 60


def default_workers(world_size: int = 1) -> int:
    """Half of this process's share of the cores, 1 to 8.

    One worker prepares a few hundred small images a second; a step on the CPU takes far longer, one on a GPU needs
    more of them.
    """
    cores = usable_cores()
    return max(1, min(8, cores // (2 * world_size)))


def make_data_loader(workbench: object, *, num_workers: int, **options: Any) -> DataLoader[Any]:
    """Torch's loader over a plan (`sampler`) whose items are whole batches, as all our readers use it."""
    with warnings.catch_warnings():
        # More workers than cores was the caller's wish: one that waits for a network disk needs no core.
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        return DataLoader(
            workbench,  # type: ignore[arg-type]
            batch_size=None,
            num_workers=num_workers,
            worker_init_fn=begin_work if num_workers else None,
            multiprocessing_context=start_method() if num_workers else None,
            # Else each epoch would draw from torch's own source, and a resumed run would differ from an unbroken one.
            generator=torch.Generator(),
            **options,
        )


def start_workers(loader: DataLoader[Any]) -> Iterator[Any]:
    """Begin to iterate over torch's loader."""
    with warnings.catch_warnings():
        # From Python 3.12 on, forking a process with threads warns. Our workers use one thread each, and start in
        # milliseconds instead of importing torch again.
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        return iter(loader)


def begin_work(_: int) -> None:
    """What a loader worker does first."""
    # Ctrl-C reaches all processes of a terminal, and a scheduler's SIGTERM all of a job: the main one decides what
    # happens. It needs its workers until its step is done and saved; torch sends SIGTERM to those that outlive it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_SECONDS_TO_SAVE))
    torch.set_num_threads(1)


def start_method() -> str:
    """How loader workers start: forked where that exists."""
    return "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"


def fits_shared_memory(pixels: Tensor) -> bool:
    """Whether a worker may use shared memory: containers often have 64 MB of it, and die when it is full."""
    shared = Path("/dev/shm")
    if torch.utils.data.get_worker_info() is None or not shared.is_dir():
        return True
    free = os.statvfs(shared)
    return free.f_bavail * free.f_frsize > 8 * pixels.nbytes
