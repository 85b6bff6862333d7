"""Matching whose threshold each object chooses by itself: adaptive training sample selection (ATSS)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fpn.ops.boxes import at_least_float32, paired_iou, pairwise_coverage
from fpn.ops.matching import Match

# Objects whose distances to all references are held at once: 22 000 references and 64 objects take 6 MB.
_TOGETHER = 64
# A reference's centre has to be deeper inside of its object than this, pixels.
_DEPTH = 0.01
# As in `fpn.ops.matching`.
_IGNORED_COVERAGE = 0.5


@torch.no_grad()
def match_adaptively(
    levels: Sequence[Float[Tensor, "_ 4"]],
    boxes: Float[Tensor, "m 4"],
    ignore: Bool[Tensor, " m"],
    *,
    nearest: int = 9,
    usable: Bool[Tensor, " n"] | None = None,
) -> Match:
    """An object's candidates are the nearest references of each level; those whose IoU is at least the candidates' mean
    and standard deviation together, and whose centre is inside of it, become it.

    A reference that two objects want becomes the one it overlaps more. All others are negative: there is nothing
    between.

    Args:
        levels: references of each level, xyxy.
        boxes: objects, xyxy.
        ignore: crowds and difficult objects: no reference becomes one, and a negative one that lies at least half
            within one is neither.
        nearest: candidates of a level.
        usable: which of all levels' references may be candidates or negatives; None: all.

    Source: Zhang et al. 2020, arXiv:1912.02424, algorithm 1.
    """
    references = torch.cat(list(levels))
    count, real = len(references), (~ignore).nonzero().squeeze(1)
    candidates = _candidates(levels, boxes[real], nearest, usable)  # (c, r)
    place, which, overlap = _positives(references, boxes[real], candidates)
    best = overlap.new_full((count,), -1.0).scatter_reduce_(0, place, overlap, "amax")
    wins = overlap == best[place]
    gt_index = torch.full((count,), len(boxes), device=references.device)
    gt_index.scatter_reduce_(0, place[wins], real[which[wins]], "amin")
    positive = best >= 0
    kind = positive.to(torch.int8)
    if len(real) < len(boxes):
        crowded = (pairwise_coverage(references, boxes[ignore]) >= _IGNORED_COVERAGE).any(dim=1)
        kind = torch.where(crowded & ~positive, -1, kind)
    if usable is not None:
        kind = torch.where(usable, kind, -1)
    return Match(torch.where(positive, gt_index, 0), kind)


def _candidates(levels: Sequence[Tensor], boxes: Tensor, nearest: int, usable: Tensor | None) -> Int[Tensor, "c m"]:
    """Numbers of each object's candidates among all references."""
    found, start = [], 0
    for level in levels:
        numbers = torch.arange(start, start + len(level), device=level.device)
        if usable is not None:
            numbers = numbers[usable[start : start + len(level)]]
        centres = _centres(level[numbers - start])
        parts = [
            _distances(centres, part).topk(min(nearest, len(numbers)), dim=0, largest=False).indices
            for part in torch.split(_centres(boxes), _TOGETHER)
        ]
        found.append(numbers[torch.cat(parts, dim=1)])
        start += len(level)
    return torch.cat(found)


def _centres(boxes: Tensor) -> Tensor:
    boxes = at_least_float32(boxes)
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _distances(points: Tensor, others: Tensor) -> Tensor:
    return (points[:, None] - others[None]).pow(2).sum(dim=2).sqrt()


def _positives(references: Tensor, boxes: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reference, object and IoU of each pair that reaches the object's own threshold."""
    paired, objects = references[candidates], boxes.expand(len(candidates), -1, -1)
    overlap = paired_iou(paired, objects)  # (c, m)
    if overlap.numel() == 0:
        threshold = overlap
    else:
        threshold = overlap.mean(dim=0) + overlap.std(dim=0, correction=min(1, len(overlap) - 1))
    centres = (paired[..., :2] + paired[..., 2:]) / 2
    depth = torch.cat([centres - objects[..., :2], objects[..., 2:] - centres], dim=2).amin(dim=2)
    row, which = ((overlap >= threshold) & (depth > _DEPTH)).nonzero(as_tuple=True)
    return candidates[row, which], which, overlap[row, which]
