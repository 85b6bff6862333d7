"""Fewer boxes: the best k, and of boxes that overlap the best one."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor
from torchvision.ops import nms as torchvision_nms

from fpn.ops.boxes import at_least_float32, pairwise_iou

Decay = Literal["linear", "gaussian"]


def top_k(scores: Float[Tensor, "*b n"], k: int) -> tuple[Float[Tensor, "*b k"], Int[Tensor, "*b k"]]:
    """The highest `k` scores of the last dimension, or all where there are fewer, best first, and their indices.

    Of equal ones the earlier is the better, as in `nms`: even parts of an image give many, and which of them count must
    depend neither on the device nor on what else is in the batch. `torch.topk` leaves it open.

    Args:
        scores: float32 or narrower.
        k: how many.
    """
    # One number of 64 bits each: the score's own bits, so that they rise with it, then the place, which falls. A
    # stable sort takes fifty times as long (163 200 scores on a CPU).
    bits = (scores.float() + 0.0).view(torch.int32)  # -0.0 equals 0.0
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    count = scores.shape[-1]
    keys = (bits.to(torch.int64) << 32) + torch.arange(count - 1, -1, -1, device=scores.device)
    index = keys.topk(min(k, count), dim=-1).indices
    return scores.gather(-1, index), index


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
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + 1], dim=1)
    order = scores.argsort(descending=True, stable=True)
    boxes, scores, groups = boxes[order], scores[order], None if groups is None else groups[order]
    # What the best n boxes do to each other does not depend on the rest, so with a limit a part may do: 12 000 boxes
    # with a limit of 2000 take a tenth of the time. A GPU would have to be waited for.
    count = len(order) if limit is None or boxes.is_cuda else min(2 * limit, len(order))
    while True:
        kept = _survivors(boxes[:count], scores[:count], threshold, None if groups is None else groups[:count])
        if count == len(order) or (limit is not None and len(kept) >= limit):
            return order[kept[:limit]]
        count = min(4 * count, len(order))


@torch.no_grad()
def soft_nms(
    boxes: Num[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    *,
    decay: Decay,
    threshold: float = 0.3,
    sigma: float = 0.5,
    lowest: float = 1e-3,
    groups: Int[Tensor, " n"] | None = None,
    limit: int | None = None,
    legacy_plus_one: bool = False,
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """Lower the scores of boxes that overlap a better one, instead of dropping them.

    The best box is kept, all others of its group lose by their overlap with it, and the best of what is left is next.

    Args:
        boxes: xyxy, finite.
        scores: not negative.
        decay: "linear": times 1 - IoU from an IoU of `threshold` on; "gaussian": times exp(-IoU ** 2 / sigma).
        threshold: see `decay`.
        sigma: see `decay`.
        lowest: a box whose score has fallen below this is dropped.
        groups: boxes of different groups (classes) don't touch each other's scores; None: one group.
        limit: at most so many are kept. Scores only fall, so that the first of them are the best of all.
        legacy_plus_one: IoU counts widths as x2 - x1 + 1.

    Returns:
        Indices of the kept boxes and their lowered scores, best first.

    Source: Bodla et al. 2017, arXiv:1704.04503, section 3.
    """
    boxes, left = at_least_float32(boxes), at_least_float32(scores).clone()
    count = len(left) if limit is None else min(limit, len(left))
    picks, kept = torch.zeros(count, dtype=torch.int64, device=left.device), left.new_zeros(count)
    for number in range(count):
        best = left.argmax().reshape(1)
        picks[number], kept[number] = best[0], left[best][0]
        overlap = pairwise_iou(boxes[best], boxes, legacy_plus_one=legacy_plus_one)[0]
        if decay == "linear":
            factor = torch.where(overlap >= threshold, 1 - overlap, 1.0)
        if decay == "gaussian":
            factor = torch.exp(-overlap.square() / sigma)
        lowered = left * (factor if groups is None else factor.where(groups == groups[best], 1.0))
        left = lowered.masked_fill(lowered < lowest, -1.0)
        left[best] = -1.0
    found = kept >= 0
    return picks[found], kept[found]


def _survivors(boxes: Tensor, scores: Tensor, threshold: float, groups: Tensor | None) -> Tensor:
    """Kept indices in rising order; boxes come best first."""
    if groups is None or len(groups) == 0:
        return _one_group(boxes, scores, threshold)
    return (_side_by_side if boxes.is_cuda else _one_by_one)(boxes, scores, threshold, groups)


def _one_by_one(boxes: Tensor, scores: Tensor, threshold: float, groups: Tensor) -> Tensor:
    """Group after group: on a CPU the fastest, since no pair of different groups is looked at."""
    order = groups.argsort(stable=True)
    counts = torch.unique_consecutive(groups[order], return_counts=True)[1].tolist()
    parts = torch.split(order, counts)
    return torch.cat([part[_one_group(boxes[part], scores[part], threshold)] for part in parts]).sort().values


def _side_by_side(boxes: Tensor, scores: Tensor, threshold: float, groups: Tensor) -> Tensor:
    """All groups at once, each moved to a place of its own: one wait for a GPU instead of one a group.

    In float64 a shift by a million pixels moves no corner by more than 1e-9; in float32, where this is usually done,
    class 80 of an image of 1300 pixels would be rounded to 0.008.
    """
    step = boxes.max() - boxes.min() + 1
    return _one_group(boxes.double() + (groups * step.double())[:, None], scores.double(), threshold)


def _one_group(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    kept: Tensor = torchvision_nms(boxes, scores, threshold)
    return kept
