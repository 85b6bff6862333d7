"""Which detection found which object, and which object a box is for."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fpn.ops.boxes import pairwise_coverage, pairwise_iou
from fpn.structures import Detections, Targets
from fpn.studies.diagnosis.stages import FOUND_IOU

NOTHING, IGNORED = -1, -2
# Two objects that a box overlaps equally far are both its own.
_TIE = 1e-6
# Elements of a matrix of overlaps at once.
_CHUNK = 1 << 22


def pair(found: Detections, truth: Targets) -> Int[Tensor, " n"]:
    """The object that each detection finds: the best of its class that is still free, the surest choosing first.

    Args:
        found: best first.
        truth: in the same pixels.

    Returns:
        Row of the truth, `NOTHING`, or `IGNORED` for one that lies at least half in what is to be ignored.
    """
    matched = torch.full((len(found),), NOTHING, dtype=torch.int64)
    if len(found) == 0 or len(truth) == 0:
        return matched
    same = (found.labels[:, None] == truth.labels).cpu()
    iou = pairwise_iou(found.boxes, truth.boxes).cpu().where(same & ~truth.ignore.cpu(), -1.0)
    inside = pairwise_coverage(found.boxes, truth.boxes).cpu().where(same & truth.ignore.cpu(), -1.0)
    for number in range(len(found)):
        best, row = iou[number].max(dim=0)
        if best >= FOUND_IOU:
            matched[number] = row
            iou[:, row] = -1.0
        elif inside[number].max() >= FOUND_IOU:
            matched[number] = IGNORED
    return matched


def own(iou: Float[Tensor, "n m"]) -> Bool[Tensor, "n m"]:
    """Which boxes are for which object: they reach it, and overlap no other one further."""
    if iou.shape[1] == 0:
        return torch.zeros_like(iou, dtype=torch.bool)
    return (iou >= FOUND_IOU) & (iou >= iou.amax(dim=1, keepdim=True) - _TIE)


def own_pairs(
    boxes: Float[Tensor, "n 4"], objects: Float[Tensor, "m 4"]
) -> tuple[Int[Tensor, "2 p"], Float[Tensor, " p"]]:
    """As `own`, for hundreds of thousands of boxes: (box, object) of each pair, and their IoU."""
    pairs, overlaps = [torch.zeros(0, 2, dtype=torch.int64, device=boxes.device)], [boxes.new_zeros(0)]
    size = max(_CHUNK // max(len(objects), 1), 1)
    for start in range(0, len(boxes), size):
        iou = pairwise_iou(boxes[start : start + size], objects)
        at = own(iou).nonzero()
        overlaps.append(iou[at[:, 0], at[:, 1]])
        pairs.append(at + at.new_tensor([start, 0]))
    return torch.cat(pairs).T, torch.cat(overlaps)


def best_overlap(
    boxes: Float[Tensor, "n 4"], objects: Float[Tensor, "m 4"]
) -> tuple[Float[Tensor, " m"], Int[Tensor, " m"]]:
    """Each object's highest IoU with any box, and which box that is; 0 and 0 where there is none."""
    highest, which = boxes.new_zeros(len(objects)), torch.zeros(len(objects), dtype=torch.int64, device=boxes.device)
    size = max(_CHUNK // max(len(objects), 1), 1)
    for start in range(0, len(boxes), size):
        values, places = pairwise_iou(boxes[start : start + size], objects).max(dim=0)
        better = values > highest
        highest, which = highest.where(~better, values), which.where(~better, places + start)
    return highest, which
