"""What a recipe asks of a dataset: how many images and objects there are, and how large they are. No image is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from fpn.data.dataset import Dataset
from fpn.detectors.anchor_reach import Boxes
from fpn.wording import counted

# Images that are looked at: every second, third, ... of more.
_SAMPLE = 20_000


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Counts and sizes.

    Attributes:
        images: in the dataset.
        objects: without ignored ones, in the images looked at.
        empty: share of the images without such an object, 0 to 1.
        most: objects of the fullest image.
        shares: class -> share of the images that have it, 0 to 1.
        sizes: (N, 2) height and width of the images, original pixels.
        boxes: all objects, for anchors.
    """

    images: int
    objects: int
    empty: float
    most: int
    shares: dict[str, float]
    sizes: np.ndarray
    boxes: Boxes

    @classmethod
    def of(cls, dataset: Dataset) -> DataFacts:
        """Look at a dataset's annotations."""
        seen = range(0, len(dataset), 1 + len(dataset) // _SAMPLE)
        sizes = np.array([dataset.size(index) for index in seen], dtype=np.float64).reshape(-1, 2)
        boxes, owners, classes = [np.zeros((0, 4))], [], Counter[int]()
        counts = []
        for number, index in enumerate(seen):
            targets = dataset.targets(index)
            kept = ~targets.ignore
            boxes.append(targets.boxes[kept].double().numpy())
            counts.append(int(kept.sum()))
            owners += [number] * counts[-1]
            classes.update(set(targets.labels[kept].tolist()))
        return cls(
            images=len(dataset),
            objects=len(owners),
            empty=counts.count(0) / max(1, len(counts)),
            most=max(counts, default=0),
            shares={name: classes[label] / max(1, len(counts)) for label, name in enumerate(dataset.classes)},
            sizes=sizes,
            boxes=Boxes(np.concatenate(boxes), sizes[owners]),
        )

    def side(self, percent: float) -> float:
        """A percentile of objects' sides (square root of the area) as shares of their image's shorter side."""
        sides = np.sqrt(np.prod(self.boxes.boxes[:, 2:] - self.boxes.boxes[:, :2], axis=1).clip(0))
        return float(np.percentile(sides / self.boxes.sizes.min(axis=1), percent)) if len(sides) else 1.0

    def short_side(self) -> float:
        """The median of images' shorter sides, original pixels."""
        return float(np.median(self.sizes.min(axis=1))) if len(self.sizes) else 0.0

    def stretch(self, percent: float) -> float:
        """A percentile of longer by shorter side."""
        return (
            float(np.percentile(self.sizes.max(axis=1) / self.sizes.min(axis=1), percent)) if len(self.sizes) else 1.0
        )

    def rarest(self) -> tuple[str, float]:
        """The class that fewest images have, of those that any has, and their share; "" where there is none."""
        present = {name: share for name, share in self.shares.items() if share > 0}
        name = min(present, key=lambda each: present[each], default="")
        return name, present.get(name, 0.0)

    def __str__(self) -> str:
        height, width = np.median(self.sizes, axis=0) if len(self.sizes) else (0, 0)
        low, middle, high = (100 * self.side(percent) for percent in (10.0, 50.0, 90.0))
        if not self.objects:
            return f"{counted(self.images, 'image')}, none with an object that counts"
        return (
            f"{counted(self.images, 'image')}, half of them of {width:.0f} x {height:.0f} and more, "
            f"{100 * self.empty:.0f} % without objects; {counted(self.objects, 'object')} in "
            f"{counted(len(self.shares), 'class')}, {low:.0f}, {middle:.0f} and {high:.0f} % "
            "of the image's shorter side (10th, 50th, 90th percentile)"
        )
