"""Masks of objects: cut out for the mask head, put back into the image, and COCO's forms of them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fpn.ops.roi_align.pool import pool_rois

# Pixels pasted at a time: 64 MB of float32.
_CHUNK_PIXELS = 1 << 24


def crop_masks(
    masks: Bool[Tensor, "m h w"],
    boxes: Float[Tensor, "n 4"],
    mask_index: Int[Tensor, " n"],
    *,
    output_size: int,
    threshold: float | None = 0.5,
) -> Float[Tensor, "n s s"]:
    """Cut what each box shows of its object, as targets of the mask head.

    Args:
        masks: one an object, as large as the image.
        boxes: xyxy, pixels of the image.
        mask_index: which mask each box is of.
        output_size: S.
        threshold: from this covered part on a cell is 1, else 0; None: the covered part itself (torchvision).

    Returns:
        0..1, averaged over the pixels that a cell covers.
    """
    covered = pool_rois(
        [masks[:, None].to(torch.float32)],
        [(1.0, 1.0)],
        boxes,
        mask_index,
        torch.zeros_like(mask_index),
        output_size=output_size,
        sampling_ratio=0,
    )[:, 0]
    return covered if threshold is None else (covered >= threshold).to(torch.float32)


def paste_masks(
    masks: Float[Tensor, "n s s"],
    boxes: Float[Tensor, "n 4"],
    height: int,
    width: int,
    *,
    threshold: float = 0.5,
) -> Bool[Tensor, "n h w"]:
    """Put each box's mask into an empty image.

    Args:
        masks: probabilities on the grid of the box, cell i centred at (i + 0.5) / S of its side.
        boxes: xyxy, pixels of the image; may reach beyond it.
        height: of the image.
        width: of the image.
        threshold: a pixel whose centre has at least this probability belongs to the object.

    Source: the arithmetic of detectron2's paste_masks_in_image: bilinear between centres, 0 around the box.
    """
    step = max(1, _CHUNK_PIXELS // max(height * width, 1))
    pasted = torch.zeros((len(masks), height, width), dtype=torch.bool, device=masks.device)
    for begin in range(0, len(masks), step):
        part = slice(begin, begin + step)
        pasted[part] = paste_probabilities(masks[part], boxes[part], height, width) >= threshold
    return pasted


def paste_probabilities(
    masks: Float[Tensor, "n s s"], boxes: Float[Tensor, "n 4"], height: int, width: int
) -> Float[Tensor, "n h w"]:
    """`paste_masks` before the threshold; all at once, so mind the memory: 4 bytes a pixel and mask."""
    masks, boxes = masks.to(torch.float32), boxes.to(torch.float32)
    down = _pixel_weights(boxes[:, 1], boxes[:, 3], height, masks.shape[1])
    across = _pixel_weights(boxes[:, 0], boxes[:, 2], width, masks.shape[2])
    return down @ masks @ across.transpose(1, 2)


def _pixel_weights(start: Tensor, end: Tensor, pixels: int, cells: int) -> Tensor:
    """(N, pixels, cells): how much of each cell a pixel gets. Bilinear sampling is one such product an axis."""
    side = (end - start)[:, None]
    pixel = torch.arange(pixels, device=start.device) + 0.5
    place = (pixel - start[:, None]) / side.clamp(min=1e-12) * cells - 0.5
    cell = torch.arange(cells, device=start.device)
    weights = (1 - (place[:, :, None] - cell).abs()).clamp(min=0)
    return weights * (side > 0)[:, :, None]
