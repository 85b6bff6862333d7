"""Equation 1, and every RoI sampler as one weighted embedding bag over the cells of all levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor

LevelRule = Literal["floor_log2", "round_log2", "round_ln"]
Sampler = Literal["align", "align_avg", "crop", "crop_and_resize", "pool"]


def choose_levels(
    boxes: Float[Tensor, "n 4"],
    *,
    finest: int,
    coarsest: int,
    rule: LevelRule = "floor_log2",
    canonical_size: float = 224.0,
    canonical_level: int = 4,
    legacy_plus_one: bool = False,
) -> Int[Tensor, " n"]:
    """Pick each box's pyramid level: floor(4 + log2(sqrt(w*h) / 224)), clamped to [finest, coarsest].

    Args:
        boxes: xyxy, network pixels.
        finest: lowest level number there is.
        coarsest: highest level number there is.
        rule: rounding (to nearest: half to even) and logarithm.
        canonical_size: the side in pixels that belongs to `canonical_level`.
        canonical_level: see `canonical_size`.
        legacy_plus_one: sides are x2 - x1 + 1.

    Returns:
        int64 level numbers; a box without an area is on the finest.

    Source: Lin et al. 2017, arXiv:1612.03144, equation 1.
    """
    sides = boxes[:, 2:] - boxes[:, :2] + (1.0 if legacy_plus_one else 0.0)
    side = sides.float().clamp(min=0).prod(dim=1).sqrt()
    if rule == "floor_log2":
        # 1e-6 on the level, as torchvision: a side of exactly 224 must not fall down through rounding.
        level = torch.floor(canonical_level + torch.log2(side / canonical_size) + 1e-6)
    else:
        logarithm = torch.log if rule == "round_ln" else torch.log2
        level = canonical_level + torch.round(logarithm(side / canonical_size))
    return level.clamp(finest, coarsest).to(torch.int64)


def pool_rois(
    maps: Sequence[Float[Tensor, "b c _ _"]],
    scales: Sequence[tuple[float, float]],
    boxes: Float[Tensor, "r 4"],
    image_index: Int[Tensor, " r"],
    map_index: Int[Tensor, " r"],
    *,
    output_size: int,
    sampler: Sampler = "align",
    sampling_ratio: int = 2,
    aligned: bool = True,
    max_pool: bool = False,
    image_size: tuple[int, int] | None = None,
) -> Float[Tensor, "r c s s"]:
    """Sample each RoI from its map into a grid of S x S cells."""
    del max_pool, image_size, sampler
    table = torch.cat([m.permute(0, 2, 3, 1).reshape(-1, m.shape[1]) for m in maps])
    sizes = torch.tensor([m.shape[2:] for m in maps], device=boxes.device)
    areas = [m.shape[0] * m.shape[2] * m.shape[3] for m in maps]
    starts = torch.tensor([sum(areas[:i]) for i in range(len(maps))], device=boxes.device)
    scale = torch.tensor(scales, dtype=torch.float32, device=boxes.device)[map_index]
    size = sizes[map_index]
    base = starts[map_index] + image_index * size[:, 0] * size[:, 1]
    cells, weights = [], []
    for axis in (0, 1):
        start = boxes[:, 1 - axis].detach().float() * scale[:, axis] - (0.5 if aligned else 0.0)
        end = boxes[:, 3 - axis].detach().float() * scale[:, axis] - (0.5 if aligned else 0.0)
        length = end - start if aligned else (end - start).clamp(min=1.0)
        cell, weight = _axis(start, length, size[:, axis], output_size, sampling_ratio)
        cells.append(cell)
        weights.append(weight)
    index = (cells[0] * size[:, 1, None, None])[:, :, None, :, None] + cells[1][:, None, :, None, :]
    index = index + base[:, None, None, None, None]
    weight = weights[0][:, :, None, :, None] * weights[1][:, None, :, None, :]
    bags = index.flatten(3).flatten(0, 2)
    out = F.embedding_bag(bags, table, per_sample_weights=weight.flatten(3).flatten(0, 2).to(table.dtype), mode="sum")
    return out.view(len(boxes), output_size, output_size, -1).permute(0, 3, 1, 2)


def _axis(start: Tensor, length: Tensor, size: Tensor, bins: int, ratio: int) -> tuple[Tensor, Tensor]:
    grid = torch.full_like(start, ratio) if ratio > 0 else torch.ceil(length / bins).clamp(min=0)
    most = ratio if ratio > 0 else max(1, math.ceil(float(grid.max()))) if len(grid) else 1
    step = torch.arange(most, device=start.device)
    point = torch.arange(bins, device=start.device)[:, None] + (step + 0.5) / grid.clamp(min=1)[:, None, None]
    place = start[:, None, None] + point * (length / bins)[:, None, None]
    last = (size - 1)[:, None, None]
    inside = (place >= -1) & (place <= size[:, None, None]) & (step < grid[:, None, None])
    place = torch.minimum(place.clamp(min=0), last)
    low = place.floor().to(torch.int64)
    fraction = place - low
    cell = torch.stack([low, torch.minimum(low + 1, last)], dim=-1)
    weight = torch.stack([1 - fraction, fraction], dim=-1) * (inside / grid.clamp(min=1)[:, None, None])[..., None]
    return cell.flatten(2), weight.flatten(2)
