"""Proposals of segments: class-free masks, ranked (paper, section 6)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fpn.detectors.detector import Detector, Rewriter
from fpn.detectors.prediction import TaskName
from fpn.detectors.recipe import Recipe
from fpn.features.extractor import Extractor
from fpn.heads.class_rows import ClassRows
from fpn.heads.sampling import Randomness
from fpn.heads.segments import SegmentHead
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.structures import Classes, Detections, ImageBatch, LossTerms, Targets


class SegmentProposer(Detector):
    """Features, then windows that slide over all levels.

    Args:
        features: pixels (B, 3, H, W) -> named levels.
        head: levels -> windows' scores, losses, and the masks of the best.
        classes, preprocessor, recipe: as `Detector`.
    """

    def __init__(
        self, *, features: Extractor, head: SegmentHead, classes: Classes, preprocessor: Preprocessor, recipe: Recipe
    ) -> None:
        super().__init__(classes=classes, preprocessor=preprocessor, recipe=recipe)
        self.features, self.head = features, head

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """See `Detector.tasks`."""
        return ("boxes", "masks", "segments")

    def losses(self, images: ImageBatch, targets: Sequence[Targets], *, generator: Randomness = None) -> LossTerms:
        """Terms `objectness` and `mask`; see `Detector.losses`."""
        return self.head.losses(self.features(images.pixels), images, targets, generator=generator)

    def detect(self, images: ImageBatch) -> list[Detections]:
        """See `Detector.detect`."""
        found, levels = self.run_dense(images.pixels), self.features.levels
        features = {level.name: maps for level, maps in zip(levels, found, strict=False)}
        return self.head.detect(features, found[len(levels) :], images)

    def dense_part(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """See `Detector.dense_part`: the maps of all levels, then the scores of all windows."""
        features = self.features(pixels)
        return (*(features[level.name] for level in self.features.levels), *self.head(features))

    @property
    def dense_modules(self) -> list[nn.Module]:
        """See `Detector.dense_modules`."""
        return [self.features, self.head]

    def backbone_parameters(self) -> list[nn.Parameter]:
        """See `Detector.backbone_parameters`."""
        return self.features.backbone_parameters()

    def class_rows(self) -> list[ClassRows]:
        """See `Detector.class_rows`: it knows no classes."""
        return []

    def rewrite(self, tools: Rewriter) -> bool:
        """See `Detector.rewrite`."""
        self.head.rewrite(tools.fuse)
        return self.features.backbone.rewrite(tools.fold)
