"""A batch run: shards of images, each a Parquet file, by some processes; after any stop it makes what is missing."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from fpn.batch.arrow import pyarrow_parquet, write_columns
from fpn.batch.sources import ImageItem, ItemReader, iterate_items
from fpn.batch.worker import BatchSettings, BatchWorker
from fpn.detectors.prediction import Predictor
from fpn.errors import ConfigError, FpnError, OutputError
from fpn.files import write_text
from fpn.image_io import ImageBytes, ImageLike
from fpn.runtime.capacity import find_capacity
from fpn.version import __version__

# Beside the shards; what begins with an underscore, readers of Parquet folders leave out.
MANIFEST = "_batch.json"
_SHARD = "detections-{:06d}.parquet"


@dataclass(frozen=True)
class Listing:
    """What a run has before it.

    Attributes:
        images: how many.
        digest: of all their names, in order.
    """

    images: int
    digest: str

    def shards(self, size: int) -> int:
        """How many there are of `size` images each."""
        return -(-self.images // size)


@dataclass(frozen=True)
class BatchSummary:
    """What a finished run has found.

    Attributes:
        folder: where the shards lie.
        images: how many.
        failed: how many of them could not be read.
        detections: in all of them, by class.
        going_on: shards that an earlier run had done.
    """

    folder: Path
    images: int
    failed: int
    detections: dict[str, int]
    going_on: int


def list_items(sources: Sequence[str], column: str | None) -> Listing:
    """Count the images and take the digest of their names."""
    digest, count = hashlib.sha256(), 0
    for item in iterate_items(sources, column=column):
        digest.update(item.name.encode("utf-8", "surrogateescape") + b"\0")
        count += 1
    return Listing(count, digest.hexdigest())


def run_batch(
    model: str | os.PathLike[str],
    sources: Sequence[str],
    output: Path,
    settings: BatchSettings,
    *,
    workers: int | None = None,
    shard_size: int = 1000,
    column: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BatchSummary:
    """Find objects in all images of some sources, and write them as Parquet shards.

    Each shard is there whole or not at all. Called again with the same arguments after a stop of any kind, a run makes
    the shards that are missing, and what it makes is the same to the bit.

    Args:
        model: a model file, or an exported one.
        sources: see `iterate_items`.
        output: a folder: new, empty, or of the same run.
        settings: which objects, and how they are found.
        workers: processes, each with the model and its share of the cores; None: one for two cores on a CPU, else one.
        shard_size: images a shard.
        column: see `iterate_items`.
        progress: called with the number of images done, and of all.

    Raises:
        OutputError: the folder holds something else, or can't be written to.
        DataError, DataNotFoundError, ConfigError, MissingExtraError, ModelFileError: before anything is written.
    """
    if shard_size < 1 or (workers is not None and workers < 1):
        raise ConfigError(f"shard_size {shard_size}, workers {workers}: must be at least 1")
    pyarrow_parquet("a batch run writes Parquet files")
    listing = list_items(sources, column)
    workers, threads = _share(workers, settings, listing.shards(shard_size))
    predictor = settings.load(os.fspath(model))  # what is wrong with it is said before anything is written
    identity = _identity(Path(model), listing, settings, shard_size, threads)
    _claim(output, identity)
    missing = [number for number in range(listing.shards(shard_size)) if not (output / _SHARD.format(number)).exists()]
    job = _Job(os.fspath(model), settings, output, threads, identity)
    tell = progress or (lambda done, of: None)
    done = listing.images - sum(min(shard_size, listing.images - number * shard_size) for number in missing)
    tell(done, listing.images)
    for count in _finished(job, predictor, _pick(sources, column, shard_size, frozenset(missing)), workers):
        done += count
        tell(done, listing.images)
    summary = _summarise(output, listing, shard_size, going_on=listing.shards(shard_size) - len(missing))
    totals = {"failed": summary.failed, "detections": summary.detections}
    write_text(output / MANIFEST, json.dumps({**identity, "finished": totals}, indent=1) + "\n")
    return summary


def _share(workers: int | None, settings: BatchSettings, shards: int) -> tuple[int, int]:
    """Processes, and threads of each."""
    capacity = find_capacity(cpu=settings.device == "cpu")
    usual = max(1, capacity.cores // 2) if capacity.kind == "cpu" else 1
    chosen = workers or usual
    return max(1, min(chosen, shards)), max(1, capacity.cores // chosen)


def _identity(model: Path, listing: Listing, settings: BatchSettings, shard_size: int, threads: int) -> dict[str, Any]:
    """All that decides what the shards hold."""
    with model.open("rb") as stream:
        weights = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        "version": __version__,
        "torch": torch.__version__,
        "model": weights,
        "images": listing.images,
        "names": listing.digest,
        "shard_size": shard_size,
        "threads": threads,
        "settings": settings.model_dump(mode="json"),
    }


def _claim(output: Path, identity: dict[str, Any]) -> None:
    """Make the folder this run's; or find that it is."""
    manifest = output / MANIFEST
    if manifest.exists():
        try:
            earlier = json.loads(manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(f"{manifest}: can't be read ({error}). Choose another --output.") from error
        others = [name for name, value in identity.items() if earlier.get(name) != value]
        if others:
            raise OutputError(
                f"{output}: holds a batch run of another kind: {', '.join(others)} differ from {MANIFEST}. Choose "
                "another --output, or the same arguments as then."
            )
        return
    if output.is_dir() and any(output.iterdir()):
        raise OutputError(f"{output}: is not empty, and holds no batch run to go on with. Choose another --output.")
    write_text(manifest, json.dumps(identity, indent=1) + "\n")


def _pick(
    sources: Sequence[str], column: str | None, size: int, missing: frozenset[int]
) -> Iterator[tuple[int, list[ImageItem]]]:
    items, number = iterate_items(sources, column=column), 0
    while shard := list(islice(items, size)):
        if number in missing:
            yield number, shard
        number += 1


@dataclass(frozen=True)
class _Job:
    """What every process of a run is told."""

    model: str
    settings: BatchSettings
    output: Path
    threads: int
    identity: dict[str, Any]

    def make(self, worker: BatchWorker, number: int, items: Sequence[ImageItem]) -> int:
        """Make one shard; how many images it has."""
        columns = worker.detect([item.name for item in items], _read(items))
        path = self.output / _SHARD.format(number)
        write_columns(columns, path, {**self.identity, "shard": number})
        return len(items)


def _read(items: Sequence[ImageItem]) -> Iterator[ImageLike]:
    """Images, or for what is not there any more what is said as of an empty file."""
    read = ItemReader()
    for item in items:
        try:
            yield read(item)
        except OSError:
            yield ImageBytes(b"", item.name)


def _finished(
    job: _Job, predictor: Predictor, shards: Iterator[tuple[int, list[ImageItem]]], workers: int
) -> Iterator[int]:
    """Images of each shard as it is done: by this process with the predictor that it has, or by several."""
    if workers == 1:
        before = torch.get_num_threads()
        torch.set_num_threads(job.threads)
        try:
            for number, items in shards:
                yield job.make(BatchWorker(predictor, job.settings), number, items)
        finally:
            torch.set_num_threads(before)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(job,)) as pool:
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


_here: tuple[_Job, BatchWorker] | None = None


def _begin(job: _Job) -> None:
    """What a process of the pool does first."""
    global _here
    # Ctrl-C reaches all processes of a terminal; the main one decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(job.threads)
    _here = job, BatchWorker(job.settings.load(job.model), job.settings)


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


def _summarise(output: Path, listing: Listing, size: int, *, going_on: int) -> BatchSummary:
    parquet = pyarrow_parquet("the results are Parquet files")
    failed, found = 0, dict[str, int]()
    for number in range(listing.shards(size)):
        table = parquet.read_table(output / _SHARD.format(number), columns=["error", "labels"])
        failed += table.num_rows - table["error"].null_count
        for labels in table["labels"].to_pylist():
            for label in labels or ():
                found[label] = found.get(label, 0) + 1
    return BatchSummary(output, listing.images, failed, dict(sorted(found.items())), going_on)
