"""Fewer boxes: the best k, and of boxes that overlap the best one."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor
from torchvision.ops import nms as torchvision_nms

from fpn.ops.boxes import at_least_float32


def top_k(scores: Float[Tensor, "*b n"], k: int) -> tuple[Float[Tensor, "*b k"], Int[Tensor, "*b k"]]:
    """The highest `k` scores of the last dimension, or all where there are fewer, best first, and their indices."""
    values, index = scores.topk(min(k, scores.shape[-1]), dim=-1)
    return values, index


@torch.no_grad()
def nms(
    boxes: Num[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    threshold: float,
    *,
    groups: Int[Tensor, " n"] | None = None,
    limit: int | None = None,
    legacy_plus_one: bool = False,
) -> Int[Tensor, " k"]:
    """Drop every box that overlaps a better one of its group that is kept.

    Args:
        boxes: xyxy, finite.
        scores: the higher the better; of equal ones the earlier is the better.
        threshold: a box is dropped at an IoU above this.
        groups: boxes of different groups (levels, classes) never drop each other; None: one group.
        limit: at most so many are kept.
        legacy_plus_one: IoU counts widths as x2 - x1 + 1.

    Returns:
        Indices of the kept boxes, best first.
    """
    boxes, scores = at_least_float32(boxes), at_least_float32(scores)
    if legacy_plus_one:
        boxes = boxes + boxes.new_tensor([0.0, 0.0, 1.0, 1.0])
    if groups is None or len(groups) == 0:
        return torchvision_nms(boxes, scores, threshold)[:limit]
    order = scores.argsort(descending=True, stable=True)
    index = groups[order].argsort(stable=True)
    counts = groups[order][index].unique_consecutive(return_counts=True)[1].tolist()
    parts = order[index].split(counts)
    kept = torch.cat([part[torchvision_nms(boxes[part], scores[part], threshold)] for part in parts])
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return kept[rank[kept].argsort()][:limit]
