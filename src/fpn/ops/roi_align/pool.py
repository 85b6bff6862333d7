"""Equation 1, and every RoI sampler as one weighted embedding bag over the cells of all levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import roi_align, roi_pool

from fpn.ops.roi_align import samplers
from fpn.ops.roi_align.cpu_index import Axis
from fpn.ops.roi_align.embedding_bag import pool_from_table, pool_level_by_level
from fpn.ops.roi_align.samplers import Span, Taps

RoISampler = Literal["align", "align_avg", "crop", "crop_and_resize", "pool"]


def pool_rois(
    maps: Sequence[Float[Tensor, "b c _ _"]],
    scales: Sequence[tuple[float, float]],
    boxes: Float[Tensor, "r 4"],
    image_index: Int[Tensor, " r"],
    map_index: Int[Tensor, " r"],
    *,
    output_size: int,
    sampler: RoISampler = "align",
    sampling_ratio: int = 2,
    aligned: bool = True,
    max_pool: bool = False,
    image_size: tuple[int, int] | None = None,
) -> Float[Tensor, "r c s s"]:
    """Read each RoI from its map as a grid of S x S cells.

    Boxes are constants: gradients flow into the maps only. On a CPU maps in channels-last order are the fastest.

    Args:
        maps: the levels.
        scales: cells a pixel, (down, across), of each map.
        boxes: xyxy, network pixels.
        image_index: which image of the batch each RoI is in.
        map_index: which of `maps` each RoI is read from.
        output_size: S.
        sampler: `align` (RoIAlign), `align_avg` (fpn.pytorch's RoIAlignAvg), `crop` (fpn.pytorch's RoICrop),
            `crop_and_resize` (TensorFlow's, in matterport's Mask R-CNN) or `pool` (RoIPool).
        sampling_ratio: `align`: samples a bin and axis; 0: one for every begun cell.
        aligned: `align`: pixel i is centred at i + 0.5; else at i, and RoIs are at least one cell wide.
        max_pool: `crop`: read 2S x 2S points and keep the largest of 2 x 2.
        image_size: `crop_and_resize`: height and width of the padded images, whose outermost pixel centres fall on
            those of the map, in place of `scales`.

    Returns:
        One grid a RoI, in the order of `boxes`, in the maps' type.
    """
    boxes = boxes.detach().to(torch.float32)
    if sampler == "crop_and_resize" and image_size is not None:
        scales = [tuple((m.shape[2 + i] - 1) / (image_size[i] - 1) for i in (0, 1)) for m in maps]  # type: ignore[misc]
    edges = boxes * boxes.new_tensor([(x, y, x, y) for y, x in scales])[map_index]
    if sampler == "pool":
        return _level_by_level(_max_of_bins(output_size), maps, edges, image_index, map_index)
    if sampler == "align" and _device_has_its_own(maps[0]):
        own = _align_of_device(output_size, sampling_ratio, aligned)
        return _level_by_level(own, maps, edges, image_index, map_index)
    return bag_rois(
        maps,
        edges,
        image_index,
        map_index,
        output_size=output_size,
        sampler=sampler,
        sampling_ratio=sampling_ratio,
        aligned=aligned,
        max_pool=max_pool,
    )


def bag_rois(
    maps: Sequence[Float[Tensor, "b c _ _"]],
    edges: Float[Tensor, "r 4"],
    image_index: Int[Tensor, " r"],
    map_index: Int[Tensor, " r"],
    *,
    output_size: int,
    sampler: Literal["align", "align_avg", "crop", "crop_and_resize"] = "align",
    sampling_ratio: int = 2,
    aligned: bool = True,
    max_pool: bool = False,
) -> Float[Tensor, "r c s s"]:
    """`pool_rois` by one weighted embedding bag, on any device; a caller who has no reason takes `pool_rois`.

    Args:
        maps: the levels.
        edges: xyxy, in cells of each RoI's own map.
        image_index, map_index, output_size, sampler, sampling_ratio, aligned, max_pool: as `pool_rois` has them.
    """
    points = output_size * 2 if sampler == "crop" and max_pool else output_size
    taps = _taps(sampler, points, sampling_ratio, aligned)
    size = torch.tensor([m.shape[2:] for m in maps], device=edges.device)[map_index]
    height, width = size.unbind(1)
    down, across = Span(edges[:, 1], edges[:, 3], height), Span(edges[:, 0], edges[:, 2], width)
    base = image_index * height * width
    if _is_eager_cpu(maps[0]):
        rows, columns = Axis.of(taps, down, points), Axis.of(taps, across, points)
        pooled = pool_level_by_level(maps, base, width, rows, columns, map_index)
    else:
        pooled = pool_from_table(maps, base, width, taps(down), taps(across), map_index)
    pooled = pooled.permute(0, 3, 1, 2)  # (R, S, S, C) -> (R, C, S, S)
    return F.max_pool2d(pooled, 2) if points != output_size else pooled


def _is_eager_cpu(feature: Tensor) -> bool:
    """Where the level-by-level bag wins; what is traced or compiled gets the plain one."""
    return feature.device.type == "cpu" and not torch.compiler.is_compiling()


def _device_has_its_own(feature: Tensor) -> bool:
    """Whether RoIAlign is left to torchvision's kernel. On a CPU the bag wins; elsewhere nothing was measured yet."""
    return feature.device.type in ("cuda", "mps") and not torch.compiler.is_compiling()


def _taps(sampler: RoISampler, points: int, ratio: int, aligned: bool) -> Callable[[Span], Taps]:
    if sampler == "align":
        return lambda span: samplers.align(span, points, ratio=ratio, aligned=aligned)
    if sampler == "align_avg":
        return lambda span: samplers.align_average(span, points)
    if sampler == "crop":
        return lambda span: samplers.crop(span, points)
    return lambda span: samplers.crop_and_resize(span, points)


def _align_of_device(output_size: int, ratio: int, aligned: bool) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda feature, rois: roi_align(feature, rois, output_size, 1.0, ratio, aligned)


def _max_of_bins(output_size: int) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda feature, rois: roi_pool(feature, rois, output_size, 1.0)


def _level_by_level(
    pool: Callable[[Tensor, Tensor], Tensor],
    maps: Sequence[Tensor],
    edges: Tensor,
    image_index: Tensor,
    map_index: Tensor,
) -> Tensor:
    """Pool with a kernel that knows one map, edges in cells; it is given float32 unless the map is float64."""
    dtype = torch.float64 if maps[0].dtype == torch.float64 else torch.float32
    rois = torch.cat([image_index[:, None], edges], dim=1).to(dtype)
    places = [(map_index == level).nonzero().squeeze(1) for level in range(len(maps))]
    parts = [pool(m.to(dtype), rois[place]).to(m.dtype) for m, place in zip(maps, places, strict=True)]
    return torch.cat(parts)[torch.cat(places).argsort()]
