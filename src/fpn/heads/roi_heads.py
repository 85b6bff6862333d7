"""The second stage: what is made of proposals, by heads that share them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from fpn.heads.box import BoxHead
from fpn.heads.class_rows import ClassRows
from fpn.heads.sampling import Randomness
from fpn.structures import Detections, Features, ImageBatch, LossTerms, Proposals, Targets


class RoIHeads(nn.Module):
    """Proposals to detections, head after head: what later ones add, they add to survivors only.

    Submodules: `box`.

    Args:
        box: classifies and refines proposals.
    """

    def __init__(self, *, box: BoxHead) -> None:
        super().__init__()
        self.box = box

    def losses(
        self,
        features: Features,
        images: ImageBatch,
        proposals: Sequence[Proposals],
        targets: Sequence[Targets],
        *,
        generator: Randomness = None,
    ) -> LossTerms:
        """The terms of all heads; see `BoxHead.losses`."""
        return self.box.losses(features, images, proposals, targets, generator=generator)

    def detect(self, features: Features, images: ImageBatch, proposals: Sequence[Proposals]) -> list[Detections]:
        """Each image's detections, best first, clipped to the image, network pixels."""
        return self.box.detect(features, images, proposals)

    def class_rows(self) -> list[ClassRows]:
        """The layers of all heads that have rows by class."""
        return self.box.class_rows()

    def rewrite(self) -> None:
        """Take the faster form, which only detects."""
        self.box.rewrite()
