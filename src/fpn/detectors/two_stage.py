"""Faster R-CNN on a feature pyramid (paper, sections 4.1 and 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from fpn.detectors.detector import Detector
from fpn.detectors.prediction import TaskName
from fpn.detectors.recipe import Recipe
from fpn.features.extractor import Extractor
from fpn.heads.box import BoxHead
from fpn.heads.rpn import RPN, RawProposals
from fpn.heads.sampling import Randomness
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.structures import Classes, Detections, Features, ImageBatch, LossTerms, Proposals, Targets


class FasterRCNN(Detector):
    """Features, then proposals, then boxes: the order of the paper.

    Args:
        features: pixels (B, 3, H, W) -> named levels.
        rpn: the region proposal network.
        box: the head that classifies and refines proposals.
        classes, preprocessor, recipe: as `Detector`.
    """

    def __init__(
        self,
        *,
        features: Extractor,
        rpn: RPN,
        box: BoxHead,
        classes: Classes,
        preprocessor: Preprocessor,
        recipe: Recipe,
    ) -> None:
        super().__init__(classes=classes, preprocessor=preprocessor, recipe=recipe)
        self.features = features
        self.rpn = rpn
        self.box = box
        # The compiled form of features and RPN together, if `optimize` made one.
        self.tensor_part: Callable[[Tensor], tuple[Features, list[Tensor], list[Tensor]]] | None = None

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """See `Detector.tasks`."""
        return ("boxes", "proposals")

    def losses(self, images: ImageBatch, targets: Sequence[Targets], *, generator: Randomness = None) -> LossTerms:
        """Terms `objectness`, `rpn_box`, `classification` and `box`; see `Detector.losses`."""
        features = self.features(images.pixels)
        raw = self.rpn(features)
        rpn_terms = self.rpn.losses(raw, images, targets, generator=generator)
        proposals = self.rpn.propose(raw, images, training=True)
        return rpn_terms + self.box.losses(features, images, proposals, targets, generator=generator)

    def detect(self, images: ImageBatch) -> list[Detections]:
        """See `Detector.detect`."""
        features, raw = self._look(images.pixels)
        return self.box.detect(features, images, self.rpn.propose(raw, images))

    def proposals(self, images: ImageBatch) -> list[Proposals]:
        """See `Detector.proposals`."""
        return self.rpn.propose(self._look(images.pixels)[1], images)

    def backbone_parameters(self) -> list[nn.Parameter]:
        """See `Detector.backbone_parameters`."""
        return self.features.backbone_parameters()

    def _look(self, pixels: Tensor) -> tuple[Features, RawProposals]:
        """Pixels (B, 3, H, W) to maps and raw proposals."""
        tensor_part = self.tensor_part  # once: another thread may take it away
        if tensor_part is None:
            features = self.features(pixels)
            return features, self.rpn(features)
        features, objectness, deltas = tensor_part(pixels)
        return features, RawProposals(objectness, deltas, objectness)
