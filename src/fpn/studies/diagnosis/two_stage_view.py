"""What a two-stage detector thought on its way to the detections of a batch, and of one image of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from fpn.detectors.two_stage import TwoStageDetector
from fpn.heads.box import BoxCandidates, BoxHead
from fpn.heads.cascade import CascadeHead, box_heads
from fpn.heads.rpn import DecodedAnchors, ProposalCandidates, RawProposals
from fpn.ops.boxes import pairwise_iou
from fpn.structures import Detections, Features, ImageBatch, Proposals
from fpn.studies.diagnosis.pairing import own


@dataclass(frozen=True)
class BatchView:
    """A batch, up to what the box head says of all proposals."""

    detector: TwoStageDetector
    images: ImageBatch
    features: Features
    raw: RawProposals

    @cached_property
    def proposals(self) -> list[Proposals]:
        """As the detector has them."""
        return self.detector.rpn.propose(self.raw, self.images)

    @cached_property
    def candidates(self) -> ProposalCandidates:
        """What its RPN's NMS chooses from."""
        return self.detector.rpn.candidates(self.raw, self.images)

    @cached_property
    def anchors(self) -> DecodedAnchors:
        """What its top-k chooses from."""
        return self.detector.rpn.decode_all(self.raw, self.images)

    @cached_property
    def views(self) -> list[ImageView]:
        """Image by image."""
        rois, logits, deltas, earlier = self.read([each.boxes for each in self.proposals])
        counts = [len(boxes) for boxes in rois]
        said = zip(rois, torch.split(logits, counts), torch.split(deltas, counts), strict=True)
        before = [tuple(stage[index] for stage in earlier) for index in range(len(rois))]
        return [ImageView(self, index, *each, before[index]) for index, each in enumerate(said)]

    def read(
        self, rois: Sequence[Tensor], *, start: int = 0
    ) -> tuple[Sequence[Tensor], Tensor, Tensor, list[Sequence[Tensor]]]:
        """What the box heads from number `start` on say of RoIs of all images, one after the other in a cascade.

        Returns:
            The RoIs that the last head reads, its logits (of a cascade the average) and deltas, and the RoIs that each
            one before it reads.
        """
        box, earlier, told = self.detector.roi_heads.box, [], []
        heads = box_heads(box)[start:]
        for head in heads:
            logits, deltas = head(self.features, self.images, rois)
            told.append(logits.float())
            if head is not heads[-1]:
                earlier.append(rois)
                rois = head.refine(rois, logits, deltas, self.images)
        return rois, average(box, told), deltas.float(), earlier


@dataclass(frozen=True)
class ImageView:
    """One image of a batch.

    Attributes:
        batch: all of it.
        index: which image.
        rois: (N, 4) proposals.
        logits: (N, K+1) what the head says of each.
        deltas: (N, 4K or 4).
        earlier: of a cascade, the RoIs that each stage before the last one reads, in the same order.
    """

    batch: BatchView
    index: int
    rois: Tensor
    logits: Tensor
    deltas: Tensor
    earlier: tuple[Tensor, ...] = ()

    @property
    def head(self) -> BoxHead:
        """The box head; of a cascade the last one."""
        return box_heads(self.batch.detector.roi_heads.box)[-1]

    @cached_property
    def probabilities(self) -> Tensor:
        """(N, K+1), background last."""
        return self.logits.softmax(dim=1)

    @cached_property
    def candidates(self) -> BoxCandidates:
        """What the last NMS chooses from."""
        return self.head.candidates(
            self.rois, self.probabilities, self._by_class(self.deltas), self.batch.images, self.index
        )

    @cached_property
    def suppressed(self) -> tuple[Tensor, Tensor]:
        """Which candidates the detector gives, best first, and their scores, which Soft-NMS may have lowered."""
        return self.head.suppress(self.candidates, self.batch.images, self.index)

    @property
    def kept(self) -> Tensor:
        """Which candidates the detector gives, best first."""
        return self.suppressed[0]

    @cached_property
    def detections(self) -> Detections:
        """As the detector gives them."""
        found = self.candidates
        return Detections(found.boxes[self.kept], self.suppressed[1], found.labels[self.kept])

    def boxes_of(self, rois: Tensor, deltas: Tensor, label: int) -> Tensor:
        """(n, 4) RoIs refined to the boxes of one class."""
        chosen = self._by_class(deltas)[:, 0 if self.head.config.class_agnostic else label]
        return self.head.boxes_of(rois, chosen, self.batch.images, self.index)

    def judge(self, rois: Tensor, level: int | None = None) -> tuple[Tensor, Tensor]:
        """Logits and deltas of other RoIs of this image, read from a level by its place among the head's; None: by
        equation 1."""
        box, told = self.batch.detector.roi_heads.box, []
        for head in box_heads(box):
            pooler = head.pooler
            if level is not None:
                pooler = replace(pooler, levels=pooler.levels[level : level + 1])
            logits, deltas = head.judge(pooler(self.batch.features, self.batch.images, self._alone(rois)))
            told.append(logits.float())
        return average(box, told), deltas.float()

    def pass_on(self, rois: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Other RoIs of this image through the box heads from number `start` on: the last RoIs, logits, deltas."""
        last, logits, deltas, _ = self.batch.read(self._alone(rois), start=start)
        return last[self.index], logits, deltas

    def select(self, rois: Tensor, logits: Tensor, deltas: Tensor) -> Detections:
        """What the detector would give of these."""
        return self.head.select(self._alone(rois), logits, deltas, self.batch.images)[self.index]

    def set_box(self, deltas: Tensor, rows: Tensor, label: int, wanted: Tensor) -> None:
        """Change `deltas` in place so that these RoIs' boxes of that class are `wanted` (4,)."""
        by_class = self._by_class(deltas)
        place = 0 if self.head.config.class_agnostic else label
        by_class[rows, place] = self.head.coder.encode(wanted.expand(len(rows), 4), self.rois[rows])

    def own_of_class(self, boxes: Tensor, truth_boxes: Tensor, truth_labels: Tensor, row: int) -> Tensor:
        """(n,) which boxes of the class of object `row` are for it."""
        rivals = (truth_labels == truth_labels[row]).nonzero().squeeze(1)
        return own(pairwise_iou(boxes, truth_boxes[rivals]))[:, (rivals == row).nonzero()[0, 0]]

    def _by_class(self, deltas: Tensor) -> Tensor:
        return deltas.view(len(deltas), deltas.shape[1] // 4, 4)

    def _alone(self, rois: Tensor) -> Sequence[Tensor]:
        """RoIs of this image, none of the others: some conventions depend on the whole batch."""
        nothing = rois.new_zeros(0, 4)
        return [rois if index == self.index else nothing for index in range(len(self.batch.images))]


def average(box: BoxHead | CascadeHead, told: Sequence[Tensor]) -> Tensor:
    """(R, K+1) the logits that scores are made of, from those of each head."""
    return told[0] if isinstance(box, BoxHead) else box.averaged(told)
