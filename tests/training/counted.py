"""Datasets that are numbers alone: sizes of images and boxes, no pixels."""

from __future__ import annotations

from pathlib import Path

import torch

from fpn.data.dataset import Dataset
from fpn.shapes import Size
from fpn.structures import Classes, Targets


class CountedDataset(Dataset):
    """Images of one size, each with the same boxes of class 0, and class 1 on the first `rare` of them."""

    def __init__(self, count: int, boxes, *, size: tuple[int, int] = (480, 640), rare: int | None = None) -> None:
        self.classes = Classes.of(["cell"] if rare is None else ["cell", "flaw"])
        self.name, self.root = "counted", Path("counted")
        self._count, self._boxes, self._size, self._rare = count, boxes, Size(*size), rare or 0

    def __len__(self) -> int:
        return self._count

    def image_id(self, index: int) -> int:
        return index + 1

    def path(self, index: int) -> str:
        return f"counted/{index}.png"

    def size(self, index: int) -> Size:
        return self._size

    def targets(self, index: int, *, masks: bool = False) -> Targets:
        boxes = torch.tensor(self._boxes, dtype=torch.float32).reshape(-1, 4)
        labels = torch.zeros(len(boxes), dtype=torch.int64)
        if index < self._rare:
            labels[0] = 1
        return Targets(boxes, labels, torch.zeros(len(boxes), dtype=torch.bool))


def square(side: float, *, count: int = 1) -> list[list[float]]:
    """Boxes of this side that begin at (100, 100)."""
    return [[100.0, 100.0, 100.0 + side, 100.0 + side]] * count
