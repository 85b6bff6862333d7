"""Which references learn from which object: coding of boxes, matching and balanced sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from fpn.ops import boxes as box_ops
from fpn.ops.assignment import match, sample
from fpn.ops.box_coding import decode, encode
from fpn.structures import Targets

# One source for all pictures in turn, one a picture, or torch's own.
Randomness: TypeAlias = torch.Generator | Sequence[torch.Generator] | None


@dataclass(frozen=True, kw_only=True)
class BoxCoding:
    """How a box is written relative to a reference (an anchor or a proposal).

    Attributes:
        weights: multipliers of (dx, dy, dw, dh).
        clamp: upper limit of dw and dh before the exponential; None: no limit.
        clamp_both: minus `clamp` is their lower limit, too.
        legacy_plus_one: width is x2 - x1 + 1.
        inclusive_corners: x2 and y2 name the last pixel, though width is x2 - x1.
    """

    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    clamp: float | None = math.log(1000 / 16)
    clamp_both: bool = False
    legacy_plus_one: bool = False
    inclusive_corners: bool = False

    def encode(self, boxes: Float[Tensor, "n 4"], references: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Deltas that lead from `references` to `boxes`."""
        return encode(boxes, references, weights=self.weights, legacy_plus_one=self.legacy_plus_one)

    def decode(self, deltas: Float[Tensor, "... 4"], references: Float[Tensor, "... 4"]) -> Float[Tensor, "... 4"]:
        """Boxes that `deltas` lead to from `references`."""
        if self.clamp_both and self.clamp is not None:
            lower = [-math.inf, -math.inf, -self.clamp * self.weights[2], -self.clamp * self.weights[3]]
            deltas = torch.maximum(deltas, deltas.new_tensor(lower))
        return decode(deltas, references, weights=self.weights, clamp=self.clamp, legacy_plus_one=self.legacy_plus_one)

    def clip(self, boxes: Float[Tensor, "... 4"], height: Tensor, width: Tensor) -> Float[Tensor, "... 4"]:
        """Boxes cut off at the rim of a picture of `height` x `width` pixels."""
        return box_ops.clip(boxes, height, width, legacy_plus_one=self.legacy_plus_one or self.inclusive_corners)


class Sampled(NamedTuple):
    """The references of one picture that a loss is taken on.

    Attributes:
        positive: (P,) indices of references that shall become an object.
        negative: (Q,) indices of references that shall become background.
        gt_index: (P,) which object each positive one shall become.
    """

    positive: Tensor
    negative: Tensor
    gt_index: Tensor


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Rules for matching references to objects by IoU, and for drawing a balanced sample.

    Attributes:
        positive_iou: a reference with at least this IoU is positive.
        negative_iou: a reference with less is negative; between the two it takes no part.
        keep_best: each object's best references are positive, however low their IoU.
        best_iou: ... if it is at least this.
        count: references drawn a picture.
        positive_fraction: at most this part of them positive.
        legacy_plus_one: IoU counts width as x2 - x1 + 1.
    """

    positive_iou: float
    negative_iou: float
    keep_best: bool
    count: int
    positive_fraction: float
    best_iou: float = 0.0
    legacy_plus_one: bool = False

    def draw(
        self,
        references: Float[Tensor, "n 4"],
        targets: Targets,
        *,
        usable: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Sampled:
        """Match one picture's references to its objects and draw a sample.

        Args:
            references: xyxy, network pixels.
            targets: the picture's objects; ignored ones are neither object nor background.
            usable: (n,) bool, references that may take part; None: all.
            generator: source of randomness; None: torch's own.
        """
        if usable is not None:
            index = usable.nonzero().squeeze(1)
            drawn = self.draw(references[index], targets, generator=generator)
            return Sampled(index[drawn.positive], index[drawn.negative], drawn.gt_index)
        gt_index, kind = self._match(references, targets)
        positive, negative = sample(
            kind, count=self.count, positive_fraction=self.positive_fraction, generator=generator
        )
        return Sampled(positive, negative, gt_index[positive])

    def _match(self, references: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Each reference's object (n,) and kind (n,): 1 positive, 0 negative, -1 neither."""
        found = match(
            references,
            targets.boxes,
            targets.ignore,
            positive_iou=self.positive_iou,
            negative_iou=self.negative_iou,
            keep_best=self.keep_best,
            legacy_plus_one=self.legacy_plus_one,
        )
        if self.best_iou <= 0 or len(targets) == 0:
            return found.gt_index, found.kind
        overlap = box_ops.paired_iou(references, targets.boxes[found.gt_index])
        weak = (found.kind == 1) & (overlap < self.best_iou)
        return found.gt_index, torch.where(weak, -(overlap >= self.negative_iou).to(found.kind.dtype), found.kind)


def per_picture(generator: Randomness, num_pictures: int) -> Sequence[torch.Generator | None]:
    """Each picture's source. With its own, what a picture draws does not depend on its neighbours in the batch."""
    if generator is None or isinstance(generator, torch.Generator):
        return [generator] * num_pictures
    return generator
