"""Which images come when: a function of seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Marks the stream of the order, so that it differs from the streams of the images' changes.
_ORDER = 0x0D3


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """Which images make which batch: a function of (seed, epoch), cut into equal shares for `world_size` processes.

    Attributes:
        count: number of images.
        batch_size: images a batch and process.
        seed: of the shuffling.
        shuffle: otherwise images come by number.
        drop_last: leave out what doesn't fill a batch in every process.
        upright: (count,) bool, images higher than wide. Batches hold one kind where possible, so that little is
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
        """This process's batches of image numbers."""
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
        # A batch's turn comes when the last of its images would have come.
        full.sort(key=lambda places: int(places[-1]))
        return [order[places] for places in [*full, *_chunks(np.sort(np.concatenate(rest)), together)]]

    def _share(self, group: np.ndarray, order: np.ndarray) -> list[int]:
        missing = self.world_size - len(group)
        if missing > 0:
            # A process without an image would hang the others: repeat some of the epoch's first.
            group = np.concatenate([group, np.resize(order, missing)])
        return [int(number) for number in np.array_split(group, self.world_size)[self.rank]]


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


def _chunks(values: np.ndarray, length: int) -> list[np.ndarray]:
    return [values[start : start + length] for start in range(0, len(values), length)]
