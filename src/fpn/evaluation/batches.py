"""Images on their way to be measured: read and prepared by workers, batched by shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fpn.data.dataset import Dataset
from fpn.data.loading.workers import default_workers, fits_shared_memory, make_data_loader, start_workers
from fpn.errors import ConfigError, FpnError
from fpn.preprocessing.frame import Frame
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.structures import ImageBatch


@dataclass(frozen=True, slots=True)
class Batch:
    """Images in network pixels, how to get each one back, and their numbers in the dataset."""

    images: ImageBatch
    frames: list[Frame]
    numbers: list[int]


def read_batches(
    dataset: Dataset,
    preprocessor: Preprocessor,
    *,
    batch_size: int,
    workers: int | None,
    part: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Each image of the dataset once, those of like shape together: padding costs time, and shows at the rim.

    Args:
        dataset: whose images.
        preprocessor: the detector's preprocessor.
        batch_size: images a batch.
        workers: processes that read ahead; 0: this one reads; None: half of the cores.
        part: (number, count): only every `count`-th batch, for processes that share them out.

    Raises:
        FpnError: an image can't be read; the message names the file.
    """
    number, count = part
    workers = default_workers(count) if workers is None else workers
    if batch_size < 1 or workers < 0:
        raise ConfigError(f"batch_size {batch_size}, workers {workers}: at least 1 and 0")
    plan = _plan(dataset, batch_size)[number::count]
    workers = min(workers, len(plan) - 1) if len(plan) > 1 else 0
    loader: DataLoader[Any] = make_data_loader(
        _Workbench(dataset, preprocessor),
        sampler=plan,
        num_workers=workers,
    )
    for numbers, parcel in zip(plan, start_workers(loader), strict=True):
        if isinstance(parcel, FpnError):
            raise parcel
        pixels = [torch.as_tensor(each) for each, _ in parcel]
        frames = [frame for _, frame in parcel]
        yield Batch(preprocessor.collate(pixels, frames), frames, numbers)


def _plan(dataset: Dataset, batch_size: int) -> list[list[int]]:
    """Image numbers by shape, cut into batches."""
    sizes = [dataset.size(number) for number in range(len(dataset))]
    order = sorted(range(len(dataset)), key=lambda number: (sizes[number].height / sizes[number].width, number))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


@dataclass(frozen=True, slots=True)
class _Workbench:
    """What a worker does: read and prepare."""

    dataset: Dataset
    preprocessor: Preprocessor

    def __getitem__(self, numbers: list[int]) -> list[tuple[Tensor | np.ndarray, Frame]] | FpnError:
        try:
            return [self._prepare(number) for number in numbers]
        except FpnError as error:
            # As a value: torch would wrap what a worker raises into a page of traceback.
            return error

    def _prepare(self, number: int) -> tuple[Tensor | np.ndarray, Frame]:
        try:
            prepared = self.preprocessor.prepare(self.dataset[number].image)
        except FpnError as error:
            path = self.dataset.path(number)
            if path in str(error):
                raise
            raise type(error)(f"{path}: {error}") from error
        fits = fits_shared_memory(prepared.pixels)
        return prepared.pixels if fits else prepared.pixels.numpy(), prepared.frame
