"""The processes that train one model together: what they agree on, what they gather, and how they part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from fpn.errors import ConfigError, FpnError, TrainingError
from fpn.structures import LossTerms
from fpn.training.config import TrainConfig
from fpn.training.trackers import check_trackers

T = TypeVar("T")

# Where a process that fails leaves its message for the others.
_LAST_WORDS = "fpn/last-words"
# Whoever notices that a process is gone may notice before that one has spoken.
_PATIENCE = timedelta(seconds=3)
# What the text of a broken connection's error mentions; torch has no class of its own for gloo's.
_CONNECTION_SIGNS = ("gloo", "nccl", "connection", "socket")


class Processes:
    """This process among those that train together, as torch.distributed knows them. Alone, nothing here costs time.

    Attributes:
        rank: this one's number, from 0.
        count: how many there are.
    """

    def __init__(self) -> None:
        several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
        self.rank, self.count = (distributed.get_rank(), distributed.get_world_size()) if several else (0, 1)
        # Gloo connects CPUs: to agree on something then waits for no GPU, and a connection that breaks is noticed.
        self._group = _connect() if several else None

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def largest(self, *numbers: int) -> list[int]:
        """For each number the largest that any process has."""
        if self._group is None:
            return list(numbers)
        votes = torch.tensor(numbers, dtype=torch.int64)
        distributed.all_reduce(votes, op=distributed.ReduceOp.MAX, group=self._group)
        return [int(vote) for vote in votes.tolist()]

    def collect(self, value: T) -> list[T]:
        """Every process's value by rank, in the first process; nothing in the others."""
        if self._group is None:
            return [value]
        values: list[T | None] | None = [None] * self.count if self.first else None
        distributed.gather_object(value, values, dst=0, group=self._group)
        return [] if values is None else values  # type: ignore[return-value]

    def from_first(self, value: T) -> T:
        """The first process's value, in all of them."""
        if self._group is None:
            return value
        distributed.broadcast_object_list(values := [value], src=0, group=self._group)
        return values[0]

    def copy_from_first(self, tensor: Tensor) -> None:
        """Overwrite a tensor, on whatever device, with the first process's."""
        if self._group is not None:
            distributed.broadcast(tensor, src=0)

    def weigh(self, losses: LossTerms, images: int) -> LossTerms:
        """Each value times this process's share of what it is the mean of, as a multiple of an equal share.

        The mean over processes, which DDP takes of gradients, then is the mean over all samples, as one process with
        all images would have it; also where the last batch has three images here and two there.

        Args:
            losses: of this process's batch.
            images: how many the batch has.
        """
        if self._group is None:
            return losses
        samples = [losses.samples.get(name, float(images)) for name in losses.terms]
        own = torch.tensor([*samples, float(images)], dtype=torch.float64)
        distributed.all_reduce(all_of_them := own.clone(), group=self._group)
        *factors, of_images = (own * self.count / all_of_them.clamp(min=1)).tolist()
        terms = {name: term * factor for (name, term), factor in zip(losses.terms.items(), factors, strict=True)}
        return replace(losses, terms=terms, counts={n: count * of_images for n, count in losses.counts.items()})

    @contextmanager
    def together(self) -> Iterator[None]:
        """Inside the `with`, a process that fails ends the others, each with the message of the one that failed.

        Raises:
            TrainingError: another process failed; has its message.
        """
        try:
            yield
        except Exception as error:
            if self._group is None:
                raise
            words = self._others_words() if _is_lost_connection(error) else None
            if words is None:
                self._say(error)
                raise
            raise TrainingError(words) from error

    def _say(self, error: Exception) -> None:
        try:
            notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
            kind = "" if isinstance(error, FpnError) else f"{type(error).__name__}: "
            _store().compare_set(_LAST_WORDS, "", f"process {self.rank} of {self.count} failed: {kind}{error}{notes}")
        except RuntimeError:
            return  # the store is gone with the process that kept it: nobody is left to be told

    def _others_words(self) -> str:
        """What another process said before it went, or that it went without a word."""
        try:
            _store().wait([_LAST_WORDS], _PATIENCE)
            return str(_store().get(_LAST_WORDS).decode())
        except RuntimeError:
            return (
                f"process {self.rank} of {self.count} lost the connection to another one, which ended without a word: "
                "killed, perhaps for want of memory. Its own output may say more."
            )


def _is_lost_connection(error: Exception) -> bool:
    if not isinstance(error, RuntimeError) or isinstance(error, FpnError):
        return False
    return any(sign in str(error).lower() for sign in _CONNECTION_SIGNS)


def _connect() -> distributed.ProcessGroup:
    group = distributed.new_group(backend="gloo")
    assert isinstance(group, distributed.ProcessGroup), "a group of all processes holds this one"
    return group


def _store() -> distributed.Store:
    """What torch's own rendezvous keeps for all processes; torchrun's outlives each of them."""
    return distributed.distributed_c10d._get_default_store()


# A slower process may have more of a validation left than the others; they wait for it. One that ends is noticed at
# once, since its connections close: this is how long a machine without power is waited for.
_LONGEST_WAIT = timedelta(hours=2)


def make_accelerator(config: TrainConfig, output: Path | None) -> Accelerator:
    """Processes and device: one process alone, or what `accelerate launch` / torchrun started.

    Raises:
        ConfigError: the batch can't be shared out evenly.
        MissingExtraError: a tracker was asked for and is not installed.
    """
    cpu = config.device == "cpu" or not torch.accelerator.is_available()
    if not torch.distributed.is_initialized():
        # accelerate keeps the first run's device for the whole process; a notebook may train on another one next.
        AcceleratorState._reset_state(reset_partial_state=True)
        _join_restarted(cpu)
    check_trackers(config.tracker, output)
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision="no",  # LossModule casts, so that a second run in one process may choose otherwise
        log_with=list(config.tracker) or None,
        project_config=ProjectConfiguration(logging_dir=None if output is None else str(output / "logs")),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_LONGEST_WAIT)],
    )
    if config.batch_size % accelerator.num_processes:
        raise ConfigError(
            f"batch_size {config.batch_size}: can't be shared out to {accelerator.num_processes} processes evenly; "
            "it counts the images of all processes together"
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
    distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_LONGEST_WAIT)
