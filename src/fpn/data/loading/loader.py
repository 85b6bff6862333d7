"""Batches for training: which images, in which order, and the workers that read, change and prepare them.

The order is a function of (seed, epoch), an image's changes of (seed, epoch, index). So nothing has to be remembered
but (epoch, batch) to go on exactly where a run stopped, with any number of workers. The epoch travels with each batch's
numbers; workers that live on from epoch to epoch can't miss it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from fpn.data.dataset import Dataset, Sample
from fpn.data.loading.augmentation.chances import random_for
from fpn.data.loading.augmentation.compositing import Partners
from fpn.data.loading.batch import LabelledBatch, _Parcel
from fpn.data.loading.order import Order, _Plan
from fpn.data.loading.workers import default_workers, make_data_loader, start_workers
from fpn.errors import ConfigError, DataNotFoundError, FpnError, ImageError, TrainingError
from fpn.image_io import CUT_SHORT, ImageWarning
from fpn.runtime.unheard import unheard
from fpn.shapes import Size
from fpn.structures import ImageBatch, Targets


@runtime_checkable
class PreparedImage(Protocol):
    """What `prepare` returns: at least network pixels (3, h, w), and targets in them."""

    @property
    def pixels(self) -> Tensor: ...  # noqa: D102

    @property
    def targets(self) -> Targets | None: ...  # noqa: D102


Prepare = Callable[[Image.Image, Targets], PreparedImage]
Collate = Callable[[Sequence[Tensor]], ImageBatch]
MinSize = Callable[[Size], Size]


@runtime_checkable
class Change(Protocol):
    """What changes a labelled image at random, such as `Augment`: the image, its chances, and what it may join."""

    @property
    def wants_masks(self) -> bool:
        """Whether objects should come with their masks, also where the network doesn't learn from them."""

    def __call__(self, sample: Sample, random: torch.Generator, partners: Partners) -> Sample: ...  # noqa: D102


_T = TypeVar("_T")
# Damaged images one after another that are skipped: more, and something else is wrong.
_MOST_SKIPPED = 100


class Loader:
    """Iterates over one epoch's batches; workers read ahead.

    ```python
    for epoch in range(12):
        loader.set_epoch(epoch)
        for batch in loader:
            ...
    ```

    Attributes:
        unreadable: path -> why, of the images that were left out so far (`skip_unreadable`).
        cut_short: path -> what is missing, of the images that were used so far although their end is missing.
    """

    unreadable: dict[str, str]
    cut_short: dict[str, str]

    def __init__(
        self,
        dataset: Dataset,
        order: Order,
        *,
        prepare: Prepare,
        collate: Collate,
        augment: Change | None = None,
        min_size: MinSize | None = None,
        masks: bool = False,
        skip_unreadable: bool = False,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        """See `make_loader`."""
        self.unreadable, self.cut_short = {}, {}
        self.dataset, self.order = dataset, order
        self.epoch, self.position, self._skip = 0, 0, 0
        self._plan = _Plan(order)
        self._workers: DataLoader[Any] = make_data_loader(
            _Workbench(dataset, prepare, collate, augment, min_size, masks, order.seed, skip_unreadable),
            sampler=self._plan,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
        )

    def __len__(self) -> int:
        """Batches an epoch, counted from its first."""
        return len(self.order)

    def set_epoch(self, epoch: int, *, skip: int = 0) -> None:
        """Say which epoch the next iteration is.

        Args:
            epoch: from 0.
            skip: batches of it that are done already.
        """
        self.epoch, self.position, self._skip = epoch, skip, skip

    def state(self) -> dict[str, int]:
        """Where we are: the epoch, and how many of its batches were handed out; `set_epoch(**state)` goes there."""
        return {"epoch": self.epoch, "skip": self.position}

    def __iter__(self) -> Iterator[LabelledBatch]:
        """The epoch's batches, from `skip` on.

        Raises:
            ImageError, DataNotFoundError, DataError: an image can't be read, wherever it was read; the message
                names the file.
        """
        self.position, self._skip = self._skip, 0
        self._plan.begin(self.epoch, self.position)
        for parcel in start_workers(self._workers):
            if isinstance(parcel, FpnError):
                raise parcel
            self.position += 1
            self._note(parcel)
            yield parcel.unpack()

    def _note(self, parcel: _Parcel) -> None:
        """Say of each image once what was wrong with it."""
        for path, problem in parcel.unreadable.items():
            if path not in self.unreadable:
                warnings.warn(ImageWarning(f"left out: {problem}"), stacklevel=3)
        for path, problem in parcel.cut_short.items():
            if path not in self.cut_short:
                warnings.warn(ImageWarning(f"{path}: the file is cut short, {problem}. It is used."), stacklevel=3)
        self.unreadable.update(parcel.unreadable)
        self.cut_short.update(parcel.cut_short)

    def close(self) -> None:
        """End the workers. They also end with the loader."""
        if isinstance(self._workers._iterator, _MultiProcessingDataLoaderIter):
            self._workers._iterator._shutdown_workers()
        self._workers._iterator = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_loader(
    dataset: Dataset,
    *,
    prepare: Prepare,
    collate: Collate,
    augment: Change | None = None,
    min_size: MinSize | None = None,
    batch_size: int = 4,
    seed: int = 0,
    num_workers: int | None = None,
    shuffle: bool = True,
    aspect_grouping: bool = True,
    repeats: np.ndarray | None = None,
    drop_last: bool = False,
    masks: bool = False,
    skip_unreadable: bool = False,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> Loader:
    """Build the loader of a training run.

    Args:
        dataset: the labelled images.
        prepare: the detector's `preprocessor.prepare`: image and targets into network pixels.
        collate: the detector's `preprocessor.collate`: pads network pixels to a batch.
        augment: random changes, see `Augment`; what it draws is a function of (seed, epoch, number), and of how many
            times the image came in the epoch.
        min_size: from an image's full size to what `prepare` needs of it, such as the preprocessor's `min_size`: JPEG
            files far larger are then decoded at a part of their size. None: in full.
        batch_size: images a batch and process.
        seed: of order and changes.
        num_workers: processes that read ahead; 0: this one reads; None: as many as `default_workers` says.
        shuffle: another order each epoch.
        aspect_grouping: put upright and lying images into different batches, where possible.
        repeats: how often each image comes an epoch, see `Order`; such as `repeat_factors` say.
        drop_last: leave out the last batch when it is not full.
        masks: also bring the objects' masks.
        skip_unreadable: put the next image that can be read in the place of one that can't, and note it in
            `unreadable`. False: stop there.
        rank, world_size: this process's number, and how many train together.
        pin_memory: put batches where a GPU fetches them fastest.

    Raises:
        ConfigError: a setting is out of range.
        TrainingError: there is no image, or not one full batch.
    """
    num_workers = default_workers(world_size) if num_workers is None else num_workers
    _check_settings(batch_size, num_workers, seed, rank, world_size)
    order = Order(
        count=len(dataset),
        batch_size=batch_size,
        seed=seed,
        shuffle=shuffle,
        drop_last=drop_last,
        upright=_upright(dataset, skip_unreadable) if aspect_grouping else None,
        repeats=repeats,
        rank=rank,
        world_size=world_size,
    )
    if len(order) == 0:
        raise TrainingError(
            f"{dataset.name}: {len(dataset)} images make no batch of {batch_size} for each of {world_size} "
            "processes. Add images or take a smaller batch size."
        )
    return Loader(
        dataset,
        order,
        prepare=prepare,
        collate=collate,
        augment=augment,
        min_size=min_size,
        masks=masks,
        skip_unreadable=skip_unreadable,
        num_workers=num_workers,
        pin_memory=pin_memory,
    )


@dataclass(frozen=True, slots=True)
class _Workbench:
    """What a worker does: read, change, prepare, collate."""

    dataset: Dataset
    prepare: Prepare
    collate: Collate
    augment: Change | None
    min_size: MinSize | None
    masks: bool
    seed: int
    skip_unreadable: bool = False

    def __getitem__(self, item: tuple[int, list[int]]) -> _Parcel | FpnError:
        epoch, entries = item
        lost: dict[str, str] = {}
        cut: dict[str, str] = {}
        try:
            pairs = [
                self._readable(entry, lost, lambda each: self._prepare(epoch, each, lost, cut)) for entry in entries
            ]
        except FpnError as error:
            # As a value: torch would wrap what a worker raises into a page of traceback.
            return error
        images = self.collate([each.pixels for _, each in pairs])
        targets = [Targets.empty() if each.targets is None else each.targets for _, each in pairs]
        used = [entry % len(self.dataset) for entry, _ in pairs]
        return _Parcel.pack(images, targets, used, unreadable=lost, cut_short=cut)

    def _readable(self, entry: int, lost: dict[str, str], read: Callable[[int], _T]) -> tuple[int, _T]:
        """An image, or the next that can be read if that is allowed: which entry, and what `read` made of it."""
        count = len(self.dataset)
        turn, number = divmod(entry, count)
        for each in range(number, number + min(count, _MOST_SKIPPED)):
            try:
                return turn * count + each % count, read(turn * count + each % count)
            except (ImageError, DataNotFoundError) as error:
                if not self.skip_unreadable:
                    raise
                lost[self.dataset.path(each % count)] = str(error)
        raise TrainingError(
            f"{self.dataset.name}: {len(lost)} images one after another can't be read, such as "
            f"{next(iter(lost.values())).removesuffix('.')}. See all with `fpn check`."
        )

    def _prepare(self, epoch: int, entry: int, lost: dict[str, str], cut: dict[str, str]) -> PreparedImage:
        number = entry % len(self.dataset)
        sample, beside = self._sample(number, cut), [self.dataset.path(number)]

        def join(partner: int) -> Sample:
            beside.append(self.dataset.path(partner))
            return self._readable(partner, lost, lambda each: self._sample(each, cut))[1]

        with _naming(beside):
            if self.augment is not None:
                partners = Partners(len(self.dataset), join)
                sample = self.augment(sample, random_for(self.seed, epoch, entry), partners)
            targets = sample.targets if self.masks else replace(sample.targets, masks=None)
            return self.prepare(sample.image, targets)

    def _sample(self, number: int, cut: dict[str, str]) -> Sample:
        path = self.dataset.path(number)
        masks = self.masks or (self.augment is not None and self.augment.wants_masks)
        with _naming([path]):
            with unheard(ImageWarning):  # the loader says so, once
                sample = self.dataset.sample(number, min_size=self.min_size, masks=masks)
            if CUT_SHORT in sample.image.info:
                cut[path] = sample.image.info[CUT_SHORT]
        return sample


@contextmanager
def _naming(paths: Sequence[str]) -> Iterator[None]:
    """Whatever goes wrong names the first image, unless it names one of them already."""
    try:
        yield
    except FpnError as error:
        if any(path in str(error) for path in paths):
            raise
        raise type(error)(f"{paths[0]}: {error}") from error
    except Exception as error:
        error.add_note(f"while preparing {paths[0]}")
        raise


def _upright(dataset: Dataset, skip_unreadable: bool) -> np.ndarray:
    sizes = (_size(dataset, number, skip_unreadable) for number in range(len(dataset)))
    return np.fromiter((size.height > size.width for size in sizes), dtype=bool, count=len(dataset))


def _size(dataset: Dataset, number: int, skip_unreadable: bool) -> Size:
    try:
        return dataset.size(number)
    except (ImageError, DataNotFoundError):
        if not skip_unreadable:
            raise
        return Size(1, 1)


def _check_settings(batch_size: int, num_workers: int, seed: int, rank: int, world_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: must be at least 1")
    if num_workers < 0:
        raise ConfigError(f"num_workers={num_workers}: must be 0 (read in this process) or more")
    if seed < 0:
        raise ConfigError(f"seed={seed}: must be 0 or more")
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank={rank}, world_size={world_size}: ranks count from 0 to world_size - 1")
