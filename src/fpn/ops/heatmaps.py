"""Keypoints as cells of a heatmap on the grid of a box, and back."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

KeypointScore: TypeAlias = Literal["probability", "logit"]


def cells_of_keypoints(
    keypoints: Float[Tensor, "n j 3"], boxes: Float[Tensor, "n 4"], *, size: int
) -> tuple[Int[Tensor, "n j"], Bool[Tensor, "n j"]]:
    """Which cell of its box's grid each keypoint lies in.

    Args:
        keypoints: x, y, visibility; 0: not labelled.
        boxes: xyxy, in the same pixels; box i is of object i.
        size: S, cells a side.

    Returns:
        Cell row * S + column, 0 where there is none; and whether there is one: the keypoint is labelled and in the box.
        A point on the right or lower edge lies in the last cell.

    Source: Detectron2's _keypoints_to_heatmap, which torchvision has too.
    """
    corner, end = boxes[:, None, :2], boxes[:, None, 2:]
    point = keypoints[..., :2]
    cell = ((point - corner) * (size / (end - corner))).floor()
    cell = torch.where(point == end, float(size - 1), cell)
    inside = ((cell >= 0) & (cell < size)).all(dim=-1) & (keypoints[..., 2] > 0)
    cell = torch.where(inside[..., None], cell, 0.0).to(torch.int64)
    return cell[..., 1] * size + cell[..., 0], inside


def keypoints_of_heatmaps(
    maps: Float[Tensor, "n j s s"], boxes: Float[Tensor, "n 4"], *, score: KeypointScore = "probability"
) -> Float[Tensor, "n j 3"]:
    """Where each heatmap is largest, once it is as fine as the box's pixels.

    Args:
        maps: logits on the grid of each box.
        boxes: xyxy, pixels.
        score: `probability`: of the place among the cells of its map, by a softmax; since the map between its cells
            may be larger than in them, it can pass 1 (Detectron2). `logit`: the map's value there (torchvision).

    Returns:
        x, y in pixels, and a score.

    Source: Detectron2's heatmaps_to_keypoints: bicubic, a pixel's centre counts, one box after the other.
    """
    maps, boxes = maps.to(torch.float32), boxes.to(torch.float32)
    found = [_peaks(one, box, score) for one, box in zip(maps, boxes.tolist(), strict=True)]
    return torch.stack(found) if found else maps.new_zeros(0, maps.shape[1], 3)


def _peaks(maps: Float[Tensor, "j s s"], box: list[float], score: KeypointScore) -> Float[Tensor, "j 3"]:
    left, top, right, bottom = box
    width, height = max(right - left, 1.0), max(bottom - top, 1.0)
    rows, columns = math.ceil(height), math.ceil(width)
    fine = functional.interpolate(maps[None], size=(rows, columns), mode="bicubic", align_corners=False)[0]
    largest, place = fine.flatten(1).max(dim=1)
    x = (place % columns + 0.5) * (width / columns) + left
    y = (place // columns + 0.5) * (height / rows) + top
    if score == "probability":
        largest = 1 / (maps.flatten(1) - largest[:, None]).exp().sum(dim=1)
    return torch.stack([x, y, largest], dim=1)
