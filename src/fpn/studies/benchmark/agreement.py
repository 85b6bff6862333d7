"""Whether both sides found the same: a fast wrong answer is no answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fpn.ops.boxes import pairwise_iou
from fpn.structures import Detections

SURE, SAME_PLACE = 0.5, 0.9
# Boxes without an area, which untrained detectors find at an image's rim, overlap nothing, not even themselves.
_SAME_CORNERS = 0.1


def share_with_twin(
    ours: Sequence[Detections], theirs: Sequence[Mapping[str, Tensor]], *, first_label: int = 1
) -> float:
    """Of torchvision's sure detections, the share that has a twin of ours: of the same class, with IoU above 0.9
    or with corners within 0.1 pixels.

    Where none is sure, the better half of each image's counts. `first_label` is that of our first class there: in
    detectors with proposals 0 is background.
    """
    pairs = zip(ours, theirs, strict=True)
    shares = [_share(o.to("cpu"), {k: v.cpu() for k, v in t.items()}, first_label) for o, t in pairs]
    found = [each for each in shares if each is not None]
    return sum(found) / len(found) if found else float("nan")


def _share(ours: Detections, theirs: Mapping[str, Tensor], first_label: int) -> float | None:
    sure = theirs["scores"] >= min(SURE, float(theirs["scores"].median()) if len(theirs["scores"]) else SURE)
    boxes, labels = theirs["boxes"][sure].float(), theirs["labels"][sure] - first_label
    if not len(boxes):
        return None
    if not len(ours):
        return 0.0
    same = labels[:, None] == ours.labels
    off = (boxes[:, None] - ours.boxes[None]).abs().amax(dim=2)
    near = (pairwise_iou(boxes, ours.boxes) > SAME_PLACE) | (off < _SAME_CORNERS)
    return float((same & near).any(dim=1).float().mean())


def largest_difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Of two lists of tensors, relative to 1 + the value."""
    pairs = zip(ours, theirs, strict=True)
    return max(float(((a.float() - b.float()).abs() / (1 + b.float().abs())).max()) for a, b in pairs)


def finite(values: Sequence[float]) -> bool:
    """No NaN and no infinity."""
    return bool(torch.isfinite(torch.tensor(list(values))).all())
