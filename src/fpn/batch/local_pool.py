"""The shards of a batch run by processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import torch

from fpn.batch.forked_workers import worker_context
from fpn.batch.shards import NumberedItems, ShardJob
from fpn.batch.sources import ImageItem
from fpn.batch.worker import BatchWorker
from fpn.errors import FpnError
from fpn.runtime.capacity import find_capacity


@dataclass(frozen=True)
class LocalPool:
    """Processes of this machine, each with the model and its share of the cores.

    Attributes:
        workers: how many; of one, it is the caller's own.
        threads: of each.
    """

    workers: int
    threads: int

    @classmethod
    def of_this_machine(cls, workers: int | None, threads: int | None, *, cpu: bool, most: int) -> LocalPool:
        """Processes and threads where one or both are left open: two cores a process on a CPU, one process on a GPU.

        Args:
            workers: None: as many as there is room for.
            threads: None: the share of all cores.
            cpu: whether they work on the CPU though there is a GPU.
            most: processes that have something to do.
        """
        capacity = find_capacity(cpu=cpu)
        usual = max(1, capacity.cores // (threads or 2)) if capacity.kind == "cpu" else 1
        chosen = workers or usual
        return cls(max(1, min(chosen, most)), threads or max(1, capacity.cores // chosen))

    def run(self, job: ShardJob, worker: BatchWorker, shards: Iterator[NumberedItems]) -> Iterator[int]:
        """Images of each shard as it is done.

        Args:
            job: what a worker is told.
            worker: one that is there already, used where one process is enough.
            shards: what is to be made.

        Raises:
            FpnError: a process was killed; what is done is kept.
        """
        return _in_this_process(job, worker, shards) if self.workers == 1 else _in_processes(job, shards, self.workers)


def _in_this_process(job: ShardJob, worker: BatchWorker, shards: Iterator[NumberedItems]) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(job.threads)
    try:
        for number, items in shards:
            yield job.make(worker, number, items)
    finally:
        torch.set_num_threads(before)


def _in_processes(job: ShardJob, shards: Iterator[NumberedItems], workers: int) -> Iterator[int]:
    with ProcessPoolExecutor(workers, mp_context=worker_context(), initializer=_begin, initargs=(job,)) as pool:
        running: set[Future[int]] = set()
        try:
            for number, items in shards:
                running.add(pool.submit(_work, number, items))
                if len(running) >= 2 * workers:
                    ready, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (each.result() for each in ready)
            while running:
                ready, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in ready)
        except BrokenProcessPool as error:
            raise FpnError(
                "a worker process ended by itself or was killed, perhaps for its memory. What is done is kept: the "
                "same command goes on from there, with fewer --workers if memory is short."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


_here: tuple[ShardJob, BatchWorker] | None = None


def _begin(job: ShardJob) -> None:
    """What a process of the pool does first."""
    global _here
    # Ctrl-C reaches all processes of a terminal; the main one decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(job.threads)
    _here = job, job.load()


def _end_with_parent() -> None:
    """A killed run leaves no process behind."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a process of a pool has one"
    parent.join()
    os._exit(1)


def _work(number: int, items: Sequence[ImageItem]) -> int:
    assert _here is not None, "a process begins with its job"
    job, worker = _here
    return job.make(worker, number, items)
