"""Proposals of segments: class-free masks, ranked (paper, section 6)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fpn.detectors.prediction import TaskName
from fpn.detectors.single_head import SingleHeadDetector
from fpn.heads.class_rows import ClassRows
from fpn.heads.sampling import Randomness
from fpn.heads.segments import SegmentHead
from fpn.structures import Detections, ImageBatch, LossTerms, Targets


class SegmentProposer(SingleHeadDetector[SegmentHead]):
    """Features, then windows that slide over all levels.

    Its arguments are those of `SingleHeadDetector`.
    """

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """See `Detector.tasks`."""
        return ("boxes", "masks", "segments")

    def losses(self, images: ImageBatch, targets: Sequence[Targets], *, generator: Randomness = None) -> LossTerms:
        """Terms `objectness` and `mask`; see `Detector.losses`."""
        return self.head.losses(self.features(images.pixels), images, targets, generator=generator)

    def detect(self, images: ImageBatch) -> list[Detections]:
        """See `Detector.detect`."""
        if self.compiled_dense is None:
            return self.head.detect(self.features(images.pixels), images)
        found, levels = self.run_dense(images.pixels), self.features.levels
        features = {level.name: maps for level, maps in zip(levels, found, strict=False)}
        return self.head.choose(features, found[len(levels) :], images)

    def dense_part(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """See `Detector.dense_part`: the maps of all levels, then the scores of all windows."""
        features = self.features(pixels)
        return (*(features[level.name] for level in self.features.levels), *self.head(features))

    def class_rows(self) -> list[ClassRows]:
        """See `Detector.class_rows`: it knows no classes."""
        return []
