"""Batches for training: which pictures, in which order, and the workers that read, change and prepare them.

The order is a function of (seed, epoch), a picture's changes of (seed, epoch, index). So nothing has to be remembered
but (epoch, batch) to go on exactly where a run stopped, with any number of workers. The epoch travels with each batch's
numbers; workers that live on from epoch to epoch can't miss it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from fpn.data.augmentation import random_for
from fpn.data.dataset import Dataset, Sample
from fpn.errors import ConfigError, FpnError, TrainingError
from fpn.shapes import Size
from fpn.structures import ImageBatch, Targets

# Marks the stream of the order, so that it differs from the streams of the pictures' changes.
_ORDER = 0x0D3


@runtime_checkable
class Prepared(Protocol):
    """What `prepare` returns: at least network pixels (3, h, w), and targets in them."""

    @property
    def pixels(self) -> Tensor: ...  # noqa: D102

    @property
    def targets(self) -> Targets | None: ...  # noqa: D102


Prepare = Callable[[Image.Image, Targets], Prepared]
Collate = Callable[[Sequence[Tensor]], ImageBatch]
Enough = Callable[[Size], Size]
Change = Callable[[Sample, torch.Generator], Sample]


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's pictures.

    Attributes:
        images: B pictures in network pixels.
        targets: their objects in network pixels.
        indices: their numbers in the dataset.
    """

    images: ImageBatch
    targets: list[Targets]
    indices: list[int]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(self.images.to(device), [each.to(device) for each in self.targets], self.indices)


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """Which pictures make which batch: a function of (seed, epoch), cut into equal shares for `world_size` processes.

    Attributes:
        count: number of pictures.
        batch_size: pictures a batch and process.
        seed: of the shuffling.
        shuffle: otherwise pictures come by number.
        drop_last: leave out what doesn't fill a batch in every process.
        upright: (count,) bool, pictures higher than wide. Batches hold one kind where possible, so that little is
            padding. None: no grouping.
        rank, world_size: which process of how many. All together take the batches that one process would take with a
            batch size `world_size` times as large; each gets as many batches as the others, none of them empty.
    """

    count: int
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = False
    upright: np.ndarray | None = None
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        """Batches an epoch."""
        together = self.batch_size * self.world_size
        return self.count // together if self.drop_last else -(-self.count // together)

    def batches(self, epoch: int) -> list[list[int]]:
        """This process's batches of picture numbers."""
        order = self._shuffled(epoch)
        groups = self._grouped(order)[: len(self)]
        return [self._share(group, order) for group in groups]

    def _shuffled(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.count)
        return np.random.default_rng((self.seed, epoch, _ORDER)).permutation(self.count)

    def _grouped(self, order: np.ndarray) -> list[np.ndarray]:
        """Cut the order into batches of all processes together; each is full but the last."""
        together = self.batch_size * self.world_size
        if self.upright is None:
            return _chunks(order, together)
        full, rest = [], []
        for kind in (True, False):
            places = np.flatnonzero(self.upright[order] == kind)
            end = len(places) - len(places) % together
            full += _chunks(places[:end], together)
            rest.append(places[end:])
        # A batch's turn comes when the last of its pictures would have come.
        full.sort(key=lambda places: int(places[-1]))
        return [order[places] for places in [*full, *_chunks(np.sort(np.concatenate(rest)), together)]]

    def _share(self, group: np.ndarray, order: np.ndarray) -> list[int]:
        missing = self.world_size - len(group)
        if missing > 0:
            # A process without a picture would hang the others: repeat some of the epoch's first.
            group = np.concatenate([group, np.resize(order, missing)])
        return [int(number) for number in np.array_split(group, self.world_size)[self.rank]]


class Loader:
    """Iterates over one epoch's batches; workers read ahead.

    ```python
    for epoch in range(12):
        loader.set_epoch(epoch)
        for batch in loader:
            ...
    ```
    """

    def __init__(
        self,
        dataset: Dataset,
        order: Order,
        *,
        prepare: Prepare,
        collate: Collate,
        augment: Change | None = None,
        enough: Enough | None = None,
        masks: bool = False,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        """See `make_loader`."""
        self.dataset, self.order = dataset, order
        self.epoch, self.position, self._skip = 0, 0, 0
        self._plan = _Plan(order)
        self._workers: DataLoader[Any] = make_data_loader(
            _Workbench(dataset, prepare, collate, augment, None if masks else enough, masks, order.seed),
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

    def __iter__(self) -> Iterator[Batch]:
        """The epoch's batches, from `skip` on.

        Raises:
            PictureError, DataNotFoundError, DataError: a picture can't be read, wherever it was read; the message
                names the file.
        """
        self.position, self._skip = self._skip, 0
        self._plan.begin(self.epoch, self.position)
        for parcel in start_workers(self._workers):
            if isinstance(parcel, FpnError):
                raise parcel
            self.position += 1
            yield parcel.unpack()

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
    enough: Enough | None = None,
    batch_size: int = 4,
    seed: int = 0,
    num_workers: int | None = None,
    shuffle: bool = True,
    aspect_grouping: bool = True,
    drop_last: bool = False,
    masks: bool = False,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> Loader:
    """Build the loader of a training run.

    Args:
        dataset: the labelled pictures.
        prepare: the detector's `preprocessor.prepare`: picture and targets into network pixels.
        collate: the detector's `preprocessor.collate`: pads network pixels to a batch.
        augment: random changes, see `Augment`.
        enough: from a picture's full size to what `prepare` needs of it, such as the preprocessor's `enough`: JPEG
            files far larger are then decoded at a part of their size, unless `masks`. None: in full.
        batch_size: pictures a batch and process.
        seed: of order and changes.
        num_workers: processes that read ahead; 0: this one reads; None: as many as `default_workers` says.
        shuffle: another order each epoch.
        aspect_grouping: put upright and lying pictures into different batches, where possible.
        drop_last: leave out the last batch when it is not full.
        masks: also bring the objects' masks. They take more memory than the pictures.
        rank, world_size: this process's number, and how many train together.
        pin_memory: put batches where a GPU fetches them fastest.

    Raises:
        ConfigError: a setting is out of range.
        TrainingError: there is no picture, or not one full batch.
    """
    num_workers = default_workers(world_size) if num_workers is None else num_workers
    _check_settings(batch_size, num_workers, seed, rank, world_size)
    order = Order(
        count=len(dataset),
        batch_size=batch_size,
        seed=seed,
        shuffle=shuffle,
        drop_last=drop_last,
        upright=_upright(dataset) if aspect_grouping else None,
        rank=rank,
        world_size=world_size,
    )
    if len(order) == 0:
        raise TrainingError(
            f"{dataset.name}: {len(dataset)} pictures make no batch of {batch_size} for each of {world_size} "
            "processes. Add pictures or take a smaller batch size."
        )
    return Loader(
        dataset,
        order,
        prepare=prepare,
        collate=collate,
        augment=augment,
        enough=enough,
        masks=masks,
        num_workers=num_workers,
        pin_memory=pin_memory,
    )


def default_workers(world_size: int = 1) -> int:
    """Half of this process's share of the cores, 1 to 8.

    One worker prepares a few hundred small pictures a second; a step on the CPU takes far longer, one on a GPU needs
    more of them.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // (2 * world_size)))


@dataclass(frozen=True, slots=True)
class _Parcel:
    """A batch as workers send it: few and flat tensors, since each crosses the border through a file of its own."""

    pixels: Tensor | np.ndarray
    sizes: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    masks: list[np.ndarray | None]
    counts: list[int]
    indices: list[int]

    @classmethod
    def pack(cls, images: ImageBatch, targets: Sequence[Targets], indices: list[int]) -> _Parcel:
        pixels: Tensor | np.ndarray = images.pixels
        if not fits_shared_memory(images.pixels):
            pixels = images.pixels.numpy()
        return cls(
            pixels=pixels,
            sizes=images.sizes.numpy(),
            boxes=torch.cat([each.boxes for each in targets]).numpy(),
            labels=torch.cat([each.labels for each in targets]).numpy(),
            ignore=torch.cat([each.ignore for each in targets]).numpy(),
            masks=[_pack_masks(each.masks) for each in targets],
            counts=[len(each) for each in targets],
            indices=indices,
        )

    def unpack(self) -> Batch:
        pixels = self.pixels if isinstance(self.pixels, Tensor) else torch.from_numpy(self.pixels)
        images = ImageBatch(pixels, torch.from_numpy(self.sizes))
        flat = (torch.from_numpy(each) for each in (self.boxes, self.labels, self.ignore))
        columns = (torch.split(each, self.counts) for each in flat)
        rows = zip(*columns, self.masks, self.counts, strict=True)
        targets = [
            Targets(boxes, labels, ignore, _unpack_masks(masks, count, images, number))
            for number, (boxes, labels, ignore, masks, count) in enumerate(rows)
        ]
        return Batch(images, targets, self.indices)

    def pin_memory(self) -> _Parcel:
        """Called by torch's loader. What is small is not worth it."""
        pixels = self.pixels if isinstance(self.pixels, Tensor) else torch.from_numpy(self.pixels)
        return replace(self, pixels=pixels.pin_memory())


def _pack_masks(masks: Tensor | None) -> np.ndarray | None:
    # Eight pixels a byte.
    return None if masks is None else np.packbits(masks.numpy())


def _unpack_masks(packed: np.ndarray | None, count: int, images: ImageBatch, number: int) -> Tensor | None:
    if packed is None:
        return None
    height, width = images.sizes[number].tolist()
    bits = np.unpackbits(packed, count=count * height * width)
    return torch.from_numpy(bits.view(np.bool_).reshape(count, height, width))


class _Plan:
    """The rest of an epoch, as torch's loader wants it: one (epoch, numbers) a batch."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.epoch, self.skip = 0, 0

    def begin(self, epoch: int, skip: int) -> None:
        self.epoch, self.skip = epoch, skip

    def __len__(self) -> int:
        return max(0, len(self.order) - self.skip)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        return iter([(self.epoch, numbers) for numbers in self.order.batches(self.epoch)[self.skip :]])


@dataclass(frozen=True, slots=True)
class _Workbench:
    """What a worker does: read, change, prepare, collate."""

    dataset: Dataset
    prepare: Prepare
    collate: Collate
    augment: Change | None
    enough: Enough | None
    masks: bool
    seed: int

    def __getitem__(self, item: tuple[int, list[int]]) -> _Parcel | FpnError:
        epoch, numbers = item
        try:
            prepared = [self._prepare(epoch, number) for number in numbers]
        except FpnError as error:
            # As a value: torch would wrap what a worker raises into a page of traceback.
            return error
        images = self.collate([each.pixels for each in prepared])
        targets = [Targets.empty() if each.targets is None else each.targets for each in prepared]
        return _Parcel.pack(images, targets, numbers)

    def _prepare(self, epoch: int, number: int) -> Prepared:
        path = self.dataset.path(number)
        try:
            sample = self.dataset.sample(number, enough=self.enough)
            if self.masks:
                sample = replace(sample, targets=self.dataset.targets(number, masks=True))
            if self.augment is not None:
                sample = self.augment(sample, random_for(self.seed, epoch, number))
            return self.prepare(sample.picture, sample.targets)
        except FpnError as error:
            if path in str(error):
                raise
            raise type(error)(f"{path}: {error}") from error
        except Exception as error:
            error.add_note(f"while preparing {path}")
            raise


def make_data_loader(workbench: object, *, num_workers: int, **options: Any) -> DataLoader[Any]:
    """Torch's loader over a plan (`sampler`) whose items are whole batches, as all our readers use it."""
    with warnings.catch_warnings():
        # More workers than cores was the caller's wish: one that waits for a network disk needs no core.
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        return DataLoader(
            workbench,  # type: ignore[arg-type]
            batch_size=None,
            num_workers=num_workers,
            worker_init_fn=begin_work if num_workers else None,
            multiprocessing_context=start_method() if num_workers else None,
            # Else each epoch would draw from torch's own source, and a resumed run would differ from an unbroken one.
            generator=torch.Generator(),
            **options,
        )


def start_workers(loader: DataLoader[Any]) -> Iterator[Any]:
    """Begin to iterate over torch's loader."""
    with warnings.catch_warnings():
        # From Python 3.12 on, forking a process with threads warns. Our workers use one thread each, and start in
        # milliseconds instead of importing torch again.
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        return iter(loader)


def begin_work(_: int) -> None:
    """What a loader worker does first."""
    # Ctrl-C reaches all processes of a terminal; the main one decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def start_method() -> str:
    """How loader workers start: forked where that exists."""
    return "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"


def fits_shared_memory(pixels: Tensor) -> bool:
    """Whether a worker may use shared memory: containers often have 64 MB of it, and die when it is full."""
    shared = Path("/dev/shm")
    if torch.utils.data.get_worker_info() is None or not shared.is_dir():
        return True
    free = os.statvfs(shared)
    return free.f_bavail * free.f_frsize > 8 * pixels.nbytes


def _upright(dataset: Dataset) -> np.ndarray:
    sizes = (dataset.size(number) for number in range(len(dataset)))
    return np.fromiter((size.height > size.width for size in sizes), dtype=bool, count=len(dataset))


def _chunks(values: np.ndarray, length: int) -> list[np.ndarray]:
    return [values[start : start + length] for start in range(0, len(values), length)]


def _check_settings(batch_size: int, num_workers: int, seed: int, rank: int, world_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: must be at least 1")
    if num_workers < 0:
        raise ConfigError(f"num_workers={num_workers}: must be 0 (read in this process) or more")
    if seed < 0:
        raise ConfigError(f"seed={seed}: must be 0 or more")
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank={rank}, world_size={world_size}: ranks count from 0 to world_size - 1")
