"""A detector that knows the truth: it recognises each image by its shade of grey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from written_sets import write_json

from fpn.data import open_dataset
from fpn.data.dataset import Dataset
from fpn.detectors import PAPER, Detector, Preprocessor
from fpn.detectors.dialect import Dialect
from fpn.detectors.prediction import TaskName
from fpn.detectors.recipe import Recipe
from fpn.structures import Classes, Detections, ImageBatch, LossTerms, Proposals, Targets

# Values 0..255 come through the preprocessor as they are.
PLAIN = Dialect(
    name="plain",
    source="made up",
    pixels=PAPER.pixels.changed(mean=(0.0,) * 3, std=(1.0,) * 3, value_range=255.0, short_side=60, long_side=200),
)
# Grey value -> size (height, width) and objects (class, xyxy); ids and order are nobody's default.
SCENES: dict[int, tuple[tuple[int, int], list[tuple[str, list[float]]]]] = {
    40: ((30, 60), [("nut", [5, 5, 25, 25]), ("bolt", [30, 2, 58, 28])]),
    80: ((80, 40), []),
    120: ((60, 60), [("bolt", [1, 1, 41, 51])]),
    160: ((33, 90), [("washer", [10, 3, 30, 23])]),
}
IDS = {"washer": 4, "nut": 17, "bolt": 2}


class Seer(Detector):
    """Finds `known[grey]`, given in original pixels, in each image."""

    def __init__(self, classes: Sequence[str], known: Mapping[int, Detections]) -> None:
        named = Classes.of(classes)
        recipe = Recipe(kind="seer", classes=named.names, category_ids=named.ids, dialect=PLAIN)
        super().__init__(classes=named, preprocessor=Preprocessor(PLAIN.pixels), recipe=recipe)
        self.weight = nn.Parameter(torch.ones(1))
        self.known = known
        self.saw: list[tuple[bool, bool, torch.dtype]] = []

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        return ("boxes", "proposals")

    def losses(
        self, images: ImageBatch, targets: Sequence[Targets], *, generator: torch.Generator | None = None
    ) -> LossTerms:
        raise NotImplementedError

    def detect(self, images: ImageBatch) -> list[Detections]:
        precision = (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
        self.saw.append((self.training, torch.is_inference_mode_enabled(), precision))
        assert images.scales is not None
        return [
            self._look(int(pixels[0, 5, 5]), scale) for pixels, scale in zip(images.pixels, images.scales, strict=True)
        ]

    def proposals(self, images: ImageBatch) -> list[Proposals]:
        return [Proposals(found.boxes, found.scores) for found in self.detect(images)]

    def _look(self, grey: int, scale: torch.Tensor) -> Detections:
        found = self.known[grey]
        return replace(found, boxes=found.boxes * scale.flip(0).repeat(2))


def detections(classes: Sequence[str], objects: Sequence[tuple[str, list[float]]], score: float = 0.9) -> Detections:
    boxes = torch.tensor([box for _, box in objects]).reshape(-1, 4)
    labels = torch.tensor([classes.index(name) for name, _ in objects], dtype=torch.int64)
    return Detections(boxes, torch.full((len(objects),), score), labels)


def seer(classes: Sequence[str] = ("bolt", "nut", "washer")) -> Seer:
    """Knows everything."""
    return Seer(classes, {grey: detections(classes, objects) for grey, (_, objects) in SCENES.items()})


def greys(root: Path) -> Dataset:
    """The scenes on disk, image ids 140, 180, ... and category ids 4, 17, 2."""
    images, annotations = [], []
    (root / "images").mkdir(parents=True)
    for grey, ((height, width), objects) in SCENES.items():
        name = f"{grey}.png"
        Image.new("RGB", (width, height), (grey, grey, grey)).save(root / "images" / name)
        images.append({"id": 100 + grey, "file_name": name, "height": height, "width": width})
        for label, (x1, y1, x2, y2) in objects:
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            number = {"id": len(annotations) + 1, "image_id": 100 + grey, "category_id": IDS[label]}
            annotations.append({**number, **box})
    categories = [{"id": number, "name": name} for name, number in IDS.items()]
    write_json(root / "instances.json", {"images": images, "annotations": annotations, "categories": categories})
    return open_dataset(root)
