"""Whether both sides found the same: a fast wrong answer is no answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fpn.ops.boxes import pairwise_iou
from fpn.structures import Detections

SURE, SAME_PLACE = 0.5, 0.9


def share_with_twin(ours: Sequence[Detections], theirs: Sequence[Mapping[str, Tensor]]) -> float:
    """Of torchvision's sure detections, the share that has a twin of ours: of the same class, with IoU above 0.9.

    Where none is sure, the better half of each image's counts.
    """
    shares = [_share(o.to("cpu"), {k: v.cpu() for k, v in t.items()}) for o, t in zip(ours, theirs, strict=True)]
    found = [each for each in shares if each is not None]
    return sum(found) / len(found) if found else float("nan")


def _share(ours: Detections, theirs: Mapping[str, Tensor]) -> float | None:
    sure = theirs["scores"] >= min(SURE, float(theirs["scores"].median()) if len(theirs["scores"]) else SURE)
    boxes, labels = theirs["boxes"][sure].float(), theirs["labels"][sure] - 1  # 0 is background there
    if not len(boxes):
        return None
    if not len(ours):
        return 0.0
    same = labels[:, None] == ours.labels
    return float((same & (pairwise_iou(boxes, ours.boxes) > SAME_PLACE)).any(dim=1).float().mean())


def largest_difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Of two lists of tensors, relative to 1 + the value."""
    pairs = zip(ours, theirs, strict=True)
    return max(float(((a.float() - b.float()).abs() / (1 + b.float().abs())).max()) for a, b in pairs)


def finite(values: Sequence[float]) -> bool:
    """No NaN and no infinity."""
    return bool(torch.isfinite(torch.tensor(list(values))).all())
