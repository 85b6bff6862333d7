"""What a one-stage detector thought of one image: of every place of its levels, and on its way to the detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fpn.heads.dense_losses import flat
from fpn.heads.dense_selection import DenseCandidates, DenseMaps, clip_to_image
from fpn.heads.dense_towers import TowerHead
from fpn.heads.retinanet import RetinaNetHead
from fpn.ops.boxes import area, pairwise_iou
from fpn.structures import Detections, ImageBatch, Targets
from fpn.studies.diagnosis.pairing import own

# Sides of the objects that a place without anchors learns, in strides: FCOS' ranges begin at 4 strides to the farthest
# side and end at 8.
_SIDES = 11.0


@dataclass(frozen=True)
class DenseView:
    """One image of a batch; a place is an anchor, or a cell where there are none, N of all levels, finest first.

    Attributes:
        head: the detector's.
        maps: what it says of the batch.
        references: of each level (n, r): what boxes are relative to.
        images: the batch.
        index: which image.
    """

    head: TowerHead
    maps: DenseMaps
    references: Sequence[Tensor]
    images: ImageBatch
    index: int

    @cached_property
    def places(self) -> Tensor:
        """(N, r) what each place's box is relative to."""
        return torch.cat(list(self.references))

    @cached_property
    def levels(self) -> Tensor:
        """(N,) the number of each place's level among the head's."""
        counts = torch.tensor([len(each) for each in self.references], device=self.places.device)
        return torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)

    @cached_property
    def boxes(self) -> Tensor:
        """(N, 4) what each place is decoded to, clipped."""
        deltas = self._flat(self.maps.deltas, 4)
        return clip_to_image(self.head.decode(deltas, self.places), self.images, self.index)

    @cached_property
    def class_scores(self) -> Tensor:
        """(N, K) of classes alone."""
        return self._flat(self.maps.logits, self.head.num_classes).sigmoid()

    @cached_property
    def scores(self) -> Tensor:
        """(N, K) as detections have them."""
        match self.head.scoring:
            case "class":
                return self.class_scores
            case "root":
                return (self.class_scores * self._quality).sqrt()
            case "product":
                return self.class_scores * self._quality

    @cached_property
    def candidates(self) -> DenseCandidates:
        """What NMS chooses from."""
        return self.head.candidates(self.maps, self.references, self.images, self.index)

    @cached_property
    def given(self) -> DenseCandidates:
        """What the detector gives, best first."""
        return self.suppress(self.candidates)

    def suppress(self, found: DenseCandidates) -> DenseCandidates:
        """What the detector would give of these."""
        return self.head.suppress(found, self.images, self.index)

    @property
    def detections(self) -> Detections:
        """As the detector gives them."""
        return Detections(*self.given[:3])

    def own_of_class(self, truth_boxes: Tensor, truth_labels: Tensor, row: int) -> Tensor:
        """(N,) which places' boxes are for object `row` and no other one of its class."""
        rivals = (truth_labels == truth_labels[row]).nonzero().squeeze(1)
        return own(pairwise_iou(self.boxes, truth_boxes[rivals]))[:, (rivals == row).nonzero()[0, 0]]

    def fitting(self, box: Tensor, label: int) -> Tensor:
        """(N,) which places would learn an object, if it were alone in the image."""
        if isinstance(self.head, RetinaNetHead):
            return pairwise_iou(box[None], self.places)[0] >= self.head.config.negative_iou
        alone = Targets(box[None], torch.tensor([label], device=box.device))
        return self.head.assign(self.references, alone, self.images.sizes[self.index]).kind == 1

    def names_of(self, boxes: Tensor) -> tuple[str, ...]:
        """The names of the levels that boxes of this size belong to."""
        if len(boxes) == 0:
            return ()
        sides = torch.stack([self._side(number) for number in range(len(self.references))])
        distance = (area(boxes).clamp(min=1e-6).sqrt().log()[:, None] - sides.to(boxes).log()).abs()
        return tuple(self.head.levels[number].name for number in distance.argmin(dim=1).tolist())

    def _side(self, number: int) -> Tensor:
        """Side of an object that is well placed on a level."""
        grid = self.references[number]
        if grid.shape[1] == 4:
            return area(grid).sqrt().mean()
        return grid.new_tensor(_SIDES * self.head.levels[number].stride)

    @cached_property
    def _quality(self) -> Tensor:
        return self._flat(self.maps.quality, 1).sigmoid()

    def _flat(self, maps: Sequence[Tensor], size: int) -> Tensor:
        return flat([each[self.index : self.index + 1] for each in maps], size)[0]
