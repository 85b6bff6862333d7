"""Where the box head, the last NMS or the threshold lost an object that has a proposal.

A RoI is *the object's* if it reaches it (IoU 0.5) and overlaps no other object further; a detection is, if its class
is the object's, too, and it overlaps no other object of that class further. The last step that one of them reached is
where the object was lost.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from fpn.ops.boxes import pairwise_iou
from fpn.structures import Detections
from fpn.studies.diagnosis.fates import Fate, Repair, TraceableObjects, strongest
from fpn.studies.diagnosis.pairing import own
from fpn.studies.diagnosis.two_stage_view import ImageView

# RoIs of an object that are read from other levels, those that overlap it most.
_TRIED = 16


class _Reread(NamedTuple):
    """Some RoIs (rows) read from a level by its place, and what the head says of them then."""

    level: int
    rows: Tensor
    logits: Tensor
    deltas: Tensor
    score: float


class HeadFates:
    """Of the objects of one image.

    Args:
        view: the image.
        objects: what can be found in it.
        threshold: scores from here on count.
        taken: (n,) which candidates found another object.
    """

    def __init__(self, view: ImageView, objects: TraceableObjects, threshold: float, taken: Tensor) -> None:
        self.view, self.objects, self.threshold, self.taken = view, objects, threshold, taken
        self.reach = pairwise_iou(view.rois, objects.boxes)
        self.owned = own(self.reach)
        self.given = torch.zeros_like(taken)
        self.given[view.kept] = True

    def of(self, at: int) -> Fate | None:
        """Of object number `at`; None: no RoI is its own."""
        view, label = self.view, int(self.objects.labels[at])
        boxes = view.boxes_of(view.rois, view.deltas, label)
        good = self._own(boxes, at)
        found = view.candidates
        scores = view.head.class_scores(view.probabilities)[:, label]
        above = scores > view.head.config.score_limit
        # Its score would do, or its class is at least the head's first choice: what else may be wrong with it is later.
        seen = above & ((scores >= self.threshold) | (view.probabilities.argmax(dim=1) == label))
        mine = (found.labels == label) & good[found.rois] & ~self.taken
        if bool((mine & self.given).any()):
            return self._too_low(strongest(mine & self.given, found.scores))
        mine &= seen[found.rois]
        if bool(mine.any()):
            return self._suppressed(strongest(mine, found.scores))
        quiet = good & ~above & (view.probabilities.argmax(dim=1) == label)
        if bool(quiet.any()):
            return self._below_limit(strongest(quiet, scores), boxes, scores, label)
        if bool((good & seen).any()):
            roi = strongest(good & seen, scores)
            return Fate("suppression", "its box is not larger than box.min_size", self._give(boxes, scores, label, roi))
        own_rois = self.owned[:, at]
        if not bool(own_rois.any()):
            return None
        return self._reread(own_rois, at, label) or self._misjudged(own_rois, good & own_rois, seen, at)

    def _own(self, boxes: Tensor, at: int) -> Tensor:
        return self.view.own_of_class(boxes, self.objects.boxes, self.objects.labels, at)

    def _too_low(self, candidate: int) -> Fate:
        score = float(self.view.candidates.scores[candidate])
        if score >= self.threshold:
            return self._lowered(candidate, score)
        reason = f"it is found with a score of {score:.2f}, below {self.threshold:g}"
        return Fate("threshold", reason, self._give_candidate(candidate), score)

    def _lowered(self, candidate: int, score: float) -> Fate:
        """Sure enough, but for Soft-NMS."""
        kept, scores = self.view.suppressed
        (place,) = (kept == candidate).nonzero().squeeze(1).tolist()
        overlap = self._overlap(candidate, kept[:place])
        reason = f"its detection ({score:.2f}) overlaps a surer one with IoU {overlap:.2f}: Soft-NMS lowers it to "
        repair = self._give_candidate(candidate)
        return Fate("suppression", f"{reason}{float(scores[place]):.2f}", repair, overlap)

    def _overlap(self, candidate: int, among: Tensor) -> float:
        """How far a candidate overlaps those of its class."""
        found = self.view.candidates
        rivals = among[found.labels[among] == found.labels[candidate]]
        return float(pairwise_iou(found.boxes[candidate][None], found.boxes[rivals]).max()) if len(rivals) else 0.0

    def _below_limit(self, roi: int, boxes: Tensor, scores: Tensor, label: int) -> Fate:
        score = float(scores[roi])
        reason = f"its class is the first choice with {score:.2f}, below box.score_limit"
        repair = self._give(boxes, scores, label, roi)
        return Fate("threshold", f"{reason} {self.view.head.config.score_limit:g}", repair, score)

    def _suppressed(self, candidate: int) -> Fate:
        found, config = self.view.candidates, self.view.head.config
        score, kept = float(found.scores[candidate]), self.view.kept
        overlap = self._overlap(candidate, kept[found.scores[kept] >= found.scores[candidate]])
        repair = self._give_candidate(candidate)
        if (overlap <= config.nms or config.suppression != "hard") and len(kept) >= config.limit:
            return Fate("suppression", f"its detection ({score:.2f}) is beyond the limit of {config.limit}", repair)
        reason = f"its detection ({score:.2f}) overlaps a surer one with IoU {overlap:.2f}: box.nms {config.nms:g}"
        return Fate("suppression", reason, repair, overlap)

    def _reread(self, own_rois: Tensor, at: int, label: int) -> Fate | None:
        """Whether the head finds it on another level than equation 1 chose."""
        view, levels = self.view, self.view.head.pooler.levels
        order = torch.where(own_rois, self.reach[:, at], -1.0).argsort(descending=True)
        rows = order[: min(int(own_rois.sum()), _TRIED)]
        chosen = view.head.pooler.assign(view.rois[rows], view.batch.images.padded_size)
        tried = [self._read_from(level, rows[chosen != level], at, label) for level in range(len(levels))]
        best = max((each for each in tried if each is not None), key=lambda each: each.score, default=None)
        if best is None:
            return None
        roi = strongest(torch.isin(torch.arange(len(view.rois), device=rows.device), best.rows), self.reach[:, at])
        was = levels[int(view.head.pooler.assign(view.rois[roi : roi + 1], view.batch.images.padded_size)[0])].name
        reason = f"read from {was} by equation 1; read from {levels[best.level].name} it scores {best.score:.2f}"
        step = levels[best.level].number - levels[int(chosen[0])].number
        return Fate("level", reason, Repair(edit=partial(_replace, best)), float(step))

    def _read_from(self, level: int, rows: Tensor, at: int, label: int) -> _Reread | None:
        if len(rows) == 0:
            return None
        view = self.view
        logits, deltas = view.judge(view.rois[rows], level)
        scores = view.head.class_scores(logits.softmax(dim=1))[:, label]
        boxes = view.boxes_of(view.rois[rows], deltas, label)
        good = self._own(boxes, at) & (scores > view.head.config.score_limit) & (scores >= self.threshold)
        if not bool(good.any()):
            return None
        return _Reread(level, rows[good], logits[good], deltas[good], float(scores[good].max()))

    def _misjudged(self, own_rois: Tensor, good: Tensor, seen: Tensor, at: int) -> Fate:
        view, label = self.view, int(self.objects.labels[at])
        if not bool(good.any()) and bool((own_rois & seen).any()):
            return self._ill_boxed((own_rois & seen).nonzero().squeeze(1), at, label)
        rows = (good if bool(good.any()) else own_rois).nonzero().squeeze(1)
        roi = int(rows[self.reach[rows, at].argmax()])
        says = view.probabilities[roi]
        first = int(says.argmax())
        names = (*view.batch.detector.classes.names, "background")
        reason = f"taken for {names[first]} ({float(says[first]):.2f}); {names[label]} has {float(says[label]):.2f}"
        if not bool(good.any()):
            reason += ", and no box reaches it"
        return Fate("class", reason, Repair(edit=partial(_exchange, rows, label)))

    def _ill_boxed(self, rows: Tensor, at: int, label: int) -> Fate:
        view = self.view
        boxes = view.boxes_of(view.rois[rows], view.deltas[rows], label)
        overlap = float(pairwise_iou(boxes, self.objects.boxes[at : at + 1]).max())
        score = float(view.probabilities[rows, label].max())
        reason = f"its class has {score:.2f}, but the best box made for it has IoU {overlap:.2f}"
        wanted = self.objects.boxes[at]
        return Fate("box", reason, Repair(edit=lambda _, deltas: view.set_box(deltas, rows, label, wanted)), overlap)

    def _give_candidate(self, candidate: int) -> Repair:
        boxes, scores, labels = self.view.candidates[:3]
        one = slice(candidate, candidate + 1)
        return Repair(detection=Detections(boxes[one], scores[one], labels[one]))

    def _give(self, boxes: Tensor, scores: Tensor, label: int, roi: int) -> Repair:
        one = slice(roi, roi + 1)
        labels = torch.full((1,), label, dtype=torch.int64, device=boxes.device)
        return Repair(detection=Detections(boxes[one], scores[one], labels))


def _replace(reread: _Reread, logits: Tensor, deltas: Tensor) -> None:
    logits[reread.rows], deltas[reread.rows] = reread.logits, reread.deltas


def _exchange(rows: Tensor, label: int, logits: Tensor, deltas: Tensor) -> None:
    """The class gets what the first choice had, and the first choice what it had."""
    first = logits[rows].argmax(dim=1)
    highest, own_logit = logits[rows, first].clone(), logits[rows, label].clone()
    logits[rows, first] = own_logit
    logits[rows, label] = highest
