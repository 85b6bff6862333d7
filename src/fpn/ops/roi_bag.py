"""Pooled RoIs as weighted sums of a few cells each, for all RoIs of all levels at once.

A bin is a bag: some cells of a map, each with a weight. Maps are read channels-last, where a cell is a row of C
neighbouring numbers, so that F.embedding_bag does the work. The gradient of a map is a bag, too: a cell's gradient is
the weighted sum of those bins' gradients that read the cell. On a CPU that is much faster than adding bin by bin, and
as nothing is added concurrently, it is the same on every run.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

from fpn.ops.roi_taps import Taps, merged

# Numbers made at a time: they are still in the cache when they are moved to their place.
_CHUNK_NUMBERS = 1 << 22
# Fewer RoIs than this are done together with others, although these read more or fewer cells.
_WORTH_A_CALL = 24
# The gradient's bookkeeping takes more room for each cell that a bin reads than pooling does: smaller portions.
_ENTRIES_A_BIN = 64
_ENTRY_BITS = 32
# From here on an allocation is worth large pages: touching 100 MB in 4 KiB pages costs as much as pooling it.
_LARGE_BYTES = 2 << 20


def pool_from_table(
    maps: Sequence[Tensor], base: Tensor, width: Tensor, rows: Taps, columns: Taps, map_index: Tensor
) -> Tensor:
    """Pool by one embedding bag over a table of all levels' cells: the plain form, static in shape, for any device.

    Args:
        maps: (B, C, Hl, Wl), one a level.
        base: (R,) cell of the RoI's map where its picture begins.
        width: (R,) of the RoI's map.
        rows: taps along the vertical axis.
        columns: taps along the horizontal axis.
        map_index: (R,) which of `maps`.

    Returns:
        (R, S, S, C).
    """
    table = torch.cat([m.permute(0, 2, 3, 1).reshape(-1, m.shape[1]) for m in maps])
    counts = torch.tensor([0, *(m.numel() // m.shape[1] for m in maps)], device=base.device)
    base = base + counts.cumsum(0)[map_index]
    row = base[:, None, None] + rows.cell * width[:, None, None]
    index = row[:, :, None, :, None] + columns.cell[:, None, :, None, :]  # (R, S, S, T, T)
    weight = rows.weight[:, :, None, :, None] * columns.weight[:, None, :, None, :]
    num_rois, bins = rows.cell.shape[:2]
    pooled = F.embedding_bag(
        index.flatten(3).flatten(0, 2),
        table,
        per_sample_weights=weight.flatten(3).flatten(0, 2).to(table.dtype),
        mode="sum",
    )
    return pooled.view(num_rois, bins, bins, table.shape[1])


def pool_level_by_level(
    maps: Sequence[Tensor], base: Tensor, width: Tensor, rows: Taps, columns: Taps, map_index: Tensor
) -> Tensor:
    """Pool as `pool_from_table` does, on a CPU: no table, no wasted taps, neighbouring RoIs one after another."""
    rows, columns = merged(rows), merged(columns)
    down, across = rows.used(), columns.used()
    order = _order(map_index, base + rows.cell[:, 0, 0] * width, down, across)
    windows = _Windows(
        rows=Taps(rows.cell[order], rows.weight[order]),
        columns=Taps(columns.cell[order], columns.weight[order]),
        base=base[order],
        width=width[order],
        order=order,
        down=down[order],
        across=across[order],
        ends=map_index.bincount(minlength=len(maps)).cumsum(0).tolist(),
    )
    pooled: Tensor = _LevelBags.apply(windows, *maps)
    return pooled.view(len(order), rows.cell.shape[1], columns.cell.shape[1], maps[0].shape[1])


def _order(map_index: Tensor, place: Tensor, *used: Tensor) -> Tensor:
    """By level, then by taps a bin (RoIs done together are padded to the most of them), then by place."""
    key = map_index
    for count in used:
        key = key * 4096 + count.clamp(max=4095)
    by_place = place.argsort()
    return by_place[key[by_place].argsort(stable=True)]


@dataclass(frozen=True)
class _Windows:
    """What the RoIs read, sorted by level.

    Attributes:
        rows: vertical taps.
        columns: horizontal taps.
        base: (R,) cell where the RoI's picture begins in its map.
        width: (R,) of the RoI's map.
        order: (R,) place of each RoI in the result.
        down: (R,) vertical taps in use, at most, of its bins.
        across: (R,) horizontal ones.
        ends: number of RoIs up to the end of each level.
    """

    rows: Taps
    columns: Taps
    base: Tensor
    width: Tensor
    order: Tensor
    down: Tensor
    across: Tensor
    ends: list[int]

    @property
    def bins(self) -> int:
        return self.rows.cell.shape[1] * self.columns.cell.shape[1]

    def chunks(self, level: int, channels: int) -> Iterator[tuple[int, int]]:
        """Ranges of this level's RoIs, small enough for the cache; RoIs in one have about the same number of taps."""
        begin, last = self.ends[level - 1] if level else 0, self.ends[level]
        if begin == last:
            return
        taps = self.down[begin:last] * self.across[begin:last]
        step = max(1, _CHUNK_NUMBERS // (self.bins * max(channels, int(taps.max()))))
        alike = (taps.diff() != 0).nonzero().squeeze(1) + (begin + 1)
        for end in [*alike.tolist(), last]:
            while end - begin > step:
                yield begin, begin + step
                begin += step
            if end - begin >= _WORTH_A_CALL or end == last:
                yield begin, end
                begin = end

    def entries(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """Cells (int32) and weights, (bins, taps), of some RoIs."""
        down = max(int(self.down[begin:end].max()), 1)
        across = max(int(self.across[begin:end].max()), 1)
        line = self.rows.cell[begin:end, :, :down] * self.width[begin:end, None, None]
        line = (line + self.base[begin:end, None, None]).to(torch.int32)
        column = self.columns.cell[begin:end, :, :across].to(torch.int32)
        cell = torch.add(*_crossed(line, column))
        weight = torch.mul(*_crossed(self.rows.weight[begin:end, :, :down], self.columns.weight[begin:end, :, :across]))
        return cell.view(-1, down * across), weight.view(-1, down * across)


def _crossed(line: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """(n, S, T) and (n, S, U) -> (n, S, 1, T*U) and (n, 1, S, T*U), to be broadcast: runs of T*U are worth a vector."""
    shape = (*line.shape[:2], line.shape[2], column.shape[2])
    lines = line[..., None].expand(shape).reshape(*line.shape[:2], 1, -1)
    columns = column[:, :, None, :].expand(shape).reshape(column.shape[0], 1, column.shape[1], -1)
    return lines, columns


def _cells(feature: Tensor) -> Tensor:
    """(B, C, H, W) -> (B*H*W, C): no copy when the map is channels-last."""
    return _contiguous(feature.permute(0, 2, 3, 1)).view(-1, feature.shape[1])


def _contiguous(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_contiguous() else _empty(tuple(tensor.shape), tensor.dtype).copy_(tensor)


class _LevelBags(torch.autograd.Function):
    """RoIs sorted by level -> pooled bins in their original order."""

    @staticmethod
    def forward(ctx: Any, windows: _Windows, *maps: Tensor) -> Tensor:
        ctx.windows, ctx.shapes = windows, [m.shape for m in maps]
        channels = maps[0].shape[1]
        pooled = _empty((len(windows.order), windows.bins * channels), maps[0].dtype)
        for level, feature in enumerate(maps):
            table = _cells(feature)
            for begin, end in windows.chunks(level, channels):
                cell, weight = windows.entries(begin, end)
                part = F.embedding_bag(cell, table, per_sample_weights=weight.to(table.dtype), mode="sum")
                pooled[windows.order[begin:end]] = part.view(end - begin, -1)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        windows: _Windows = ctx.windows
        grad = _contiguous(grad).view(len(windows.order) * windows.bins, ctx.shapes[0][1])
        return None, *(
            _map_gradient(grad, windows, level, shape) if wanted else None
            for level, (shape, wanted) in enumerate(zip(ctx.shapes, ctx.needs_input_grad[1:], strict=True))
        )


def _map_gradient(grad: Tensor, windows: _Windows, level: int, shape: torch.Size) -> Tensor:
    """Gradient of one map: a bag a cell, over the gradients of the bins that read it."""
    batch, channels, height, width = shape
    num_cells = batch * height * width
    result = _empty((num_cells, channels), grad.dtype)
    reader, weight, offsets = _readers(windows, level, num_cells)
    weight = weight.to(grad.dtype)
    bounds = offsets.tolist()
    step = max(1, _CHUNK_NUMBERS // channels)
    for begin in range(0, num_cells, step):
        end = min(begin + step, num_cells)
        first, last = bounds[begin], bounds[end]
        result[begin:end] = F.embedding_bag(
            reader[first:last],
            grad,
            offsets[begin : end + 1] - first,
            per_sample_weights=weight[first:last],
            mode="sum",
            include_last_offset=True,
        )
    return result.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _readers(windows: _Windows, level: int, num_cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """The bins that read each cell of a level, their weights, and where each cell's run of them begins."""
    keys, rows, weights = _entry_buffers(windows, level)
    bin_number = torch.arange(windows.bins, dtype=torch.int32)
    count = 0
    for begin, end in windows.chunks(level, _ENTRIES_A_BIN):
        cell, weight = windows.entries(begin, end)
        row = (windows.order[begin:end, None].to(torch.int32) * windows.bins + bin_number).view(-1, 1)
        used = weight.view(-1).nonzero().squeeze(1)
        part = slice(count, count + len(used))
        cell = cell.view(-1).index_select(0, used)
        # Cell and entry in one number: to sort these takes a seventh of the time of sorting with indices.
        keys[part] = (cell.to(torch.int64) << _ENTRY_BITS) + torch.arange(part.start, part.stop)
        rows[part] = row.expand_as(weight).reshape(-1).index_select(0, used)
        weights[part] = weight.view(-1).index_select(0, used)
        count = part.stop
    keys, rows, weights = keys[:count], rows[:count], weights[:count]
    keys.numpy().sort()
    offsets = torch.searchsorted(keys, torch.arange(num_cells + 1) << _ENTRY_BITS, out_int32=True)
    entry = keys.bitwise_and_((1 << _ENTRY_BITS) - 1)
    return _picked(rows, entry), _picked(weights, entry), offsets


def _entry_buffers(windows: _Windows, level: int) -> tuple[Tensor, Tensor, Tensor]:
    """Room for the keys, bins and weights of all entries that a level may have; what is not touched costs nothing."""
    part = slice(windows.ends[level - 1] if level else 0, windows.ends[level])
    most = max(int((windows.down[part] * windows.across[part]).sum()), 1) * windows.bins
    return _empty((most,), torch.int64), _empty((most,), torch.int32), _empty((most,), torch.float32)


def _picked(values: Tensor, index: Tensor) -> Tensor:
    return torch.index_select(values, 0, index, out=_empty(tuple(index.shape), values.dtype))


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """torch.empty, in large pages where the system has them."""
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes < _LARGE_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(shape, dtype=dtype)
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel built without large pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)
