"""Several box heads in a row: each reads the boxes that the one before has made, and learns from better ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fpn.heads.box import BoxConfig, BoxHead, SampledRoIs
from fpn.heads.box_coder import CoderWeights
from fpn.heads.class_rows import ClassRows
from fpn.heads.sampling import Randomness, Sampler, per_image
from fpn.sections import LARGEST, Fraction, NotNegative, Section
from fpn.structures import Detections, Features, ImageBatch, LossTerms, Proposals, Targets


class CascadeConfig(Section):
    """Section `cascade`: what differs from stage to stage; the rest of each is section `box`.

    Raises:
        ConfigError: not as many entries of one setting as of another.
    """

    ious: tuple[Fraction, ...] = Field(
        default=(0.5, 0.6, 0.7),
        min_length=1,
        max_length=10,
        description="From which IoU on a RoI is an object's in each stage, and below which it is background.",
    )
    weights: tuple[CoderWeights, ...] = Field(
        default=((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)),
        description="Multipliers of (dx, dy, dw, dh) of each stage: 1 / std.",
    )
    loss_weights: tuple[NotNegative[float], ...] = Field(
        default=(1.0, 0.5, 0.25), description="Factor of each stage's losses."
    )
    average: Literal["probabilities", "logits"] = Field(
        default="probabilities", description="What of all stages is averaged to a score (MMDetection: logits)."
    )
    resampled: bool = Field(
        default=True,
        description="True: each stage draws a sample from the refined boxes and the ground truth; False: only the "
        "first one does, and all its boxes are matched anew (Detectron2).",
    )
    shared_gradient: Literal["whole", "divided"] = Field(
        default="whole",
        description="How much of each stage's gradient goes into the pyramid: all of it, or one part in as many as "
        "there are stages (Detectron2).",
    )
    mask_heads: Literal["one", "each_stage"] = Field(
        default="one",
        description="With masks: one mask head, which learns from the RoIs of the first stage (Detectron2), or one for "
        "each stage's, averaged (MMDetection).",
    )

    @model_validator(mode="after")
    def _same_length(self) -> CascadeConfig:
        counts = {"ious": len(self.ious), "weights": len(self.weights), "loss_weights": len(self.loss_weights)}
        if len(set(counts.values())) != 1:
            told = ", ".join(f"{count} {name}" for name, count in counts.items())
            raise ValueError(f"{told}: give each stage one of each")
        return self

    def stage(self, box: BoxConfig, number: int) -> BoxConfig:
        """Section `box` of a stage, counted from 0."""
        iou = self.ious[number]
        return box.changed(weights=self.weights[number], sampling={"positive_iou": iou, "negative_iou": iou})


class CascadeHead(nn.Module):
    """Box heads that refine the same RoIs one after the other.

    Each stage's boxes are clipped to the image before the next reads them. Scores are the mean of all stages', boxes
    the last one's.

    Submodules: `stages`.

    Args:
        stages: built from `CascadeConfig.stage`.
        config: what differs between them.

    Source: Cai & Vasconcelos 2018, arXiv:1712.00726.
    """

    def __init__(self, *, stages: Sequence[BoxHead], config: CascadeConfig) -> None:
        super().__init__()
        assert len(stages) == len(config.ious), (len(stages), len(config.ious))
        self.stages = nn.ModuleList(stages)
        self.config = config

    @property
    def heads(self) -> list[BoxHead]:
        """The stages, first to last."""
        return [stage for stage in self.stages if isinstance(stage, BoxHead)]

    def losses(
        self,
        features: Features,
        images: ImageBatch,
        proposals: Sequence[Proposals],
        targets: Sequence[Targets],
        *,
        generator: Randomness = None,
    ) -> LossTerms:
        """The terms of every stage, `classification_stage1` and so on; see `BoxHead.losses`."""
        drawn = self.sample(proposals, targets, generator=generator)
        return self.staged_losses(features, images, drawn, targets, generator=generator)[0]

    def sample(
        self, proposals: Sequence[Proposals], targets: Sequence[Targets], *, generator: Randomness = None
    ) -> list[SampledRoIs]:
        """Which RoIs of each image the first stage learns from."""
        return self.heads[0].sample(proposals, targets, generator=generator)

    def staged_losses(
        self,
        features: Features,
        images: ImageBatch,
        drawn: Sequence[SampledRoIs],
        targets: Sequence[Targets],
        *,
        generator: Randomness = None,
    ) -> tuple[LossTerms, list[Sequence[SampledRoIs]]]:
        """As `losses`, of RoIs that the first stage has sampled; and what each stage has learned from."""
        terms, sampled = LossTerms({}), [drawn]
        for number, head in enumerate(self.heads):
            pooled = head.pooler(features, images, [each.boxes for each in drawn])
            if self.config.shared_gradient == "divided" and pooled.requires_grad:
                pooled.register_hook(self._divide)  # type: ignore[no-untyped-call]
            logits, deltas = head.judge(pooled)
            found = head.loss_terms(logits, deltas, drawn)
            terms = terms + of_stage(found, number, self.config.loss_weights[number])
            if number + 1 < len(self.stages):
                drawn = self._next(number, drawn, logits.detach(), deltas.detach(), images, targets, generator)
                sampled.append(drawn)
        return terms, sampled

    @torch.no_grad()
    def detect(self, features: Features, images: ImageBatch, proposals: Sequence[Proposals]) -> list[Detections]:
        """Each image's detections, best first, clipped to the image, network pixels."""
        rois = [each.boxes for each in proposals]
        told: list[Tensor] = []
        for head in self.heads:
            logits, deltas = head(features, images, rois)
            told.append(logits.float())
            if head is not self.heads[-1]:
                rois = head.refine(rois, logits, deltas, images)
        return self.heads[-1].select(rois, self.averaged(told), deltas, images)

    def _divide(self, gradient: Tensor) -> Tensor:
        return gradient / len(self.stages)

    def averaged(self, logits: Sequence[Tensor]) -> Tensor:
        """(R, K+1) logits whose softmax are the scores."""
        if self.config.average == "logits":
            return torch.stack(list(logits)).mean(dim=0)
        return torch.stack([each.softmax(dim=1) for each in logits]).mean(dim=0).log()

    @torch.no_grad()
    def _next(
        self,
        number: int,
        drawn: Sequence[SampledRoIs],
        logits: Tensor,
        deltas: Tensor,
        images: ImageBatch,
        targets: Sequence[Targets],
        generator: Randomness,
    ) -> list[SampledRoIs]:
        """What the stage after `number` learns from: the RoIs that this one has refined."""
        refined = self.heads[number].refine([each.boxes for each in drawn], logits, deltas, images)
        head = self.heads[number + 1]
        if not self.config.resampled:
            kept = [boxes[(boxes[:, 2:] > boxes[:, :2]).all(dim=1)] for boxes in refined]
            whole = head.sampler.config.changed(count=LARGEST, positive_fraction=1.0)
            every = Sampler(config=whole, legacy_plus_one=head.coder.legacy_plus_one)
            sources = per_image(generator, len(targets))
            return [
                head.draw(boxes, truth, every, source)
                for boxes, truth, source in zip(kept, targets, sources, strict=True)
            ]
        # The ground truth that joined this stage's RoIs would come twice: the next one adds it again.
        again = [
            Proposals(boxes[~_among(each.boxes, truth)], boxes.new_zeros(int((~_among(each.boxes, truth)).sum())))
            for boxes, each, truth in zip(refined, drawn, targets, strict=True)
        ]
        return head.sample(again, targets, generator=generator)

    def class_rows(self) -> list[ClassRows]:
        """The layers of all stages that have rows by class."""
        return [rows for head in self.heads for rows in head.class_rows()]

    def rewrite(self) -> None:
        """Take the faster form, which only detects."""
        for head in self.heads:
            head.rewrite()


def _among(boxes: Tensor, truth: Targets) -> Tensor:
    """(n,) which boxes are an object's own, to the bit."""
    return (boxes[:, None] == truth.boxes[None]).all(dim=2).any(dim=1)


def of_stage(terms: LossTerms, number: int, weight: float) -> LossTerms:
    """The same under names of the stage, counted from 1, and weighted."""
    name = f"_stage{number + 1}"
    return LossTerms(
        {f"{key}{name}": weight * value for key, value in terms.terms.items()},
        {f"{key}{name}": value for key, value in terms.counts.items()},
        {f"{key}{name}": value for key, value in terms.samples.items()},
    )


def box_heads(box: BoxHead | CascadeHead) -> list[BoxHead]:
    """The one, or those of a cascade, first to last."""
    return [box] if isinstance(box, BoxHead) else box.heads
