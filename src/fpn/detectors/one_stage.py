"""A detector without a second stage: every cell of every level predicts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fpn.detectors.single_head import SingleHeadDetector
from fpn.heads.class_rows import ClassRows
from fpn.heads.dense import DenseHead
from fpn.heads.sampling import Randomness
from fpn.structures import Detections, ImageBatch, LossTerms, Targets


class OneStageDetector(SingleHeadDetector[DenseHead]):
    """Features, then a head on all levels.

    Its arguments are those of `SingleHeadDetector`.
    """

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

    def class_rows(self) -> list[ClassRows]:
        """See `Detector.class_rows`."""
        return self.head.class_rows()
