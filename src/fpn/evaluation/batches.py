"""A dataset's images on their way to be measured: read and prepared by workers, those of like shape together.

The workers are processes, not the threads of `predict_images`: a labelled dataset is long enough to be worth starting
them, its sizes are known before any image is read, and they share nothing with the network's own threads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from fpn.data.dataset import Dataset
from fpn.data.loading.workers import default_workers, fits_shared_memory, make_data_loader, start_workers
from fpn.detectors.prediction import ImageReader
from fpn.errors import ConfigError, DataNotFoundError, FpnError, ImageError
from fpn.preprocessing.frame import Frame
from fpn.preprocessing.preprocessor import Prepared, Preprocessor

# One image as it comes from a worker, or what is wrong with it.
_Read: TypeAlias = tuple[Tensor | np.ndarray, Frame] | FpnError


def read_batches(
    dataset: Dataset,
    preprocessor: Preprocessor,
    *,
    batch_size: int,
    workers: int | None,
    part: tuple[int, int] = (0, 1),
    unreadable: dict[int, str] | None = None,
    known: Collection[int] = (),
) -> Iterator[tuple[list[int], list[Prepared]]]:
    """Each image of the dataset once, with its number, those of like shape together: padding costs time.

    Args:
        dataset: whose images.
        preprocessor: the detector's preprocessor.
        batch_size: images a batch.
        workers: processes that read ahead; 0: this one reads; None: half of the cores.
        part: (number, count): only every `count`-th batch, for processes that share them out.
        unreadable: takes number -> why of images that can't be read, which are then left out.
        known: numbers of images that need not come. Others come with those that they would come with anyway, so that
            their padding is the same.

    Raises:
        FpnError: an image can't be read, and `unreadable` is None; the message names the file.
    """
    number, count = part
    workers = default_workers(count) if workers is None else workers
    if batch_size < 1 or workers < 0:
        raise ConfigError(f"batch_size {batch_size}, workers {workers}: at least 1 and 0")
    whole, done = _plan(dataset, batch_size)[number::count], set(known)
    plan = [batch for batch in whole if not done.issuperset(batch)]
    workers = min(workers, len(plan) - 1) if len(plan) > 1 else 0
    loader: DataLoader[Any] = make_data_loader(
        _BatchReader(ImageReader(preprocessor, _DatasetImages(dataset))),
        sampler=plan,
        num_workers=workers,
    )
    for numbers, parcel in zip(plan, start_workers(loader), strict=True):
        read = dict(zip(numbers, parcel, strict=True))
        for number, each in tuple(read.items()):
            if not isinstance(each, FpnError):
                continue
            if unreadable is None or not isinstance(each, ImageError | DataNotFoundError):
                raise each
            unreadable[number] = str(read.pop(number))
        if read:
            yield list(read), [Prepared(torch.as_tensor(pixels), None, frame) for pixels, frame in read.values()]


def _plan(dataset: Dataset, batch_size: int) -> list[list[int]]:
    """Image numbers by shape, cut into batches."""
    sizes = [dataset.size(number) for number in range(len(dataset))]
    order = sorted(range(len(dataset)), key=lambda number: (sizes[number].height / sizes[number].width, number))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


@dataclass(frozen=True, slots=True)
class _DatasetImages:
    """Reads an image by its number; what is wrong with it is said with its path."""

    dataset: Dataset

    def __call__(self, number: int) -> Image.Image:
        try:
            return self.dataset[number].image
        except FpnError as error:
            path = self.dataset.path(number)
            if path in str(error):
                raise
            raise type(error)(f"{path}: {error}") from error


@dataclass(frozen=True, slots=True)
class _BatchReader:
    """What a worker does: read and prepare the images of a batch."""

    reader: ImageReader[int]

    def __getitem__(self, numbers: list[int]) -> list[_Read]:
        parcel: list[_Read] = []
        for number in numbers:
            prepared = self.reader(number).prepared
            if isinstance(prepared, FpnError):
                # As a value: torch would wrap what a worker raises into a page of traceback.
                parcel.append(prepared)
                continue
            fits = fits_shared_memory(prepared.pixels)
            parcel.append((prepared.pixels if fits else prepared.pixels.numpy(), prepared.frame))
        return parcel
