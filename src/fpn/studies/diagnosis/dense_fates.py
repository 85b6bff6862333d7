"""Where a one-stage detector lost an object.

A place is *the object's* if it is decoded to a box that reaches the object (IoU 0.5) and overlaps no other one of its
class further; it *fits* if it would learn the object, were that alone.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from fpn.heads.dense_selection import DenseCandidates
from fpn.ops.boxes import paired_iou, pairwise_iou
from fpn.structures import Detections
from fpn.studies.diagnosis.fates import Fate, Repair, TraceableObjects, strongest
from fpn.studies.diagnosis.one_stage_view import DenseView
from fpn.studies.diagnosis.pairing import best_overlap


class DenseFates:
    """Of the objects of one image.

    Args:
        view: the image.
        objects: what can be found in it.
        threshold: scores from here on count.
        names: of classes.
        taken: places and classes, place * K + class, that found another object.
        usual: score of a detection that finds its object.
    """

    def __init__(
        self,
        view: DenseView,
        objects: TraceableObjects,
        *,
        threshold: float,
        names: tuple[str, ...],
        taken: Tensor,
        usual: float,
    ) -> None:
        self.view, self.objects, self.threshold, self.names = view, objects, threshold, names
        self.usual = usual
        count = view.head.num_classes
        known = view.candidates.places * count + view.candidates.labels
        given = view.given.places * count + view.given.labels
        self.taken, self.kept = torch.isin(known, taken), torch.isin(known, given)

    def of(self, at: int) -> Fate:
        """Of object number `at`."""
        view, label = self.view, int(self.objects.labels[at])
        good = view.own_of_class(self.objects.boxes, self.objects.labels, at)
        found, scores = view.candidates, view.scores[:, label]
        mine = (found.labels == label) & good[found.places] & ~self.taken
        loud = mine & (found.scores >= self.threshold)
        if bool(loud.any()):
            return self._suppressed(strongest(loud, found.scores))
        reached = good & ~self._taken_places(label)
        cut = reached & (scores >= self.threshold)
        if bool(cut.any()):
            return self._cut(strongest(cut, scores), label)
        sure = reached & (view.class_scores[:, label] >= self.threshold)
        if bool(sure.any()):
            return self._unequal(strongest(sure, view.class_scores[:, label]), label)
        fits = view.fitting(self.objects.boxes[at], label)
        if fate := self._misjudged(at, label, good, fits):
            return fate
        if bool((mine & self.kept).any()):
            place = int(found.places[strongest(mine & self.kept, found.scores)])
            return self._too_low(place, label)
        if not bool(fits.any()):
            return self._unfit(at, label)
        above = reached & (view.class_scores[:, label] > view.head.settings.score_limit)
        return self._too_low(strongest(above, scores), label) if bool(above.any()) else self._quiet(at, label, fits)

    def _taken_places(self, label: int) -> Tensor:
        found = self.view.candidates
        marked = torch.zeros(len(self.view.places), dtype=torch.bool, device=found.places.device)
        marked[found.places[self.taken & (found.labels == label)]] = True
        return marked

    def _suppressed(self, candidate: int) -> Fate:
        found, given, config = self.view.candidates, self.view.given, self.view.head.settings
        score, box = float(found.scores[candidate]), found.boxes[candidate][None]
        rivals = given.boxes[(given.labels == found.labels[candidate]) & (given.scores >= score)]
        overlap = float(pairwise_iou(box, rivals).max()) if len(rivals) else 0.0
        repair = self._give(found.boxes[candidate], score, int(found.labels[candidate]))
        if overlap <= config.nms and len(given.boxes) >= config.limit:
            return Fate("suppression", f"its detection ({score:.2f}) is beyond the limit of {config.limit}", repair)
        reason = f"its detection ({score:.2f}) overlaps a surer one with IoU {overlap:.2f}: dense.nms {config.nms:g}"
        return Fate("suppression", reason, repair, overlap)

    def _cut(self, place: int, label: int) -> Fate:
        """Sure enough, and no candidate: more pairs of its level are surer."""
        view = self.view
        score, level = float(view.scores[place, label]), int(view.levels[place])
        rank = int((view.scores[view.levels == level] > score).sum()) + 1
        reason = f"it has {score:.2f} and is number {rank} of {view.head.levels[level].name}"
        repair = self._give(view.boxes[place], score, label)
        return Fate("top_k", f"{reason}, where {view.head.settings.before_nms} go on", repair, float(rank))

    def _unequal(self, place: int, label: int) -> Fate:
        alone, score = float(self.view.class_scores[place, label]), float(self.view.scores[place, label])
        reason = f"its class has {alone:.2f}, but its centre-ness makes that {score:.2f}"
        return Fate("quality", reason, self._give(self.view.boxes[place], alone, label), score)

    def _misjudged(self, at: int, label: int, good: Tensor, fits: Tensor) -> Fate | None:
        """A place of its own is sure: of another class, or of this one with another box."""
        view = self.view
        if bool((fits & (view.scores[:, label] >= self.threshold) & self._nobodys).any()):
            return self._ill_boxed(fits & self._nobodys, at, label)
        others = view.scores.clone()
        others[:, label] = -1.0
        highest, which = others.max(dim=1)
        taken_for = (good | fits) & self._own_of_any(at) & (highest >= self.threshold)
        if not bool(taken_for.any()):
            return None
        best = strongest(taken_for, highest)
        first, own_score = int(which[best]), float(view.scores[best, label])
        reason = f"taken for {self.names[first]} ({float(highest[best]):.2f}); {self.names[label]} has {own_score:.2f}"
        return Fate(
            "class", reason, Repair(edit=lambda labels, places: _rename(labels, places, taken_for, first, label))
        )

    def _ill_boxed(self, places: Tensor, at: int, label: int) -> Fate:
        view, box = self.view, self.objects.boxes[at]
        best = strongest(places, view.scores[:, label])
        score, overlap = float(view.scores[best, label]), float(paired_iou(view.boxes[best], box))
        reason = f"its class has {score:.2f}, but the box that is made for it has IoU {overlap:.2f}"
        return Fate("box", reason, self._give(box, score, label), overlap)

    def _too_low(self, place: int, label: int) -> Fate:
        score = float(self.view.scores[place, label])
        reason = f"it is found with a score of {score:.2f}, below {self.threshold:g}"
        return Fate("threshold", reason, self._give(self.view.boxes[place], score, label), score)

    def _unfit(self, at: int, label: int) -> Fate:
        box = self.objects.boxes[at]
        reason = "no cell of any level would learn it"
        value = None
        if self.view.places.shape[1] == 4:
            value = float(best_overlap(self.view.places, box[None])[0][0])
            reason = f"no anchor would learn it: the best one overlaps it with IoU {value:.2f}"
        return Fate("anchors", reason, self._give(box, self.usual, label), value)

    def _quiet(self, at: int, label: int, fits: Tensor) -> Fate:
        score = float(self.view.class_scores[fits, label].max())
        reason = f"where it is, its class has {score:.3f}; dense.score_limit is {self.view.head.settings.score_limit:g}"
        return Fate("score", reason, self._give(self.objects.boxes[at], self.usual, label), score)

    def _give(self, box: Tensor, score: float, label: int) -> Repair:
        one = Detections(box[None], box.new_tensor([score]), torch.tensor([label], device=box.device))
        return Repair(detection=one)

    @cached_property
    def _owner(self) -> tuple[Tensor, Tensor]:
        """(N,) highest IoU of each place's box with any object, and whose."""
        return pairwise_iou(self.view.boxes, self.objects.boxes).max(dim=1)

    @property
    def _nobodys(self) -> Tensor:
        """(N,) places whose box reaches no object."""
        return self._owner[0] < 0.5

    def _own_of_any(self, at: int) -> Tensor:
        """(N,) places whose box reaches this object first, or none."""
        return self._nobodys | (self._owner[1] == at)


def _rename(labels: Tensor, places: Tensor, chosen: Tensor, first: int, label: int) -> None:
    """Candidates of these places: their first choice and the object's class change names, in place."""
    here = chosen[places]
    was_first, was_own = here & (labels == first), here & (labels == label)
    labels[was_first], labels[was_own] = label, first


def exchange(found: DenseCandidates, repairs: list[Repair]) -> DenseCandidates:
    """The candidates with what repairs change of them."""
    labels = found.labels.clone()
    for repair in repairs:
        repair.edit(labels, found.places)
    return found._replace(labels=labels)
