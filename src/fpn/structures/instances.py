"""What is in one image: the truth, what was proposed, what was found."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fpn.errors import MissingExtraError
from fpn.structures.classes import Classes
from fpn.structures.masks import Masks

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
        masks: N masks in the frame of the image, or None.
        keypoints: (N, J, 3) float32 x, y, visibility (0 not labelled, 1 hidden, 2 visible), or None.
    """

    boxes: Tensor
    labels: Tensor
    ignore: Tensor = field(default=_NOT_GIVEN)
    masks: Masks | None = None
    keypoints: Tensor | None = None

    def __post_init__(self) -> None:
        if self.ignore is _NOT_GIVEN:
            object.__setattr__(self, "ignore", torch.zeros_like(self.labels, dtype=torch.bool))
        assert self.boxes.shape == (len(self.labels), 4), f"boxes must be (N, 4), got {tuple(self.boxes.shape)}"
        assert len(self.ignore) == len(self.labels), "one ignore flag a box"
        assert self.masks is None or len(self.masks) == len(self.labels), "one mask a box"
        assert self.keypoints is None or _fit(self.keypoints, len(self.labels)), "keypoints must be (N, J, 3)"

    @classmethod
    def empty(cls) -> Targets:
        """No objects: an image of background only."""
        return cls(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, which: Tensor | slice) -> Targets:
        boxes, labels, ignore = self.boxes[which], self.labels[which], self.ignore[which]
        return Targets(boxes, labels, ignore, _some_masks(self.masks, which), _some(self.keypoints, which))

    def to(self, device: torch.device | str) -> Targets:
        """The same objects on another device. Masks stay in main memory: `masks.crop` brings what a loss needs."""
        boxes, labels, ignore = (t.to(device, non_blocking=True) for t in (self.boxes, self.labels, self.ignore))
        keypoints = None if self.keypoints is None else self.keypoints.to(device, non_blocking=True)
        return Targets(boxes, labels, ignore, self.masks, keypoints)


@dataclass(frozen=True, slots=True)
class Proposals:
    """One image's candidate boxes, best first.

    Attributes:
        boxes: (N, 4) xyxy.
        scores: (N,) objectness in 0..1.
        masks: N masks, where what proposes finds outlines, too; or None.
    """

    boxes: Tensor
    scores: Tensor
    masks: Masks | None = None

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found in one image, best first. `found[found.scores > 0.8]` keeps the sure ones.

    Attributes:
        boxes: (N, 4) float32 xyxy, in pixels of the original image (network pixels inside a detector).
        scores: (N,) float32 in 0..1.
        labels: (N,) int64 in 0..K-1.
        masks: N masks in the frame of the boxes, or None.
        keypoints: (N, J, 3) float32 x, y, score in the frame of the boxes, or None.
        levels: (N,) int64 number of the pyramid level that each was read from, or None.
        origins: (N, 4) float32 xyxy the anchor or proposal that each was made of, in the frame of the boxes, or None.
        mask_probabilities: (N, S, S) float32 in 0..1 what a mask head says on the grid of each box, inside a detector
            only: `Preprocessor.restore` pastes it into the original image, which gives `masks`.
        mask_regions: (N, 4) float32 xyxy where those grids lie, in the frame of the boxes, which `restore` then draws
            tightly around the masks. None: they lie on the boxes.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Masks | None = None
    keypoints: Tensor | None = None
    levels: Tensor | None = None
    origins: Tensor | None = None
    mask_probabilities: Tensor | None = None
    mask_regions: Tensor | None = None

    def __post_init__(self) -> None:
        assert self.masks is None or len(self.masks) == len(self.scores), "one mask a box"
        assert self.keypoints is None or _fit(self.keypoints, len(self.scores)), "keypoints must be (N, J, 3)"

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, which: Tensor | slice) -> Detections:
        return Detections(
            self.boxes[which],
            self.scores[which],
            self.labels[which],
            _some_masks(self.masks, which),
            _some(self.keypoints, which),
            _some(self.levels, which),
            _some(self.origins, which),
            _some(self.mask_probabilities, which),
            _some(self.mask_regions, which),
        )

    def to(self, device: torch.device | str) -> Detections:
        """The same detections on another device; masks stay in main memory."""
        return Detections(
            self.boxes.to(device),
            self.scores.to(device),
            self.labels.to(device),
            self.masks,
            _moved(self.keypoints, device),
            _moved(self.levels, device),
            _moved(self.origins, device),
            _moved(self.mask_probabilities, device),
            _moved(self.mask_regions, device),
        )

    def to_coco(self, *, image_id: int, classes: Classes) -> list[dict[str, Any]]:
        """COCO result records: xywh boxes in pixels and the original category ids.

        Masks become compressed run-length codes ("segmentation"), keypoints a list x, y, score, ... ("keypoints").
        """
        xywh = self.boxes.clone()
        xywh[:, 2:] -= xywh[:, :2]
        columns = zip(xywh.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
        records: list[dict[str, Any]] = [
            {"image_id": image_id, "category_id": classes.ids[label], "bbox": box, "score": score}
            for box, score, label in columns
        ]
        if self.masks is not None:
            for record, code in zip(records, self.masks.to_coco(polygons=False), strict=True):
                record["segmentation"] = code
        if self.keypoints is not None:
            for record, points in zip(records, self.keypoints.flatten(1).tolist(), strict=True):
                record["keypoints"] = points
        return records

    def to_supervision(self, classes: Classes | None = None) -> Any:
        """The same as `supervision.Detections`: boxes, scores, labels, masks in all their pixels.

        Args:
            classes: puts each class's name into `data["class_name"]`, where supervision's annotators look for it.

        Keypoints go to `data["keypoints"]`, (N, J, 3).

        Raises:
            MissingExtraError: supervision is not installed.
            DataError: the masks have too many pixels, see `Masks.dense`.
        """
        found = self.to("cpu")
        labels = found.labels.numpy()
        data: dict[str, Any] = {}
        if classes is not None:
            data["class_name"] = np.array([classes[label] for label in labels.tolist()], dtype=np.str_)
        if found.keypoints is not None:
            data["keypoints"] = found.keypoints.numpy()
        masks = None if found.masks is None else found.masks.dense().numpy()
        return _supervision().Detections(
            xyxy=found.boxes.numpy(), mask=masks, confidence=found.scores.numpy(), class_id=labels, data=data
        )


def _supervision() -> Any:
    try:
        return importlib.import_module("supervision")
    except ImportError as error:
        raise MissingExtraError("supervision: is not installed. Get it with: pip install supervision") from error


def _fit(keypoints: Tensor, count: int) -> bool:
    return keypoints.ndim == 3 and len(keypoints) == count and keypoints.shape[2] == 3


def _some(values: Tensor | None, which: Tensor | slice) -> Tensor | None:
    return None if values is None else values[which]


def _some_masks(masks: Masks | None, which: Tensor | slice) -> Masks | None:
    return None if masks is None else masks[which]


def _moved(values: Tensor | None, device: torch.device | str) -> Tensor | None:
    return None if values is None else values.to(device)
