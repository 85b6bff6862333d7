"""The shards of a batch run by Ray Data: on a cluster, or on this machine as a cluster of one.

A row of Ray's dataset is a shard: the names and places of its images go to a worker, and the worker writes the shard
where all machines see it. Rows are small, results never pass through Ray, and a shard that is made twice, because its
node was lost, is the same to the bit.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from fpn.batch.shards import NumberedItems, ShardJob
from fpn.batch.sources import ImageItem
from fpn.batch.worker import BatchWorker
from fpn.errors import ConfigError, FpnError, MissingExtraError

# Shards whose images' names are held at a time.
_WAVE = 1000
# How often a shard is begun before it is taken to be its own fault that its worker is lost.
_RETRIES = 5


@dataclass(frozen=True)
class RayCluster:
    """A connected cluster, and how a run uses it.

    Attributes:
        workers: most at a time.
        threads: of a worker, which are its CPUs as well.
        gpus: of a worker, 0 or 1.
    """

    workers: int
    threads: int
    gpus: int

    def run(self, job: ShardJob, worker: BatchWorker, shards: Iterator[NumberedItems]) -> Iterator[int]:
        """Images of each shard as it is done.

        Args:
            job: what a worker is told.
            worker: one of this process, which is not used: the cluster's have models of their own.
            shards: what is to be made.

        Raises:
            FpnError: a worker failed; what is done is kept.
        """
        everywhere = replace(job, model=str(Path(job.model).absolute()), output=job.output.absolute())
        while wave := list(islice(shards, _WAVE)):
            yield from self._persist(everywhere, dict(wave))

    def _persist(self, job: ShardJob, wave: dict[int, list[ImageItem]]) -> Iterator[int]:
        """Make a wave of shards, anew what was under way when a machine was lost."""
        exceptions = import_module("ray.exceptions")
        attempts = 0
        while wave:
            before = len(wave)
            try:
                for number in self._run_wave(job, wave):
                    yield len(wave.pop(number))
            except exceptions.RayError as error:
                for number in [number for number in wave if job.path(number).exists()]:
                    yield len(wave.pop(number))
                attempts = 0 if len(wave) < before else attempts + 1
                if isinstance(error, exceptions.RayTaskError) or attempts == _RETRIES:
                    raise FpnError(
                        f"a worker of the Ray cluster failed: {_cause(error)}. What is done is kept: the same command "
                        "goes on from there."
                    ) from error

    def _run_wave(self, job: ShardJob, wave: Mapping[int, Sequence[ImageItem]]) -> Iterator[int]:
        """The numbers of the shards as they are made."""
        data = import_module("ray.data")
        rows = [{"number": n, "items": pickle.dumps([_absolute(item) for item in items])} for n, items in wave.items()]
        made = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            ShardMaker,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=data.ActorPoolStrategy(min_size=1, max_size=self.workers, initial_size=1),
            num_cpus=self.threads,
            num_gpus=self.gpus or None,
        )
        for batch in made.iter_batches(batch_size=1):
            yield int(batch["number"][0])


class ShardMaker:
    """Makes shards, in a process of Ray's."""

    def __init__(self, job: ShardJob) -> None:
        torch.set_num_threads(job.threads)
        self._job = job
        self._worker = job.load()

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Make the shards of some rows; their numbers."""
        for number, items in zip(batch["number"].tolist(), batch["items"], strict=True):
            if not self._job.path(number).exists():  # else a worker whose node was lost had made it
                with _counted(self._job.output / f"_begun-{number:06d}", f"shard {number}"):
                    self._job.make(self._worker, number, pickle.loads(items))
        return {"number": batch["number"]}


@contextmanager
def _counted(marks: Path, what: str) -> Iterator[None]:
    """Do something that may end the process, some times at most: Ray would begin it anew for ever.

    Args:
        marks: a file with a byte for each beginning, gone at the end.
        what: it is.
    """
    if marks.exists() and marks.stat().st_size >= _RETRIES:
        marks.unlink()
        raise FpnError(f"{what} has ended its worker {_RETRIES} times, perhaps for its memory: fewer or smaller images")
    with marks.open("ab") as file:
        file.write(b".")
    yield
    marks.unlink()


@contextmanager
def connect(workers: int | None, threads: int | None, *, device: str | None, most: int) -> Iterator[RayCluster]:
    """The cluster that RAY_ADDRESS names or that runs on this machine; else one that lives as long as the run.

    Args:
        workers: most at a time; None: as many as the cluster has room for.
        threads: of a worker; None: two, or one where a machine has no more.
        device: "cpu", "cuda", or None: a GPU each where the cluster has any.
        most: workers that have something to do.

    Raises:
        MissingExtraError: without the extra `ray`.
        ConfigError: a device that can't be the same on every machine, or no cluster where RAY_ADDRESS says.
    """
    if device not in (None, "cpu", "cuda"):
        raise ConfigError(f"device {device!r} with Ray: its workers take cpu or cuda; which GPU is Ray's choice")
    ray = import_ray()
    ours = not ray.is_initialized()
    if ours:
        _begin(ray)
    try:
        room = _room(ray, threads, device)
        yield replace(room, workers=max(1, min(workers or room.workers, most)))
    finally:
        if ours:
            ray.shutdown()


def import_ray() -> Any:
    """Ray, which tells nobody of its starts and shows no bars of its own.

    Raises:
        MissingExtraError: without the extra `ray`.
    """
    # Ray tells its makers of every start unless this is set; nobody asked for that.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Else it warns that a worker can't begin anew once its arguments are lost: they are here, with the run itself.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import_module("ray.data").DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # plans and their times
        return import_module("ray")
    except ImportError as error:
        raise MissingExtraError("a batch run by Ray needs the extra `ray`: pip install 'fpn[ray]'") from error


def _begin(ray: Any) -> None:
    quiet = {"logging_level": "error", "log_to_driver": False}
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError as error:
        if "RAY_ADDRESS" in os.environ:
            raise ConfigError(
                f"RAY_ADDRESS {os.environ['RAY_ADDRESS']}: no Ray cluster answers there. Start one (`ray start "
                "--head`), or unset RAY_ADDRESS to use this machine alone."
            ) from error
        try:
            ray.init(include_dashboard=False, **quiet)
        except Exception as slow:  # Ray has no kind of its own for it
            raise FpnError(
                f"Ray does not start here: {slow} On a machine that is busy its parts miss one another: try again, or "
                "leave out --engine ray."
            ) from slow


def _room(ray: Any, threads: int | None, device: str | None) -> RayCluster:
    """What the machines that are there now have room for."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [int(machine.get("CPU", 0)) for machine in machines]
    gpus = [int(machine.get("GPU", 0)) for machine in machines] if device != "cpu" else [0]
    per_worker = threads or max(1, min(2, *(count for count in cpus if count), 2))
    room = sum(gpus) or sum(count // per_worker for count in cpus)
    if not room:
        raise ConfigError(f"no machine of the Ray cluster has {per_worker} CPUs for a worker: choose fewer --threads")
    return RayCluster(room, per_worker, 1 if sum(gpus) else 0)


def _absolute(item: ImageItem) -> ImageItem:
    """Workers are elsewhere: what they open is named from the root."""
    return replace(item, file=str(Path(item.file).absolute()))


def _cause(error: BaseException) -> str:
    """What lies at the bottom of Ray's errors, in a line."""
    found: BaseException = error
    with suppress(AttributeError):
        while cause := getattr(found, "cause", None) or found.__cause__:
            found = cause
    return (str(found).strip().splitlines() or [type(found).__name__])[-1]
