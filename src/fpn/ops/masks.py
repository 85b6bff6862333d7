"""Masks of objects: cut out for the mask head, and put back into the image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fpn.ops.roi_align import samplers
from fpn.ops.roi_align.samplers import Span, Taps
from fpn.ops.run_lengths import Integers, Runs, columns_of_runs, joined_spans, no_runs, runs_of_columns
from fpn.shapes import Size

# Pixels pasted at a time: 8 MB of float32, which stay in the cache's neighbourhood.
_CHUNK_PIXELS = 1 << 21
# Masks whose weights are made together: for one mask alone, the calls would take longer than the work.
_TOGETHER = 32
# Larger than any pixel's number.
_BEHIND = 2**31


def crop_runs(
    runs: Runs,
    boxes: Float[Tensor, "n 4"],
    size: Size,
    *,
    which: Int[Tensor, " n"] | None = None,
    cells: int,
    aligned: bool = True,
) -> Float[Tensor, "n s s"]:
    """Cut what each box shows of its mask: RoIAlign of the mask's pixels, one mask and only its box at a time.

    Args:
        runs: masks.
        boxes: xyxy, pixels of the image, on a CPU.
        size: of the image.
        which: the mask that each box is of; None: box i is of mask i.
        cells: S.
        aligned: pixel i is centred at i + 0.5 (Detectron2), else at i, and boxes are a pixel wide at least
            (torchvision).

    Returns:
        0..1, averaged over the pixels that a cell covers.

    Source: torchvision.ops.roi_align with sampling_ratio=0, which both toolkits call for it.
    """
    boxes = boxes.to(torch.float32)
    down = _taps(boxes[:, 1], boxes[:, 3], size.height, cells, aligned)
    across = _taps(boxes[:, 0], boxes[:, 2], size.width, cells, aligned)
    crops = torch.zeros(len(boxes), cells, cells)
    mask = range(len(boxes)) if which is None else which.tolist()
    for begin in range(0, len(boxes), _TOGETHER):
        some = slice(begin, begin + _TOGETHER)
        parts = zip(_weights(down, some), _weights(across, some), strict=True)
        for number, ((top, rows), (left, columns)) in enumerate(parts, start=begin):
            box = (left, top, left + columns.shape[1], top + rows.shape[1])
            pixels = torch.from_numpy(columns_of_runs(runs.one(mask[number]), size.height, box)).to(torch.float32)
            crops[number] = rows @ (columns @ pixels).T
    return crops


def crop_pixels(
    masks: Bool[Tensor, "m h w"],
    boxes: Float[Tensor, "n 4"],
    which: Int[Tensor, " n"],
    *,
    cells: int,
    aligned: bool = True,
) -> Float[Tensor, "n s s"]:
    """`crop_runs` of masks that are images, on any device: two products a box, in which most numbers are 0.

    On a GPU that is nothing, and no box has to leave it.

    Args:
        masks: M of them.
        boxes: xyxy, pixels of the image.
        which: the mask that each box is of.
        cells: S.
        aligned: as `crop_runs` takes it.
    """
    boxes = boxes.to(torch.float32)
    height, width = masks.shape[1:]
    down = _taps(boxes[:, 1], boxes[:, 3], height, cells, aligned)
    across = _taps(boxes[:, 0], boxes[:, 2], width, cells, aligned)
    crops = [boxes.new_zeros(0, cells, cells)]
    for begin in range(0, len(boxes), _TOGETHER):
        some = slice(begin, begin + _TOGETHER)
        rows, columns = _whole_weights(down, some, height), _whole_weights(across, some, width)
        crops.append(rows @ masks[which[some]].to(torch.float32) @ columns.transpose(1, 2))
    return torch.cat(crops)


def _whole_weights(taps: Taps, some: slice, side: int) -> Float[Tensor, "n s p"]:
    """How much each cell of a RoI takes of each pixel of an axis."""
    weights = taps.weight.new_zeros(*taps.weight[some].shape[:2], side)
    return weights.scatter_add_(2, taps.cell[some].clamp(0, side - 1), taps.weight[some])


def _taps(start: Tensor, end: Tensor, side: int, cells: int, aligned: bool) -> Taps:
    return samplers.align(
        Span(start, end, torch.full((len(start),), side, device=start.device)), cells, ratio=0, aligned=aligned
    )


def _weights(taps: Taps, some: slice) -> Iterator[tuple[int, Tensor]]:
    """Of each RoI the first pixel that it reads on an axis, and (S, pixels) how much its cells take of each pixel."""
    pixel, weight = taps.cell[some], taps.weight[some]
    # Taps without weight are padding and may lie anywhere.
    read = weight != 0
    first = pixel.masked_fill(~read, _BEHIND).amin(dim=(1, 2))
    last = pixel.masked_fill(~read, -1).amax(dim=(1, 2))
    first = first.minimum(last.clamp(min=0))  # of what reads nothing: 0
    counts = (last - first + 1).clamp(min=1)
    most = int(counts.max())
    places = (pixel - first[:, None, None]).clamp(0, most - 1)
    weights = weight.new_zeros(*weight.shape[:2], most).scatter_add_(2, places, weight)
    for start, count, each in zip(first.tolist(), counts.tolist(), weights, strict=True):
        yield start, each[:, :count]


def paste_masks(
    masks: Float[Tensor, "n s s"], boxes: Float[Tensor, "n 4"], size: Size, *, threshold: float = 0.5
) -> Runs:
    """Put each box's mask into an empty image, as runs: never more than some columns of one mask in memory.

    Args:
        masks: probabilities on the grid of the box, cell i centred at (i + 0.5) / S of its side.
        boxes: xyxy, pixels of the image; may reach beyond it.
        size: of the image.
        threshold: above 0; a pixel whose centre has at least this probability belongs to the object.

    Source: the arithmetic of detectron2's paste_masks_in_image: bilinear between centres, 0 around the box.
    """
    assert threshold > 0, "0 would fill the image"
    masks, boxes = masks.cpu().to(torch.float32), boxes.cpu().to(torch.float32)
    parts = zip(torch.split(masks, _TOGETHER), torch.split(boxes, _TOGETHER), strict=True)
    return Runs.of([runs for some, around in parts for runs in _paste_some(some, around, size, threshold)])


def _paste_some(masks: Tensor, boxes: Tensor, size: Size, threshold: float) -> Iterator[Integers]:
    cells, edges = masks.shape[1], boxes.tolist()
    rows = [_reached(top, bottom, size.height, cells) for _, top, _, bottom in edges]
    columns = [_reached(left, right, size.width, cells) for left, _, right, _ in edges]
    down = _range_weights(boxes[:, 1], boxes[:, 3], rows, cells)
    across = _range_weights(boxes[:, 0], boxes[:, 2], columns, cells)
    for number, mask in enumerate(masks):
        y, x = rows[number], columns[number]
        weights = down[number, : len(y)], across[number, : len(x)]
        yield _paste(mask, *weights, y, x, size, threshold) if y and x else no_runs()


def _paste(
    mask: Tensor, down: Tensor, across: Tensor, rows: range, columns: range, size: Size, threshold: float
) -> Integers:
    """One mask, given how much each of these rows and columns of pixels gets of its cells."""
    down = down @ mask
    step = max(1, _CHUNK_PIXELS // len(rows))
    parts = []
    for begin in range(0, len(columns), step):
        # (W, S) @ (S, H): column by column, as runs go.
        filled = (across[begin : begin + step] @ down.T >= threshold).numpy()
        parts.append(runs_of_columns(filled, top=rows.start, left=columns.start + begin, height=size.height))
    return parts[0] if len(parts) == 1 else joined_spans(np.concatenate(parts))


def _reached(start: float, end: float, pixels: int, cells: int) -> range:
    """The pixels of an axis where a mask between these edges may be above 0: half a cell around it."""
    if not end > start:
        return range(0)
    beyond = (end - start) / cells / 2 + 1
    return range(max(0, math.floor(start - beyond)), min(pixels, math.ceil(end + beyond)))


def _range_weights(start: Tensor, end: Tensor, reached: Sequence[range], cells: int) -> Float[Tensor, "n p s"]:
    """`_pixel_weights` of as many pixels as the longest range has, from each one's first on."""
    most = max((len(each) for each in reached), default=0)
    first = torch.tensor([each.start for each in reached], dtype=torch.int64)[:, None]
    return _pixel_weights(start, end, first + torch.arange(most), cells)


def _pixel_weights(start: Tensor, end: Tensor, pixels: Int[Tensor, "*#n p"], cells: int) -> Float[Tensor, "n p s"]:
    """How much of each cell a pixel gets. Bilinear sampling is one such product an axis."""
    side = (end - start)[:, None]
    place = (pixels + 0.5 - start[:, None]) / side.clamp(min=1e-12) * cells - 0.5
    cell = torch.arange(cells, device=start.device)
    weights = (1 - (place[:, :, None] - cell).abs()).clamp(min=0)
    return weights * (side > 0)[:, :, None]


def boxes_of_grids(
    masks: Float[Tensor, "n s s"], regions: Float[Tensor, "n 4"], *, threshold: float = 0.5
) -> Float[Tensor, "n 4"]:
    """Around the cells of each mask that have at least this probability, to the cell; zeros where none has.

    Args:
        masks: probabilities on the grid of each region.
        regions: xyxy, pixels.
        threshold: above 0.
    """
    filled = masks >= threshold
    sides = []
    for axis, (start, end) in ((1, (0, 2)), (2, (1, 3))):  # columns, then rows
        used = filled.any(dim=axis).to(torch.uint8)
        cell = (regions[:, end] - regions[:, start]) / masks.shape[1]
        first, behind = used.argmax(dim=1), masks.shape[1] - used.flip(1).argmax(dim=1)
        sides.append((regions[:, start] + first * cell, regions[:, start] + behind * cell))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], dim=1) * filled.any(dim=2).any(dim=1)[:, None]
