"""What detectors have in common that are features and one head on all levels."""

from __future__ import annotations

from typing import Generic, TypeVar

from torch import nn

from fpn.detectors.detector import Detector, Rewriter
from fpn.detectors.recipe import Recipe
from fpn.features.extractor import Extractor
from fpn.heads.dense import DenseHead
from fpn.heads.segments import SegmentHead
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.structures import Classes

H = TypeVar("H", bound=DenseHead | SegmentHead)


class SingleHeadDetector(Detector, Generic[H]):
    """Features, then a head.

    Args:
        features: pixels (B, 3, H, W) -> named levels.
        head: levels -> predictions, losses and detections.
        classes, preprocessor, recipe: as `Detector`.
    """

    head: H

    def __init__(
        self, *, features: Extractor, head: H, classes: Classes, preprocessor: Preprocessor, recipe: Recipe
    ) -> None:
        super().__init__(classes=classes, preprocessor=preprocessor, recipe=recipe)
        self.features, self.head = features, head

    @property
    def dense_modules(self) -> list[nn.Module]:
        """See `Detector.dense_modules`."""
        return [self.features, self.head]

    def backbone_parameters(self) -> list[nn.Parameter]:
        """See `Detector.backbone_parameters`."""
        return self.features.backbone_parameters()

    def rewrite(self, tools: Rewriter) -> bool:
        """See `Detector.rewrite`."""
        self.head.rewrite(tools.fuse)
        return self.features.backbone.rewrite(tools.fold)
