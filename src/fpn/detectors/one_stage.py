"""A detector without a second stage: every cell of every level predicts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fpn.detectors.detector import Detector, Rewriter
from fpn.detectors.recipe import Recipe
from fpn.features.extractor import Extractor
from fpn.heads.class_rows import ClassRows
from fpn.heads.dense import DenseHead
from fpn.heads.sampling import Randomness
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.structures import Classes, Detections, ImageBatch, LossTerms, Targets


class OneStageDetector(Detector):
    """Features, then a head on all levels.

    Args:
        features: pixels (B, 3, H, W) -> named levels.
        head: levels -> predictions, losses and detections.
        classes, preprocessor, recipe: as `Detector`.
    """

    def __init__(
        self, *, features: Extractor, head: DenseHead, classes: Classes, preprocessor: Preprocessor, recipe: Recipe
    ) -> None:
        super().__init__(classes=classes, preprocessor=preprocessor, recipe=recipe)
        self.features, self.head = features, head

    def losses(self, images: ImageBatch, targets: Sequence[Targets], *, generator: Randomness = None) -> LossTerms:
        """The head's terms; see `Detector.losses`."""
        return self.head.losses(self.dense_part(images.pixels), images, targets, generator=generator)

    def detect(self, images: ImageBatch) -> list[Detections]:
        """See `Detector.detect`."""
        return self.head.detect(self.run_dense(images.pixels), images)

    def dense_part(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """See `Detector.dense_part`: what the head says."""
        raw: tuple[Tensor, ...] = self.head(self.features(pixels))
        return raw

    @property
    def dense_modules(self) -> list[nn.Module]:
        """See `Detector.dense_modules`."""
        return [self.features, self.head]

    def backbone_parameters(self) -> list[nn.Parameter]:
        """See `Detector.backbone_parameters`."""
        return self.features.backbone_parameters()

    def class_rows(self) -> list[ClassRows]:
        """See `Detector.class_rows`."""
        return self.head.class_rows()

    def rewrite(self, tools: Rewriter) -> bool:
        """See `Detector.rewrite`."""
        self.head.rewrite(tools.fuse)
        return self.features.backbone.rewrite(tools.fold)
