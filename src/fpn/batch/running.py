"""A batch run: shards of images, each a Parquet file; after any stop it makes what is missing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from fpn.batch.arrow import pyarrow_parquet
from fpn.batch.listing import Listing, list_items
from fpn.batch.local_pool import LocalPool
from fpn.batch.ray_cluster import connect, import_ray
from fpn.batch.shards import NumberedItems, ShardJob
from fpn.batch.worker import BatchSettings, BatchWorker
from fpn.detectors.operating_point import choose_score
from fpn.errors import ConfigError, OutputError
from fpn.files import taken, write_text
from fpn.structures import Thresholds
from fpn.version import __version__

EngineName = Literal["local", "ray"]
# Beside the shards; what begins with an underscore, readers of Parquet folders leave out.
MANIFEST = "_batch.json"
# Of images that could not be read so many are named.
_NAMED = 5


@dataclass(frozen=True)
class BatchSummary:
    """What a finished run has found.

    Attributes:
        folder: where the shards lie.
        images: how many.
        failed: how many of them could not be read.
        detections: in all of them, by class.
        going_on: shards that an earlier run had done.
        score: from which on detections were kept.
        unread: of the first images that could not be read, why.
    """

    folder: Path
    images: int
    failed: int
    detections: dict[str, int]
    going_on: int
    score: float | Thresholds
    unread: tuple[str, ...]


def run_batch(
    model: str | os.PathLike[str],
    sources: Sequence[str],
    output: Path,
    settings: BatchSettings,
    *,
    engine: EngineName = "local",
    workers: int | None = None,
    threads: int | None = None,
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
        engine: "local": processes of this machine. "ray": Ray Data, on the cluster that RAY_ADDRESS names, or one
            that lives as long as the run; all its machines see the model, the sources and the output by the same paths.
        workers: processes, each with the model; None: one for two cores on a CPU, else one a GPU.
        threads: of each; None: its share of the cores. They decide the last bits of its sums.
        shard_size: images a shard.
        column: see `iterate_items`.
        progress: called with the number of images done, and of all.

    Raises:
        OutputError: the folder holds something else, or can't be written to.
        DataError, DataNotFoundError, ConfigError, MissingExtraError, ModelFileError: before anything is written.
    """
    given = {"shard_size": shard_size, "workers": workers, "threads": threads}
    if wrong := [f"{name} {value}" for name, value in given.items() if value is not None and value < 1]:
        raise ConfigError(f"{', '.join(wrong)}: must be at least 1")
    if engine == "ray":
        import_ray()  # the extra that it names brings Parquet files, too
    pyarrow_parquet("a batch run writes Parquet files")
    with list_items(sources, column) as listing:
        # What is wrong with the model is said before anything is written; the machine that a cluster is driven from may
        # have no GPU.
        here = settings.changed(device="cpu") if engine == "ray" else settings
        worker = BatchWorker(here.load(os.fspath(model)), here)
        shards = listing.shards(shard_size)
        with _engine(engine, workers, threads, device=settings.device, most=shards) as chosen:
            identity = _identity(Path(model), listing, settings, shard_size, chosen.threads)
            _claim(output, identity)
            job = ShardJob(os.fspath(model), settings, output, chosen.threads, identity)
            missing = [number for number in range(shards) if not job.path(number).exists()]
            done = listing.images - sum(min(shard_size, listing.images - number * shard_size) for number in missing)
            tell = progress or (lambda done, of: None)
            tell(done, listing.images)
            for count in chosen.run(job, worker, listing.pick(shard_size, frozenset(missing))):
                done += count
                tell(done, listing.images)
    chosen_score = choose_score(settings.score, getattr(worker.predictor, "thresholds", None))
    return _finish(job, listing, shards, going_on=shards - len(missing), score=chosen_score)


class _Engine(Protocol):
    """What makes shards: processes here, or a cluster."""

    @property
    def threads(self) -> int:
        """Of a worker; they decide the last bits of its sums."""
        ...

    def run(self, job: ShardJob, worker: BatchWorker, shards: Iterator[NumberedItems]) -> Iterator[int]:
        """Images of each shard as it is done."""
        ...


@contextmanager
def _engine(
    name: EngineName, workers: int | None, threads: int | None, *, device: str | None, most: int
) -> Iterator[_Engine]:
    match name:
        case "local":
            yield LocalPool.of_this_machine(workers, threads, cpu=device == "cpu", most=most)
        case "ray":
            with connect(workers, threads, device=device, most=most) as cluster:
                yield cluster


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
        if not isinstance(earlier, dict):
            raise taken(output, "folder", by="fpn batch")
        others = [name for name, value in identity.items() if earlier.get(name) != value]
        if "settings" in others and isinstance(earlier.get("settings"), dict):
            named = [name for name, value in identity["settings"].items() if earlier["settings"].get(name) != value]
            others = [*(name for name in others if name != "settings"), *(f"settings.{name}" for name in named)]
        if others:
            raise OutputError(
                f"{output}: holds a batch run of another kind: {', '.join(others)} differ from {MANIFEST}. Choose "
                "another --output, or the same arguments as then."
            )
        return
    if output.is_dir() and any(output.iterdir()):
        raise taken(output, "folder", by="fpn batch")
    write_text(manifest, json.dumps(identity, indent=1) + "\n")


def _finish(job: ShardJob, listing: Listing, shards: int, *, going_on: int, score: float | Thresholds) -> BatchSummary:
    """Count what all shards hold, and write it down."""
    parquet = pyarrow_parquet("the results are Parquet files")
    failed, found, unread = 0, dict[str, int](), list[str]()
    for number in range(shards):
        table = parquet.read_table(job.path(number), columns=["error", "labels"])
        failed += table.num_rows - table["error"].null_count
        unread += table["error"].drop_null()[: _NAMED - len(unread)].to_pylist()
        for labels in table["labels"].to_pylist():
            for label in labels or ():
                found[label] = found.get(label, 0) + 1
    found = dict(sorted(found.items()))
    totals = {"failed": failed, "detections": found}
    write_text(job.output / MANIFEST, json.dumps({**job.identity, "finished": totals}, indent=1) + "\n")
    return BatchSummary(job.output, listing.images, failed, found, going_on, score, tuple(unread))
