"""Which cells the RoIs read and which RoIs read a cell: the bookkeeping of pooling on a CPU, sorted by level.

Most of it is done by NumPy on one thread. It is some hundred short steps, each of which PyTorch would share among all
threads; as soon as something else runs on the machine, waiting for one another takes these threads longer than the
pooling itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpn.ops.roi_align.samplers import Span, Taps, merged
from fpn.runtime import memory

Integers = NDArray[np.int32]
Numbers = NDArray[np.float32]

# Numbers pooled at a time: they are still in the cache when they are moved to their place.
CHUNK_NUMBERS = 1 << 20
# Fewer RoIs than this are done together with others, although these read more or fewer cells.
_WORTH_A_CALL = 24
# Numbers a step of computing taps: so many that PyTorch's threads are worth it, few enough for the cache.
_BLOCK_NUMBERS = 1 << 17
# What a reader's bookkeeping takes for a cell, in numbers: it decides how many RoIs are done at a time.
_READER_NUMBERS = 64
_ENTRY_BITS = 32


@dataclass(frozen=True)
class Axis:
    """The taps of all RoIs along one axis, no two of a bin on the same cell.

    Attributes:
        cell: (R, S, T).
        weight: (R, S, T).
        used: (R,) taps that the RoI's bins have at most; what is behind them has weight 0.
    """

    cell: Integers
    weight: Numbers
    used: Integers

    @staticmethod
    def of(taps: Callable[[Span], Taps], span: Span, bins: int) -> Axis:
        """Compute the taps, block by block."""
        step = max(1, _BLOCK_NUMBERS // (bins * 8))
        starts = range(0, max(len(span.start), 1), step)
        blocks = [merged(taps(span[i : i + step])) for i in starts]
        most = max(block.cell.shape[2] for block in blocks)
        cell = np.zeros((len(span.start), bins, most), dtype=np.int32)
        weight = np.zeros(cell.shape, dtype=np.float32)
        for i, block in zip(starts, blocks, strict=True):
            part = slice(i, i + step), slice(None), slice(block.cell.shape[2])
            cell[part], weight[part] = block.cell.numpy(), block.weight.numpy()
        number = np.arange(1, most + 1, dtype=np.int32)
        return Axis(cell, weight, ((weight != 0) * number).max(axis=(1, 2)))

    def __getitem__(self, which: NDArray[np.int64]) -> Axis:
        """Some RoIs."""
        return Axis(self.cell[which], self.weight[which], self.used[which])


@dataclass(frozen=True)
class Windows:
    """What the RoIs read, sorted by level.

    Attributes:
        rows: vertical taps.
        columns: horizontal taps.
        base: (R,) cell where the RoI's image begins in its map.
        width: (R,) of the RoI's map.
        order: (R,) place of each RoI in the result.
        ends: number of RoIs up to the end of each level.
    """

    rows: Axis
    columns: Axis
    base: Integers
    width: Integers
    order: NDArray[np.int64]
    ends: Sequence[int]

    @staticmethod
    def of(rows: Axis, columns: Axis, base: Tensor, width: Tensor, map_index: Tensor, num_maps: int) -> Windows:
        """Sort by level, by taps a bin (RoIs done together are padded to the most of them), then by place."""
        level = map_index.numpy()
        place = base.numpy() + rows.cell[:, 0, 0].astype(np.int64) * width.numpy()
        order = np.lexsort((place, columns.used, rows.used, level))
        ends = np.bincount(level, minlength=num_maps).cumsum().tolist()
        firsts, widths = base.numpy().astype(np.int32), width.numpy().astype(np.int32)
        return Windows(rows[order], columns[order], firsts[order], widths[order], order, ends)

    @property
    def bins(self) -> int:
        """S * S."""
        return int(self.rows.cell.shape[1] * self.columns.cell.shape[1])

    def chunks(self, level: int, numbers_a_bin: int) -> Iterator[slice]:
        """This level's RoIs in portions that fit into the cache, those of one portion about alike in taps."""
        begin, last = self.ends[level - 1] if level else 0, self.ends[level]
        if begin == last:
            return
        taps = self.rows.used[begin:last] * self.columns.used[begin:last]
        step = max(1, CHUNK_NUMBERS // (self.bins * max(numbers_a_bin, int(taps.max()))))
        changes = np.flatnonzero(np.diff(taps)) + (begin + 1)
        for end in [*changes.tolist(), last]:
            while end - begin > step:
                yield slice(begin, begin + step)
                begin += step
            if end - begin >= _WORTH_A_CALL or end == last:
                yield slice(begin, end)
                begin = end

    def entries(self, part: slice) -> tuple[Integers, Numbers]:
        """Cells and weights, (bins, taps), of some RoIs."""
        down = max(int(self.rows.used[part].max()), 1)
        across = max(int(self.columns.used[part].max()), 1)
        line = self.rows.cell[part, :, :down] * self.width[part, None, None] + self.base[part, None, None]
        lines, columns = _crossed(line, self.columns.cell[part, :, :across])
        cell = (lines + columns).reshape(-1, down * across)
        lines, columns = _crossed(self.rows.weight[part, :, :down], self.columns.weight[part, :, :across])
        return cell, (lines * columns).reshape(cell.shape)

    def readers(self, level: int, num_cells: int) -> tuple[Tensor, Tensor, Tensor]:
        """The bins that read each cell of a level, their weights, and where each cell's run of them begins."""
        key, row, weight = self._all_entries(level)
        key.sort()
        offsets = np.zeros(num_cells + 1, dtype=np.int32)
        np.cumsum(np.bincount(key >> _ENTRY_BITS, minlength=num_cells), out=offsets[1:])
        key &= (1 << _ENTRY_BITS) - 1
        return _picked(row, key), _picked(weight, key), torch.from_numpy(offsets)

    def _all_entries(self, level: int) -> tuple[NDArray[np.int64], Integers, Numbers]:
        """Sort keys, bins and weights of all entries of a level that count.

        A key is the cell and the number of the entry: to sort these takes a seventh of the time of sorting indices.
        """
        keys, rows, weights = self._buffers(level)
        bin_number = np.arange(self.bins, dtype=np.int32)
        count = 0
        for part in self.chunks(level, _READER_NUMBERS):
            cell, weight = self.entries(part)
            used = np.flatnonzero(weight)
            row = self.order[part, None].astype(np.int32) * self.bins + bin_number
            new = slice(count, count + len(used))
            np.left_shift(cell.ravel()[used], _ENTRY_BITS, out=keys[new], dtype=np.int64)
            keys[new] += np.arange(new.start, new.stop)
            row.ravel().take(used // cell.shape[1], out=rows[new], mode="clip")
            weight.ravel().take(used, out=weights[new], mode="clip")
            count = new.stop
        return keys[:count], rows[:count], weights[:count]

    def _buffers(self, level: int) -> tuple[NDArray[np.int64], Integers, Numbers]:
        """Room for as many entries as a level may have; what is not touched costs nothing."""
        part = slice(self.ends[level - 1] if level else 0, self.ends[level])
        most = max(int((self.rows.used[part] * self.columns.used[part]).sum()), 1) * self.bins
        integers = memory.empty((most,), torch.int64), memory.empty((most,), torch.int32)
        return integers[0].numpy(), integers[1].numpy(), memory.empty((most,), torch.float32).numpy()


def _crossed(line: NDArray[Any], column: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(n, S, T) and (n, S, U) -> (n, S, 1, T*U) and (n, 1, S, T*U), to be broadcast: runs of T*U are worth a vector."""
    lines = np.repeat(line, column.shape[2], axis=2)
    columns = np.tile(column, (1, 1, line.shape[2]))
    return lines[:, :, None], columns[:, None]


def _picked(values: Integers | Numbers, index: NDArray[np.int64]) -> Tensor:
    picked = memory.empty(index.shape, torch.from_numpy(values[:0]).dtype)
    values.take(index, out=picked.numpy(), mode="clip")  # "clip", as "raise" works on a copy of `out`
    return picked
