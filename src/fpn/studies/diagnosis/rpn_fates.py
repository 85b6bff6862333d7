"""Where the region proposal network lost an object of which no proposal is left.

An anchor is *the object's* if it is decoded to a box that reaches the object (IoU 0.5) and overlaps no other one
further. The last step that one of them reached is where the object was lost.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from fpn.ops.boxes import paired_iou, pairwise_iou
from fpn.studies.diagnosis.fates import Fate, Repair, TraceableObjects
from fpn.studies.diagnosis.pairing import best_overlap, own_pairs
from fpn.studies.diagnosis.two_stage_view import ImageView

# The network itself calls an anchor an object from here on.
_SURE = 0.5


class ProposalFates:
    """Of the objects of one image."""

    def __init__(self, view: ImageView, objects: TraceableObjects) -> None:
        self.view, self.objects, self.rpn = view, objects, view.batch.detector.rpn
        every, passed = view.batch.anchors, view.batch.candidates
        self.anchors, self.parts = every.anchors, every.parts
        self.logits, self.boxes = every.scores[view.index], every.boxes[view.index]
        self.passed_boxes, self.passed_scores = passed.boxes[view.index], passed.scores[view.index]
        self.passed_parts = passed.parts
        # The place of each anchor among those that top-k let through; -1: it did not.
        self.place = torch.full((len(self.anchors),), -1, dtype=torch.int64, device=self.anchors.device)
        self.place[passed.anchors[view.index]] = torch.arange(len(passed.parts), device=self.anchors.device)

    @cached_property
    def _fit(self) -> tuple[Tensor, Tensor]:
        return best_overlap(self.anchors, self.objects.boxes)

    @cached_property
    def _own(self) -> tuple[Tensor, Tensor]:
        pairs, _ = own_pairs(self.boxes, self.objects.boxes)
        return pairs[0], pairs[1]

    @cached_property
    def _survivors(self) -> Tensor:
        """Of NMS, without the limit after it."""
        return self.rpn.survivors(self.passed_boxes, self.passed_scores, self.passed_parts, None)

    @property
    def _most(self) -> int:
        return self.rpn.config.before_nms[1]

    def of(self, at: int) -> Fate:
        """Of object number `at`."""
        anchors, owners = self._own
        mine = anchors[owners == at]
        through = mine[self.place[mine] >= 0]
        if len(through):
            return self._after_top_k(through, at)
        return self._before_decoding(mine, at) if len(mine) else self._unreached(at)

    def _after_top_k(self, through: Tensor, at: int) -> Fate:
        places = self.place[through]
        best = int(places[self.passed_scores[places].argmax()])
        repair = Repair(rois=self.passed_boxes[best : best + 1])
        outlived = torch.isin(self._survivors, places).nonzero()
        if len(outlived):
            rank, limit = int(outlived[0, 0]) + 1, self.rpn.config.after_nms[1]
            last = self._survivors[rank - 1]
            anchor = int(self.view.batch.candidates.anchors[self.view.index, last])
            reason = f"its proposal ({float(self.logits[anchor].sigmoid()):.2f}) is number {rank} after NMS"
            repair = Repair(rois=self.passed_boxes[last][None])
            better = int(torch.isin(self._survivors[: rank - 1], self.place[self._own[0]]).sum())
            return self._blame(
                at, self._deserves(anchor, better, rank, limit), f"{reason}, where {limit} go on", repair, rank
            )
        rivals = self._survivors[self.passed_scores[self._survivors] >= self.passed_scores[best]]
        if self.rpn.config.scope == "level":
            rivals = rivals[self.passed_parts[rivals] == self.passed_parts[best]]
        if len(rivals) == 0:
            return Fate("rpn_nms", "its proposals are not larger than rpn.min_size", repair)
        overlap = float(pairwise_iou(self.passed_boxes[best][None], self.passed_boxes[rivals]).max())
        score = float(self.passed_scores[best].sigmoid())
        reason = f"its proposal ({score:.2f}) overlaps a surer one with IoU {overlap:.2f}: rpn.nms"
        return Fate("rpn_nms", f"{reason} {self.rpn.config.nms:g}", repair, overlap)

    def _before_decoding(self, mine: Tensor, at: int) -> Fate:
        best = int(mine[self.logits[mine].argmax()])
        repair, rank = Repair(rois=self.boxes[best : best + 1]), self._rank(best)
        return self._blame(at, self._cut_unduly(best, rank), self._cut(best, rank), repair, rank)

    def _blame(self, at: int, deserves: bool, reason: str, repair: Repair, rank: int) -> Fate:
        """An anchor that leads to the object was cut: by top-k, or since what should have led there did not."""
        if deserves:
            return Fate("top_k", reason, repair, float(rank))
        if not self._fits(at):
            return Fate("anchors", self._misfit(at), repair, float(self._fit[0][at]))
        if self._sure_of(at):
            return self._astray(at)
        return Fate("objectness", reason, repair, float(rank))

    def _unreached(self, at: int) -> Fate:
        """No anchor is decoded to it."""
        repair = Repair(rois=self.objects.boxes[at : at + 1])
        if not self._fits(at):
            return Fate("anchors", self._misfit(at), repair, float(self._fit[0][at]))
        fits = pairwise_iou(self.objects.boxes[at : at + 1], self.anchors)[0] >= self._least
        if bool((self.place[fits] >= 0).any()):
            return self._astray(at)
        best = int(torch.where(fits, self.logits, -torch.inf).argmax())
        rank = self._rank(best)
        stage = "top_k" if self._cut_unduly(best, rank) else "objectness"
        return Fate(stage, self._cut(best, rank), repair, float(rank))

    def _astray(self, at: int) -> Fate:
        overlap, best = float(self._fit[0][at]), int(self._fit[1][at])
        becomes = float(paired_iou(self.boxes[best], self.objects.boxes[at]))
        reason = f"the best anchor (IoU {overlap:.2f}) is decoded to a box with IoU {becomes:.2f}"
        return Fate("rpn_box", reason, Repair(rois=self.objects.boxes[at : at + 1]), becomes)

    def _sure(self, anchor: int) -> bool:
        return float(self.logits[anchor].sigmoid()) >= _SURE

    def _sure_of(self, at: int) -> bool:
        """Whether anchors that fit this object best of all are sure and passed top-k."""
        sure = ((self.place >= 0) & (self.logits.sigmoid() >= _SURE)).nonzero().squeeze(1)
        if len(sure) == 0:
            return False
        overlap, whose = pairwise_iou(self.anchors[sure], self.objects.boxes).max(dim=1)
        return bool(((whose == at) & (overlap >= self._least)).any())

    def _cut_unduly(self, anchor: int, rank: int) -> bool:
        """Whether top-k is too few for an anchor that it cut."""
        reaching = torch.unique(self._own[0])
        before = (self.parts[reaching] == self.parts[anchor]) & (self.logits[reaching] > self.logits[anchor])
        return self._deserves(anchor, int(before.sum()), rank, self._most)

    def _deserves(self, anchor: int, better: int, rank: int, limit: int) -> bool:
        """Whether a limit is too low for it, and not its score: the network is sure of it, or `better` ones that reach
        an object fill the limit alone, and are most of those before it."""
        return self._sure(anchor) or (better >= limit and better >= rank - 1 - better)

    @property
    def _least(self) -> float:
        """Below this IoU training calls an anchor background."""
        return self.rpn.config.sampling.negative_iou

    def _fits(self, at: int) -> bool:
        return float(self._fit[0][at]) >= self._least

    def _rank(self, anchor: int) -> int:
        rivals = (self.parts == self.parts[anchor]) & (self.logits > self.logits[anchor])
        return int(rivals.sum()) + 1

    def _misfit(self, at: int) -> str:
        return f"the best anchor overlaps it with IoU {float(self._fit[0][at]):.2f}; {self._least:g} is background"

    def _cut(self, anchor: int, rank: int) -> str:
        score = float(self.logits[anchor].sigmoid())
        return f"its best anchor scores {score:.2f} and is number {rank}, where {self._most} go on"
