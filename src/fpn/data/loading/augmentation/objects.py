"""What becomes of an image's objects where the image is moved, cut, covered or joined with others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fpn.errors import ConfigError
from fpn.ops.boxes import clip
from fpn.shapes import Size
from fpn.structures import Masks, Skeleton, Targets
from fpn.structures.keypoints import cut_keypoints, map_keypoints

_Pair = tuple[float, float]


def move(targets: Targets, *, scale: _Pair = (1.0, 1.0), offset: _Pair = (0.0, 0.0), size: Size) -> Targets:
    """The objects where every point (y, x) has gone to scale * (y, x) + offset. Nothing is cut.

    Args:
        targets: of an image.
        scale: y, x; a negative one mirrors.
        offset: y, x, new pixels.
        size: of the new image.
    """
    factor, shift = targets.boxes.new_tensor([scale[::-1]]), targets.boxes.new_tensor([offset[::-1]])
    corners = targets.boxes.view(-1, 2, 2) * factor + shift
    masks, keypoints = targets.masks, targets.keypoints
    return replace(
        targets,
        boxes=torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1),
        masks=None if masks is None else masks.mapped(scale=scale, offset=offset, size=size),
        keypoints=None if keypoints is None else map_keypoints(keypoints, scale=scale, offset=offset),
    )


def lay(targets: Targets, *, scale: _Pair = (1.0, 1.0), offset: _Pair, size: Size) -> Targets:
    """The objects of an image that lies as a whole on a larger canvas; arguments as in `move`."""
    moved = move(targets, scale=scale, offset=offset, size=size)
    return replace(moved, boxes=clip(moved.boxes, *size))


def cut(targets: Targets, *, scale: _Pair = (1.0, 1.0), offset: _Pair, size: Size, min_visible: float) -> Targets:
    """The objects as a part of the image shows them: clipped, those outside dropped; arguments as in `move`.

    Args:
        min_visible: an object of whose area less than this share is left is ignored.
    """
    moved = move(targets, scale=scale, offset=offset, size=size)
    boxes, masks, keypoints = clip(moved.boxes, *size), moved.masks, moved.keypoints
    before, after = _areas(targets.boxes) * (scale[0] * scale[1]), _areas(boxes)
    if masks is not None and targets.masks is not None:
        masks = masks.clipped()
        areas = targets.masks.areas() * (scale[0] * scale[1])
        # An object whose mask is empty is as its box says.
        drawn = areas > 0
        before, after = torch.where(drawn, areas, before), torch.where(drawn, masks.areas(), after)
        # A box that the cut touched fits what its mask still shows.
        touched = (moved.boxes != boxes).any(dim=1)
        boxes = torch.where((drawn & touched & (after > 0))[:, None], masks.boxes(), boxes)
    if keypoints is not None:
        keypoints = cut_keypoints(keypoints, size)
    seen = Targets(boxes, targets.labels, targets.ignore | (after < min_visible * before), masks, keypoints)
    return seen[(after > 0) & _wide_enough(boxes)]


def flip(targets: Targets, size: Size, skeleton: Skeleton | None, *, vertical: bool = False) -> Targets:
    """The objects of the image mirrored left to right, or upside down.

    Raises:
        ConfigError: they have keypoints, and no skeleton says which of these change places.
    """
    if targets.keypoints is not None and skeleton is None:
        raise ConfigError(
            "flipping keypoints needs a skeleton that says which are left and right of each other: give the "
            "dataset one (dataset.skeleton), or switch the flips off"
        )
    mirrored = _mirror(targets, size, vertical=vertical)
    if mirrored.keypoints is None or skeleton is None:
        return mirrored
    return replace(mirrored, keypoints=mirrored.keypoints[:, skeleton.flip_order()])


def turn(targets: Targets, size: Size, quarters: int) -> Targets:
    """The objects of the image turned counterclockwise by 1, 2 or 3 quarters. Left keypoints stay left ones.

    Args:
        targets: of the image.
        size: of the image before.
        quarters: how many.
    """
    assert quarters in (1, 2, 3), f"{quarters} quarters"
    if quarters == 2:
        return _mirror(_mirror(targets, size), size, vertical=True)
    masks, keypoints = targets.masks, targets.keypoints
    transposed = replace(
        targets,
        boxes=targets.boxes[:, [1, 0, 3, 2]],
        masks=None if masks is None else masks.transposed(),
        keypoints=None if keypoints is None else keypoints[..., [1, 0, 2]],
    )
    return _mirror(transposed, Size(size.width, size.height), vertical=quarters == 1)


def join(parts: Sequence[Targets], size: Size) -> Targets:
    """The objects of several images in one frame, in order.

    Args:
        parts: of images of this size.
        size: of all of them.
    """
    filled = [part for part in parts if len(part)] or parts[:1]
    masks = [part.masks for part in filled if part.masks is not None]
    points = [part.keypoints for part in filled if part.keypoints is not None]
    return Targets(
        torch.cat([part.boxes for part in filled]),
        torch.cat([part.labels for part in filled]),
        torch.cat([part.ignore for part in filled]),
        Masks.concatenate(masks) if len(masks) == len(filled) else None,
        torch.cat(points) if len(points) == len(filled) else None,
    )


def cover(targets: Targets, over: Bool[np.ndarray, "h w"], *, min_visible: float) -> Targets:
    """The objects of an image onto which something is laid.

    What is left of a mask decides; without masks the share of the box that stays free. An object that is covered as a
    whole is dropped, one of which less than `min_visible` stays is ignored; visible keypoints below are hidden ones.

    Args:
        targets: of the image.
        over: which of its pixels something lies on.
        min_visible: as in `cut`.
    """
    outlines, boxes = targets.masks, targets.boxes.clone()
    share, rests = torch.ones(len(targets)), {}
    for number, (x1, y1, x2, y2) in enumerate(clip(boxes, *over.shape).round().int().tolist()):
        laid = over[y1:y2, x1:x2]
        if not laid.any():
            continue
        start, pixels = (y1, x1), None
        if outlines is not None:
            start, pixels = _window(outlines[number])
        if pixels is None or not pixels.any():
            share[number] = 1 - float(laid.mean())
            continue
        (top, left), (height, width) = start, pixels.shape
        free = pixels & ~over[top : top + height, left : left + width]
        share[number] = free.sum() / pixels.sum()
        if 0 < share[number] < 1:
            alone = Masks.from_dense([torch.from_numpy(free)], Size(height, width))
            rests[number] = alone.shifted(top=top, left=left, size=Size(*over.shape))
            boxes[number] = rests[number].boxes()[0]
    if outlines is not None and rests:
        outlines = Masks.concatenate([rests.get(number, outlines[number]) for number in range(len(outlines))])
    keypoints = None if targets.keypoints is None else _hide(targets.keypoints, over)
    seen = Targets(boxes, targets.labels, targets.ignore | (share < min_visible), outlines, keypoints)
    return seen[(share == 1) | ((share > 0) & _wide_enough(boxes))]


def _window(mask: Masks) -> tuple[tuple[int, int], Bool[np.ndarray, "h w"]]:
    """Top and left of one mask's box, and the pixels in it."""
    x1, y1, x2, y2 = mask.boxes()[0].tolist()
    left, top, right, bottom = int(x1), int(y1), math.ceil(x2), math.ceil(y2)
    here = mask.shifted(top=-top, left=-left, size=Size(bottom - top, right - left))
    return (top, left), here.dense()[0].numpy()


def _hide(keypoints: Float[Tensor, "n j 3"], over: Bool[np.ndarray, "h w"]) -> Float[Tensor, "n j 3"]:
    """Visible keypoints (2) on which something lies become hidden ones (1)."""
    column, row = (keypoints[..., axis].long().clamp(0, over.shape[1 - axis] - 1).numpy() for axis in (0, 1))
    below = torch.from_numpy(over[row, column]) & (keypoints[..., 2] == 2)
    hidden = keypoints.clone()
    hidden[..., 2][below] = 1
    return hidden


def _mirror(targets: Targets, size: Size, *, vertical: bool = False) -> Targets:
    if vertical:
        return move(targets, scale=(-1.0, 1.0), offset=(float(size.height), 0.0), size=size)
    return move(targets, scale=(1.0, -1.0), offset=(0.0, float(size.width)), size=size)


def _areas(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)


def _wide_enough(boxes: Float[Tensor, "n 4"]) -> Bool[Tensor, " n"]:
    """Less than a pixel is no object, and coders divide by width and height."""
    return ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(dim=1)
