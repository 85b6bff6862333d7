"""Which references learn from which object: coding of boxes, matching and balanced sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from fpn.ops import boxes as box_ops
from fpn.ops.matching import match, sample
from fpn.sections import Fraction, Positive, Section
from fpn.structures import Targets

# One source for all images in turn, one an image, or torch's own.
Randomness: TypeAlias = torch.Generator | Sequence[torch.Generator] | None


class Sampled(NamedTuple):
    """The references of one image that a loss is taken on.

    Attributes:
        positive: (P,) indices of references that shall become an object.
        negative: (Q,) indices of references that shall become background.
        gt_index: (P,) which object each positive one shall become.
    """

    positive: Tensor
    negative: Tensor
    gt_index: Tensor


class SamplingConfig(Section):
    """Section `sampling`: which references learn from which object, by IoU, and how many of them."""

    positive_iou: Fraction = Field(default=0.5, description="A reference with at least this IoU is positive.")
    negative_iou: Fraction = Field(
        default=0.5, description="A reference with less is negative; between the two it takes no part."
    )
    keep_best: bool = Field(
        default=False, description="True: each object's best references are positive, however low their IoU ..."
    )
    best_iou: Fraction = Field(default=0.0, description="... if it is at least this (MMDetection: 0.3).")
    best_owns: bool = Field(
        default=False,
        description="True: such a reference becomes that object's, even where it overlaps another one more, and of "
        "several such objects the last one's (MMDetection).",
    )
    count: Positive[int] = Field(default=512, description="References drawn an image.")
    positive_fraction: Fraction = Field(default=0.25, description="At most this part of them positive.")

    @model_validator(mode="after")
    def _ordered(self) -> SamplingConfig:
        if self.negative_iou > self.positive_iou:
            raise ValueError(f"negative_iou {self.negative_iou} is above positive_iou {self.positive_iou}")
        return self


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Matches references to objects and draws a balanced sample.

    Attributes:
        config: the rules.
        legacy_plus_one: IoU counts width as x2 - x1 + 1.
    """

    config: SamplingConfig
    legacy_plus_one: bool = False

    def draw(
        self,
        references: Float[Tensor, "n 4"],
        targets: Targets,
        *,
        usable: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Sampled:
        """Match one image's references to its objects and draw a sample.

        Args:
            references: xyxy, network pixels.
            targets: the image's objects; ignored ones are neither object nor background.
            usable: (n,) bool, references that may take part; None: all.
            generator: source of randomness; None: torch's own.
        """
        if usable is not None:
            index = usable.nonzero().squeeze(1)
            drawn = self.draw(references[index], targets, generator=generator)
            return Sampled(index[drawn.positive], index[drawn.negative], drawn.gt_index)
        gt_index, kind = self._match(references, targets)
        positive, negative = sample(
            kind, count=self.config.count, positive_fraction=self.config.positive_fraction, generator=generator
        )
        return Sampled(positive, negative, gt_index[positive])

    def _match(self, references: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Each reference's object (n,) and kind (n,): 1 positive, 0 negative, -1 neither."""
        found = match(
            references,
            targets.boxes,
            targets.ignore,
            positive_iou=self.config.positive_iou,
            negative_iou=self.config.negative_iou,
            keep_best=self.config.keep_best,
            best_owns=self.config.best_owns,
            best_iou=self.config.best_iou,
            legacy_plus_one=self.legacy_plus_one,
        )
        if self.config.best_iou <= 0 or len(targets) == 0:
            return found.gt_index, found.kind
        partners = targets.boxes[found.gt_index]
        overlap = box_ops.paired_iou(references, partners, legacy_plus_one=self.legacy_plus_one)
        weak = (found.kind == 1) & (overlap < self.config.best_iou)
        return found.gt_index, torch.where(
            weak, -(overlap >= self.config.negative_iou).to(found.kind.dtype), found.kind
        )


def per_image(generator: Randomness, num_images: int) -> Sequence[torch.Generator | None]:
    """Each image's source. With its own, what an image draws does not depend on its neighbours in the batch."""
    if generator is None or isinstance(generator, torch.Generator):
        return [generator] * num_images
    return generator
