"""Masks of a cascade that has a mask head a stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fpn.heads.box import SampledRoIs
from fpn.heads.cascade import of_stage
from fpn.heads.class_rows import ClassRows
from fpn.heads.mask import Fuse, MaskHead
from fpn.structures import Detections, Features, ImageBatch, LossTerms, Targets


class MaskStages(nn.Module):
    """Mask heads that each learn from the RoIs of one stage, and are averaged where they detect.

    Submodules: `stages`.

    Args:
        stages: one mask head a stage of the box heads, with equal poolers.
        loss_weights: factor of each stage's loss.

    Source: Cai & Vasconcelos 2019, arXiv:1906.09756, where it is the last of three ways to add masks.
    """

    def __init__(self, *, stages: Sequence[MaskHead], loss_weights: Sequence[float]) -> None:
        super().__init__()
        assert len(stages) == len(loss_weights), (len(stages), len(loss_weights))
        self.stages = nn.ModuleList(stages)
        self.loss_weights = tuple(loss_weights)

    @property
    def heads(self) -> list[MaskHead]:
        """The stages, first to last."""
        return [stage for stage in self.stages if isinstance(stage, MaskHead)]

    def losses(
        self,
        features: Features,
        images: ImageBatch,
        sampled: Sequence[Sequence[SampledRoIs]],
        targets: Sequence[Targets],
    ) -> LossTerms:
        """The terms of every stage, `mask_stage1` and so on; see `MaskHead.losses`.

        Args:
            features, images, targets: as `MaskHead.losses` takes them.
            sampled: for each stage the samples that its box head has learned from.
        """
        terms = LossTerms({})
        for number, (head, drawn) in enumerate(zip(self.heads, sampled, strict=True)):
            found = head.losses(features, images, drawn, targets)
            terms = terms + of_stage(found, number, self.loss_weights[number])
        return terms

    @torch.no_grad()
    def complete(self, features: Features, images: ImageBatch, found: Sequence[Detections]) -> list[Detections]:
        """The same detections with `mask_probabilities`: the mean of all stages', on the same boxes."""
        pooled = self.heads[0].pooler(features, images, [each.boxes for each in found])
        probabilities = self._averaged(pooled, torch.cat([each.labels for each in found]))
        masks = torch.split(probabilities, [len(each) for each in found])
        return [replace(each, mask_probabilities=mask) for each, mask in zip(found, masks, strict=True)]

    def _averaged(self, pooled: Float[Tensor, "r c t t"], labels: Int[Tensor, " r"]) -> Float[Tensor, "r s s"]:
        return torch.stack([head.probabilities(pooled, labels) for head in self.heads]).mean(dim=0)

    def class_rows(self) -> list[ClassRows]:
        """The layers of all stages that have rows by class."""
        return [rows for head in self.heads for rows in head.class_rows()]

    def rewrite(self, fuse: Fuse) -> None:
        """See `MaskHead.rewrite`."""
        for head in self.heads:
            head.rewrite(fuse)
