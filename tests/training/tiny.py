"""The smallest detector that trains: a convolution, a norm, dropout, and randomness from both sources."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from fpn.data.synthetic.scenes import SceneDataset
from fpn.detectors import PAPER, Detector, Preprocessor
from fpn.detectors.dialect import Dialect
from fpn.detectors.recipe import Recipe
from fpn.heads.class_rows import ClassRows
from fpn.heads.sampling import Randomness, per_image
from fpn.structures import Classes, Detections, ImageBatch, LossTerms, Proposals, Targets

# Only the sections that every kind of detector has.
DIALECT = Dialect(
    name="tiny",
    source="made up",
    pixels=PAPER.pixels.changed(mean=(0.5,) * 3, std=(0.25,) * 3, short_side=32, long_side=64),
)


class TinyDetector(Detector):
    """Guesses how many objects an image has, and one box for all of them."""

    def __init__(self, classes: Sequence[str], *, spoil_step: int | None = None) -> None:
        named = Classes.of(classes)
        recipe = Recipe(kind="tiny", classes=named.names, category_ids=named.ids, dialect=DIALECT)
        super().__init__(classes=named, preprocessor=Preprocessor(DIALECT.pixels), recipe=recipe)
        backbone = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.Dropout(0.2))
        self.features = nn.ModuleDict({"backbone": backbone})
        self.head = nn.Linear(4, 5)
        self.calls, self.spoil_step = 0, spoil_step

    def guess(self, images: ImageBatch) -> torch.Tensor:
        return self.head(self.features["backbone"](images.pixels).mean((2, 3)))

    def losses(self, images: ImageBatch, targets: Sequence[Targets], *, generator: Randomness = None) -> LossTerms:
        self.calls += 1
        guess = self.guess(images)
        truth = torch.tensor([float(len(each)) for each in targets])
        chosen = torch.stack([torch.rand((), generator=each) for each in per_image(generator, len(targets))]) < 0.7
        count = ((guess[:, 0] - truth).square() * chosen).mean()
        if self.calls == self.spoil_step:
            count = count * float("nan")
        return LossTerms({"count": count, "box": guess[:, 1:].square().mean()}, {"objects": truth.sum()})

    def detect(self, images: ImageBatch) -> list[Detections]:
        boxes = self.guess(images)[:, None, 1:]
        return [Detections(box, torch.ones(1), torch.zeros(1, dtype=torch.int64)) for box in boxes]

    def backbone_parameters(self) -> list[nn.Parameter]:
        return list(self.features["backbone"].parameters())

    def class_rows(self) -> list[ClassRows]:
        return []

    def proposals(self, images: ImageBatch) -> list[Proposals]:
        return [Proposals(found.boxes, found.scores) for found in self.detect(images)]


def tiny_scenes(count: int = 6) -> SceneDataset:
    return SceneDataset(count, seed=3, height=32, width=(32, 48), objects=(1, 3), extent=(8.0, 24.0))


def tiny_detector(**options: int) -> TinyDetector:
    """The same weights each time."""
    torch.manual_seed(0)
    return TinyDetector(tiny_scenes().classes, **options)
