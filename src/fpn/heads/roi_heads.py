"""The second stage: what is made of proposals, by heads that share them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from fpn.errors import ConfigError
from fpn.heads.box import BoxHead, SampledRoIs
from fpn.heads.cascade import CascadeHead
from fpn.heads.cascade_masks import MaskStages
from fpn.heads.class_rows import ClassRows
from fpn.heads.keypoint import KeypointHead
from fpn.heads.mask import Fuse, MaskHead
from fpn.heads.sampling import Randomness
from fpn.structures import Detections, Features, ImageBatch, LossTerms, Proposals, Targets


class RoIHeads(nn.Module):
    """Proposals to detections, head after head: what later ones add, they add to survivors only.

    Submodules: `box`, and `mask` and `keypoint` where the detector has them.

    Args:
        box: classifies and refines proposals, in one stage or several.
        mask: says which pixels of a box are its object's, in a cascade perhaps a head a stage; None: no masks.
        keypoint: says where in a box the keypoints are; None: no keypoints.
    """

    def __init__(
        self,
        *,
        box: BoxHead | CascadeHead,
        mask: MaskHead | MaskStages | None = None,
        keypoint: KeypointHead | None = None,
    ) -> None:
        super().__init__()
        self.box, self.mask, self.keypoint = box, mask, keypoint

    @property
    def completing(self) -> list[MaskHead | MaskStages | KeypointHead]:
        """The heads that add to what the box head found."""
        return [head for head in (self.mask, self.keypoint) if head is not None]

    def losses(
        self,
        features: Features,
        images: ImageBatch,
        proposals: Sequence[Proposals],
        targets: Sequence[Targets],
        *,
        generator: Randomness = None,
    ) -> LossTerms:
        """The terms of all heads on the same samples; see `BoxHead.losses`."""
        drawn = self.box.sample(proposals, targets, generator=generator)
        sampled: list[Sequence[SampledRoIs]] = [drawn]
        if isinstance(self.box, BoxHead):
            terms = self.box.losses_of(features, images, drawn)
        else:
            terms, sampled = self.box.staged_losses(features, images, drawn, targets, generator=generator)
        for head in self.completing:
            if isinstance(head, MaskStages):
                terms = terms + head.losses(features, images, sampled, targets)
            else:
                terms = terms + head.losses(features, images, drawn, targets)
        return terms

    def detect(self, features: Features, images: ImageBatch, proposals: Sequence[Proposals]) -> list[Detections]:
        """Each image's detections, best first, clipped to the image, network pixels."""
        found = self.box.detect(features, images, proposals)
        for head in self.completing:
            found = head.complete(features, images, found)
        return found

    def class_rows(self) -> list[ClassRows]:
        """The layers of all heads that have rows by class."""
        return [*self.box.class_rows(), *([] if self.mask is None else self.mask.class_rows())]

    def rewrite(self, fuse: Fuse) -> None:
        """Take the faster form, which only detects; `fuse` makes one of a convolution and its activation."""
        self.box.rewrite()
        for head in self.completing:
            head.rewrite(fuse)


def only_box_head(heads: RoIHeads) -> BoxHead:
    """The one box head of a detector that has no cascade.

    Raises:
        ConfigError: it has one.
    """
    if isinstance(heads.box, BoxHead):
        return heads.box
    raise ConfigError(f"a cascade of {len(heads.box.stages)} box heads is more than can be looked into here")
