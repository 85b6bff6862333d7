"""A shard of a batch run: some images, one Parquet file of them, whole or not there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpn.batch.arrow import write_columns
from fpn.batch.sources import ImageItem, ItemReader
from fpn.batch.worker import BatchSettings, BatchWorker
from fpn.image_io import ImageBytes, ImageLike

# A shard's number, and its images.
NumberedItems = tuple[int, list[ImageItem]]


@dataclass(frozen=True)
class ShardJob:
    """What every worker of a run is told.

    Attributes:
        model: a model file, or an exported one.
        settings: which objects, and how they are found.
        output: the folder of the shards.
        threads: of a worker.
        identity: what decides the shards' content; written into each.
    """

    model: str
    settings: BatchSettings
    output: Path
    threads: int
    identity: dict[str, Any]

    def path(self, number: int) -> Path:
        """Where a shard lies."""
        return self.output / f"detections-{number:06d}.parquet"

    def load(self) -> BatchWorker:
        """A worker with the model."""
        return BatchWorker(self.settings.load(self.model), self.settings)

    def make(self, worker: BatchWorker, number: int, items: Sequence[ImageItem]) -> int:
        """Make one shard; how many images it has."""
        columns = worker.detect([item.name for item in items], _read(items))
        write_columns(columns, self.path(number), {**self.identity, "shard": number})
        return len(items)


def _read(items: Sequence[ImageItem]) -> Iterator[ImageLike]:
    """Images, or for what is not there any more what is said as of an empty file."""
    read = ItemReader()
    for item in items:
        try:
            yield read(item)
        except OSError:
            yield ImageBytes(b"", item.name)
