"""Two stages on a feature pyramid: proposals, then what is made of each (paper, sections 4.1 and 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fpn.detectors.detector import Detector, Rewriter
from fpn.detectors.prediction import TaskName
from fpn.detectors.recipe import Recipe
from fpn.features.extractor import Extractor
from fpn.heads.class_rows import ClassRows
from fpn.heads.roi_heads import RoIHeads
from fpn.heads.rpn import RPN, RawProposals
from fpn.heads.sampling import Randomness
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.structures import Classes, Detections, Features, ImageBatch, LossTerms, Proposals, Targets


class TwoStageDetector(Detector):
    """Features, then proposals, then heads on the proposals: the order of the paper.

    Args:
        features: pixels (B, 3, H, W) -> named levels.
        rpn: the region proposal network.
        roi_heads: what is made of proposals.
        classes, preprocessor, recipe: as `Detector`.
    """

    def __init__(
        self,
        *,
        features: Extractor,
        rpn: RPN,
        roi_heads: RoIHeads,
        classes: Classes,
        preprocessor: Preprocessor,
        recipe: Recipe,
    ) -> None:
        super().__init__(classes=classes, preprocessor=preprocessor, recipe=recipe)
        self.features = features
        self.rpn = rpn
        self.roi_heads = roi_heads

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """See `Detector.tasks`."""
        masks: tuple[TaskName, ...] = () if self.roi_heads.mask is None else ("masks",)
        keypoints: tuple[TaskName, ...] = () if self.roi_heads.keypoint is None else ("keypoints",)
        return ("boxes", *masks, *keypoints, "proposals")

    def losses(self, images: ImageBatch, targets: Sequence[Targets], *, generator: Randomness = None) -> LossTerms:
        """Terms `objectness`, `rpn_box`, `classification`, `box`, and those of further heads; see `Detector.losses`."""
        features = self.features(images.pixels)
        raw = self.rpn(features)
        rpn_terms = self.rpn.losses(raw, images, targets, generator=generator)
        proposals = self.rpn.propose(raw, images, training=True)
        return rpn_terms + self.roi_heads.losses(features, images, proposals, targets, generator=generator)

    def detect(self, images: ImageBatch) -> list[Detections]:
        """See `Detector.detect`."""
        features, raw = self.look(images.pixels)
        return self.roi_heads.detect(features, images, self.rpn.propose(raw, images))

    def proposals(self, images: ImageBatch) -> list[Proposals]:
        """B images' class-free candidate boxes in network pixels, best first."""
        return self.rpn.propose(self.look(images.pixels)[1], images)

    def dense_part(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """See `Detector.dense_part`: the maps of all levels, then objectness and deltas of those the RPN reads."""
        features: Features = self.features(pixels)
        raw: RawProposals = self.rpn(features)
        return (*(features[level.name] for level in self.features.levels), *raw.objectness, *raw.deltas)

    @property
    def dense_modules(self) -> list[nn.Module]:
        """See `Detector.dense_modules`."""
        return [self.features, self.rpn]

    def backbone_parameters(self) -> list[nn.Parameter]:
        """See `Detector.backbone_parameters`."""
        return self.features.backbone_parameters()

    def class_rows(self) -> list[ClassRows]:
        """See `Detector.class_rows`."""
        return self.roi_heads.class_rows()

    def rewrite(self, tools: Rewriter) -> bool:
        """See `Detector.rewrite`."""
        self.rpn.rewrite(tools.fuse)
        self.roi_heads.rewrite(tools.fuse)
        return self.features.backbone.rewrite(tools.fold)

    def look(self, pixels: Tensor) -> tuple[Features, RawProposals]:
        """Pixels (B, 3, H, W) to maps and raw proposals."""
        found = self.run_dense(pixels)
        levels, read = len(self.features.levels), len(self.rpn.levels)
        names = (level.name for level in self.features.levels)
        features = dict(zip(names, found[:levels], strict=True))
        objectness, deltas = list(found[levels : levels + read]), list(found[levels + read :])
        return features, RawProposals(objectness, deltas, objectness)
