"""The machine around a run: device and processes, precision, randomness, and Ctrl-C."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from fpn.detectors.optimizing import has_fast_bf16
from fpn.errors import ConfigError, MissingExtraError
from fpn.training.config import TrainConfig

# Marks the streams of pictures, so that they differ from those of processes.
_PICTURE = 0x91C

# Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

# A slower process may have more of a validation left than the others; they wait for it. One that ends is noticed at
# once, since its connections close: this is how long a machine without power is waited for.
_PATIENCE = timedelta(hours=2)


def make_accelerator(config: TrainConfig, output: Path | None) -> Accelerator:
    """Processes and device: one process alone, or what `accelerate launch` / torchrun started.

    Raises:
        ConfigError: the batch can't be shared out evenly.
        MissingExtraError: TensorBoard was asked for and is not installed.
    """
    cpu = config.device == "cpu" or not torch.accelerator.is_available()
    if not torch.distributed.is_initialized():
        # accelerate keeps the first run's device for the whole process; a notebook may train on another one next.
        AcceleratorState._reset_state(reset_partial_state=True)
        _join_restarted(cpu)
    if config.tensorboard:
        _need_tensorboard(output)
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision="no",  # LossModule casts, so that a second run in one process may choose otherwise
        log_with="tensorboard" if config.tensorboard else None,
        project_dir=None if output is None else str(output),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
    )
    if config.batch_size % accelerator.num_processes:
        raise ConfigError(
            f"batch_size {config.batch_size}: can't be shared out to {accelerator.num_processes} processes evenly; "
            "it counts the pictures of all processes together"
        )
    return accelerator


def _join_restarted(cpu: bool) -> None:
    """Connect processes that torchrun has started again on one machine, under names of their own.

    torchrun (2.15) keeps one store for all attempts, in which the new processes would find the addresses of those that
    are gone. How often each machine has started again may differ between machines, so this is for one of them.
    """
    attempt, machines = (os.environ.get(name, "0") for name in ("TORCHELASTIC_RESTART_COUNT", "GROUP_WORLD_SIZE"))
    if attempt == "0" or machines != "1":
        return
    store, rank, count = next(rendezvous("env://"))
    store = PrefixStore(f"attempt-{attempt}", store)
    device = torch.accelerator.current_accelerator()
    backend = "gloo" if cpu or device is None else distributed.get_default_backend_for_device(device)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_PATIENCE)


def choose_precision(config: TrainConfig, device: torch.device) -> str:
    """ "bf16" or "float32": as asked, or bf16 where the chip multiplies it faster than float32."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if has_fast_bf16(device) else "float32"


def choose_layout(config: TrainConfig, device: torch.device) -> torch.memory_format | None:
    """NHWC as asked, or where it is faster; None: maps stay as they are."""
    wanted = config.channels_last
    if wanted is None:
        wanted = device.type != "cpu" or choose_precision(config, device) == "bf16"
    return torch.channels_last if wanted else None


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next step, where it is glibc's and nobody tuned it by hand.

    A step frees and asks for the same hundreds of megabytes as the one before. Given back in between, they are cleared
    page by page each time: a third of a small network's step on a CPU. What a step takes at its peak stays the same.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")) for name in os.environ):
        return
    with suppress(OSError, AttributeError, TypeError):  # Windows, macOS, musl
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the largest that glibc takes


def seed_all(seed: int) -> None:
    """Seed Python's, NumPy's and torch's own sources of randomness."""
    random.seed(seed)
    np.random.seed(seed)  # the global source is what third-party layers use
    torch.manual_seed(seed)


def seed_step(seed: int, step: int, process: int) -> None:
    """Make what a step draws from global sources, such as dropout, a function of (seed, step, process).

    A run that goes on at step 400 then draws what it would have drawn, whatever happened before: nothing about
    randomness needs saving. Costs some 50 microseconds a step.
    """
    seed_all(_mix(seed, step, process))


def picture_generators(seed: int, step: int, numbers: Sequence[int], device: torch.device) -> list[torch.Generator]:
    """A source for each picture's samples, a function of (seed, step, picture).

    Which process has the picture, or which others are in its batch, then does not matter.
    """
    return [torch.Generator(device).manual_seed(_mix(seed, step, number, _PICTURE)) for number in numbers]


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@contextmanager
def algorithms(deterministic: bool) -> Iterator[None]:
    """Inside the `with`, only algorithms that repeat bit by bit (if asked)."""
    if not deterministic:
        yield
        return
    # cuBLAS reads this when it starts; it is the setting that torch's documentation of determinism asks for.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before, tuned = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = tuned


class Interrupt:
    """Turns the first Ctrl-C (or a scheduler's SIGTERM) into a wish to stop after this step; a second stops at once.

    Args:
        speaks: whether this process answers the wish on standard error.
    """

    def __init__(self, *, speaks: bool) -> None:
        self.wished = False
        self._speaks = speaks
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._wish)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _wish(self, _number: int, _frame: FrameType | None) -> None:
        self.wished = True
        self._restore()
        if self._speaks:
            # Not through a stream: the signal may have come while something is written to it.
            os.write(2, b"\nstopping after this step, to save; once more to stop at once\n")

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()


def _need_tensorboard(output: Path | None) -> None:
    if output is None:
        raise ConfigError("tensorboard: needs an output folder to write to")
    if find_spec("tensorboard") is None:
        raise MissingExtraError("tensorboard: is not installed. Get it with: pip install 'fpn[tensorboard]'")
