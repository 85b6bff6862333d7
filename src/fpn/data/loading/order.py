"""Which images come when: a function of seed and epoch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

# Mark the streams of order and repeats, so that they differ from the streams of the images' changes.
_ORDER, _REPEAT = 0x0D3, 0x4E9


def repeat_factors(classes: Iterable[Iterable[int]], threshold: float) -> np.ndarray:
    """How often each image should come in an epoch so that rare classes are seen more often: (count,), from 1 on.

    A class that the share f of all images has asks for max(1, sqrt(threshold / f)); of an image's classes, the one that
    asks for most decides.

    Args:
        classes: of each image's objects that count.
        threshold: share of the images, 0..1. A class that more of them have asks for nothing.

    Source: Gupta et al. 2019, arXiv:1908.03195 (LVIS), appendix B.
    """
    present = [frozenset(each) for each in classes]
    counts = Counter(label for each in present for label in each)
    asked = {label: max(1.0, math.sqrt(threshold * len(present) / count)) for label, count in counts.items()}
    return np.array([max((asked[label] for label in each), default=1.0) for each in present])


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """Which images make which batch: a function of (seed, epoch), cut into equal shares for `world_size` processes.

    An image that comes once is its number n; one that comes again is n + count, n + 2 * count, ..., so that an entry
    modulo count is its image.

    Attributes:
        count: number of images.
        batch_size: images a batch and process.
        seed: of the shuffling.
        shuffle: otherwise images come by number.
        drop_last: leave out what doesn't fill a batch in every process.
        upright: (count,) bool, images higher than wide. Batches hold one kind where possible, so that little is
            padding. None: no grouping.
        repeats: (count,) how often each image comes an epoch, from 1 on, a fraction being a chance; every epoch is as
            long as another. None: each once.
        rank, world_size: which process of how many. All together take the batches that one process would take with a
            batch size `world_size` times as large; each gets as many batches as the others, none of them empty.
    """

    count: int
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = False
    upright: np.ndarray | None = None
    repeats: np.ndarray | None = None
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        """Batches an epoch."""
        together = self.batch_size * self.world_size
        return self.total // together if self.drop_last else -(-self.total // together)

    @property
    def total(self) -> int:
        """Images an epoch, counted as often as they come."""
        return self.count if self.repeats is None else round(float(self.repeats.sum()))

    def batches(self, epoch: int) -> list[list[int]]:
        """This process's batches of entries."""
        order = self._shuffled(epoch)
        groups = self._grouped(order)[: len(self)]
        return [self._share(group, order) for group in groups]

    def _shuffled(self, epoch: int) -> np.ndarray:
        entries = np.arange(self.count) if self.repeats is None else self._repeated(epoch, self.repeats)
        if not self.shuffle:
            return entries
        order = np.random.default_rng((self.seed, epoch, _ORDER)).permutation(len(entries))
        shuffled: np.ndarray = entries[order]
        return shuffled

    def _repeated(self, epoch: int, repeats: np.ndarray) -> np.ndarray:
        """Each image as often as its factor says: its whole part always, its fraction as a chance.

        Fractions are laid end to end in random order and hit by points a step of one apart, so that the epoch's length
        is the same each time.
        """
        whole = np.floor(repeats).astype(np.int64)
        more = self.total - int(whole.sum())
        random = np.random.default_rng((self.seed, epoch, _REPEAT))
        mixed = random.permutation(self.count)
        ends = np.cumsum((repeats - whole)[mixed])
        if more:
            ends *= more / ends[-1]  # the sum of all was rounded
            hit = np.searchsorted(ends, np.arange(more) + random.random(), side="right")
            np.add.at(whole, mixed[np.minimum(hit, self.count - 1)], 1)
        numbers = np.repeat(np.arange(self.count), whole)
        turns: np.ndarray = np.arange(len(numbers)) - np.repeat(np.cumsum(whole) - whole, whole)
        return np.asarray(numbers + turns * self.count)

    def _grouped(self, order: np.ndarray) -> list[np.ndarray]:
        """Cut the order into batches of all processes together; each is full but the last."""
        together = self.batch_size * self.world_size
        if self.upright is None:
            return _chunks(order, together)
        full, rest = [], []
        for kind in (True, False):
            places = np.flatnonzero(self.upright[order % self.count] == kind)
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
    """The rest of an epoch, as torch's loader wants it: one (epoch, entries) a batch."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.epoch, self.skip = 0, 0

    def begin(self, epoch: int, skip: int) -> None:
        self.epoch, self.skip = epoch, skip

    def __len__(self) -> int:
        return max(0, len(self.order) - self.skip)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        return iter([(self.epoch, entries) for entries in self.order.batches(self.epoch)[self.skip :]])


def _chunks(values: np.ndarray, length: int) -> list[np.ndarray]:
    return [values[start : start + length] for start in range(0, len(values), length)]
