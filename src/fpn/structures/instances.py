"""What is in one image: the truth, what was proposed, what was found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fpn.structures.classes import Classes

# Not None: a field that is declared a tensor is one, also while it is being filled in.
_NOT_GIVEN = torch.zeros(0, dtype=torch.bool)


@dataclass(frozen=True, slots=True)
class Targets:
    """One image's ground truth.

    Attributes:
        boxes: (N, 4) float32 xyxy.
        labels: (N,) int64 in 0..K-1.
        ignore: (N,) bool: crowds and difficult objects, neither object nor background in training and measuring. None
            of them when left out.
        masks: (N, H, W) bool in the frame of the image, or None.
    """

    boxes: Tensor
    labels: Tensor
    ignore: Tensor = field(default=_NOT_GIVEN)
    masks: Tensor | None = None

    def __post_init__(self) -> None:
        if self.ignore is _NOT_GIVEN:
            object.__setattr__(self, "ignore", torch.zeros_like(self.labels, dtype=torch.bool))
        assert self.boxes.shape == (len(self.labels), 4), f"boxes must be (N, 4), got {tuple(self.boxes.shape)}"
        assert len(self.ignore) == len(self.labels), "one ignore flag a box"
        assert self.masks is None or len(self.masks) == len(self.labels), "one mask a box"

    @classmethod
    def empty(cls) -> Targets:
        """No objects: an image of background only."""
        return cls(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, which: Tensor | slice) -> Targets:
        masks = None if self.masks is None else self.masks[which]
        return Targets(self.boxes[which], self.labels[which], self.ignore[which], masks)

    def to(self, device: torch.device | str) -> Targets:
        """The same objects on another device."""
        masks = None if self.masks is None else self.masks.to(device, non_blocking=True)
        boxes, labels, ignore = (t.to(device, non_blocking=True) for t in (self.boxes, self.labels, self.ignore))
        return Targets(boxes, labels, ignore, masks)


@dataclass(frozen=True, slots=True)
class Proposals:
    """One image's candidate boxes, best first: `boxes` (N, 4) xyxy and objectness `scores` (N,) in 0..1."""

    boxes: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found in one image, best first. `found[found.scores > 0.8]` keeps the sure ones.

    Attributes:
        boxes: (N, 4) float32 xyxy, in pixels of the original image (network pixels inside a detector).
        scores: (N,) float32 in 0..1.
        labels: (N,) int64 in 0..K-1.
        masks: (N, H, W) bool, or None.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, which: Tensor | slice) -> Detections:
        masks = None if self.masks is None else self.masks[which]
        return Detections(self.boxes[which], self.scores[which], self.labels[which], masks)

    def to(self, device: torch.device | str) -> Detections:
        """The same detections on another device."""
        masks = None if self.masks is None else self.masks.to(device)
        return Detections(self.boxes.to(device), self.scores.to(device), self.labels.to(device), masks)

    def to_coco(self, *, image_id: int, classes: Classes) -> list[dict[str, Any]]:
        """COCO result records: xywh boxes in pixels and the original category ids. Masks are not included."""
        xywh = self.boxes.clone()
        xywh[:, 2:] -= xywh[:, :2]
        records = zip(xywh.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
        return [
            {"image_id": image_id, "category_id": classes.ids[label], "bbox": box, "score": score}
            for box, score, label in records
        ]
