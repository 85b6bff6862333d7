"""Pooled RoIs as weighted sums of a few cells each, for all RoIs of all levels at once.

A bin is a bag: some cells of a map, each with a weight. Maps are read channels-last, where a cell is a row of C
neighbouring numbers, so that F.embedding_bag does the work. The gradient of a map is a bag, too: a cell's gradient is
the weighted sum of those bins' gradients that read the cell. On a CPU that is much faster than adding bin by bin, and
as nothing is added concurrently, it is the same on every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

from fpn.ops.roi_align import cpu_index
from fpn.ops.roi_align.cpu_index import Axis, Windows
from fpn.ops.roi_align.samplers import Taps
from fpn.runtime import memory


def pool_from_table(
    maps: Sequence[Tensor], base: Tensor, width: Tensor, rows: Taps, columns: Taps, map_index: Tensor
) -> Tensor:
    """Pool by one embedding bag over a table of all levels' cells: the plain form, static in shape, for any device.

    Args:
        maps: (B, C, Hl, Wl), one a level.
        base: (R,) cell of the RoI's map where its image begins.
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
    maps: Sequence[Tensor], base: Tensor, width: Tensor, rows: Axis, columns: Axis, map_index: Tensor
) -> Tensor:
    """Pool as `pool_from_table` does, on a CPU: no table, no wasted taps, RoIs of about the same size together."""
    windows = Windows.of(rows, columns, base, width, map_index, len(maps))
    pooled: Tensor = _LevelBags.apply(windows, *maps)
    return pooled.unflatten(1, (rows.cell.shape[1], columns.cell.shape[1]))  # type: ignore[no-untyped-call, no-any-return]


class _LevelBags(torch.autograd.Function):
    """RoIs sorted by level -> pooled bins in their original order, (R, S*S, C)."""

    @staticmethod
    def forward(ctx: Any, windows: Windows, *maps: Tensor) -> Tensor:
        ctx.windows, ctx.shapes = windows, [m.shape for m in maps]
        channels = maps[0].shape[1]
        order = torch.from_numpy(windows.order)
        if any(ctx.needs_input_grad):
            # In the order that fully connected layers want: a copy of theirs would live until the backward pass.
            pooled = memory.empty((len(order), channels, windows.bins), maps[0].dtype).transpose(1, 2)
        else:
            pooled = memory.empty((len(order), windows.bins, channels), maps[0].dtype)
        for level, feature in enumerate(maps):
            # (B, C, H, W) -> (B*H*W, C): no copy when the map is channels-last.
            table = memory.contiguous(feature.permute(0, 2, 3, 1)).view(-1, channels)
            for rois in windows.chunks(level, channels):
                cell, weight = (torch.from_numpy(part) for part in windows.entries(rois))
                part = F.embedding_bag(cell, table, per_sample_weights=weight.to(table.dtype), mode="sum")
                pooled[order[rois]] = part.view(-1, *pooled.shape[1:])
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        windows: Windows = ctx.windows
        grad = memory.contiguous(grad).flatten(0, 1)
        return None, *(
            _map_gradient(grad, windows, level, shape) if wanted else None
            for level, (shape, wanted) in enumerate(zip(ctx.shapes, ctx.needs_input_grad[1:], strict=True))
        )


def _map_gradient(grad: Tensor, windows: Windows, level: int, shape: torch.Size) -> Tensor:
    """Gradient of one map: a bag a cell, over the gradients of the bins that read it."""
    batch, channels, height, width = shape
    num_cells = batch * height * width
    result = memory.empty((num_cells, channels), grad.dtype)
    reader, weight, offsets = windows.readers(level, num_cells)
    weight = weight.to(grad.dtype)
    step = max(1, cpu_index.CHUNK_NUMBERS // channels)
    for begin in range(0, num_cells, step):
        bounds = offsets[begin : begin + step + 1]
        entries = slice(int(bounds[0]), int(bounds[-1]))
        result[begin : begin + step] = F.embedding_bag(
            reader[entries],
            grad,
            bounds - bounds[0],
            per_sample_weights=weight[entries],
            mode="sum",
            include_last_offset=True,
        )
    return result.view(batch, height, width, channels).permute(0, 3, 1, 2)
