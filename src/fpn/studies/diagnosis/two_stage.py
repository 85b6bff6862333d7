"""Following objects through Faster R-CNN: anchors, top-k, NMS, equation 1, the box head, NMS, the threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fpn.detectors.dialect import TwoStageDialect
from fpn.detectors.two_stage import TwoStageDetector
from fpn.structures import Detections, ImageBatch, Targets
from fpn.studies.diagnosis.fates import Fate, Repair, TraceableObjects
from fpn.studies.diagnosis.head_fates import HeadFates
from fpn.studies.diagnosis.pairing import best_overlap, pair
from fpn.studies.diagnosis.remedies import remedy
from fpn.studies.diagnosis.rpn_fates import ProposalFates
from fpn.studies.diagnosis.stages import ImageTrace, LostObject, Mark, Stage
from fpn.studies.diagnosis.two_stage_view import BatchView, ImageView

_OWN_BOX = "the object's box joins the proposals, and the box head goes on"
_CUT_BOX = "the box that was lost joins the proposals, and the box head goes on"

TWO_STAGES = (
    Stage("anchors", "no anchor fits", "its best anchor overlaps it less than rpn.sampling.negative_iou", _OWN_BOX),
    Stage(
        "objectness",
        "anchor scored low",
        "an anchor fits, but its score is below 0.5 and top-k cut it behind anchors of background",
        _CUT_BOX,
    ),
    Stage("rpn_box", "decoded badly", "anchors that fit passed top-k, and none is decoded to a box with 0.5", _OWN_BOX),
    Stage(
        "top_k",
        "cut by top-k",
        "its anchors are sure, or cut behind anchors of objects rather than background; before NMS or after it",
        _CUT_BOX,
    ),
    Stage("rpn_nms", "suppressed in the RPN", "all its proposals overlap a surer one of something else", _CUT_BOX),
    Stage(
        "level",
        "level by equation 1",
        "read from another level, its RoI would be found",
        "its RoIs are read from the level that finds it, and selection goes on",
    ),
    Stage(
        "class",
        "classified wrongly",
        "a RoI has its box; its class neither has the score that is asked for nor is the first choice",
        "its class and the head's first choice change places in its RoIs, and selection goes on",
    ),
    Stage(
        "box",
        "box poor",
        "its RoIs have its class, but no box made of them has IoU 0.5",
        "the boxes made of its RoIs are the truth's, and selection goes on",
    ),
    Stage(
        "suppression",
        "suppressed in the end",
        "its detections overlap a surer one of their class, or are beyond the limit",
        "its surest detection is given beside the others",
    ),
    Stage(
        "threshold",
        "below the threshold",
        "it is found, with a score that is too low",
        "its surest detection counts as it is",
    ),
)


@dataclass(frozen=True)
class TwoStageTracer:
    """Follows objects through one detector.

    Attributes:
        detector: which.
        threshold: detections with this score or more count.
    """

    detector: TwoStageDetector
    threshold: float

    @property
    def stages(self) -> tuple[Stage, ...]:
        """See `Tracer`."""
        return TWO_STAGES

    def remedy(self, stage: str, values: Sequence[float]) -> str:
        """See `Tracer`."""
        dialect = self.detector.recipe.dialect
        assert isinstance(dialect, TwoStageDialect), "a two-stage detector's"
        return remedy(stage, values, dialect)

    def trace(self, images: ImageBatch, truths: Sequence[Targets]) -> list[ImageTrace]:
        """See `Tracer`."""
        batch = BatchView(self.detector, images, *self.detector.look(images.pixels))
        return [self._trace(view, truth) for view, truth in zip(batch.views, truths, strict=True)]

    def _trace(self, view: ImageView, truth: Targets) -> ImageTrace:
        given = view.detections
        found = given[: int((given.scores >= self.threshold).sum())]
        matched = pair(found, truth)
        objects = TraceableObjects.of(truth)
        lost = (~torch.isin(objects.rows.cpu(), matched)).nonzero().squeeze(1).tolist()
        levels, found_levels = self._levels(view, objects.boxes), self._levels(view, found.boxes)
        if not lost:
            return ImageTrace(found, matched, levels, found_levels, [])
        fates = self._fates(view, objects, lost, matched)
        told = [self._tell(view, objects, at, fate, levels[at]) for at, fate in fates.items()]
        repaired = {
            stage: self._repaired(view, found, [fate.repair for fate in fates.values() if fate.stage == stage])
            for stage in {fate.stage for fate in fates.values()}
        }
        return ImageTrace(found, matched, levels, found_levels, told, repaired)

    def _levels(self, view: ImageView, boxes: Tensor) -> tuple[str, ...]:
        """The names of the levels that equation 1 gives to boxes."""
        pooler = view.head.pooler
        return tuple(pooler.levels[place].name for place in pooler.assign(boxes, view.batch.images.padded_size))

    def _fates(self, view: ImageView, objects: TraceableObjects, lost: list[int], matched: Tensor) -> dict[int, Fate]:
        taken = torch.zeros(len(view.candidates.rois), dtype=torch.bool, device=view.rois.device)
        taken[view.kept[: len(matched)][(matched >= 0).to(taken.device)]] = True
        by_head = HeadFates(view, objects, self.threshold, taken)
        fates = {at: by_head.of(at) for at in lost}
        if all(fate is not None for fate in fates.values()):
            return {at: fate for at, fate in fates.items() if fate is not None}
        by_rpn = ProposalFates(view, objects)
        return {at: fate or self.between(view, objects, at) or by_rpn.of(at) for at, fate in fates.items()}

    def between(self, view: ImageView, objects: TraceableObjects, at: int) -> Fate | None:
        """The fate of an object between proposals and the last box head; None: no proposal was its own."""
        return None

    def _repaired(self, view: ImageView, found: Detections, repairs: list[Repair]) -> Detections:
        """What the detector would give with all of these."""
        logits, deltas = view.logits.clone(), view.deltas.clone()
        for repair in repairs:
            repair.edit(logits, deltas)
        rois = view.rois
        for start in sorted({repair.start for repair in repairs}):
            added = [repair.rois for repair in repairs if repair.rois is not None and repair.start == start]
            if added:
                said = view.pass_on(torch.cat(added), start)
                rois, logits, deltas = (torch.cat(pair) for pair in zip((rois, logits, deltas), said, strict=True))
        beside = [repair.detection for repair in repairs if repair.detection is not None]
        if not beside:
            found = view.select(rois, logits, deltas)
            return found[found.scores >= self.threshold]
        together = [found, *beside]
        boxes, scores, labels = (
            torch.cat([getattr(each, name) for each in together]) for name in ("boxes", "scores", "labels")
        )
        return Detections(boxes, scores, labels)[scores.argsort(descending=True, stable=True)]

    def _tell(self, view: ImageView, objects: TraceableObjects, at: int, fate: Fate, level: str) -> LostObject:
        box = objects.boxes[at]
        label = int(objects.labels[at])
        side = float((box[2:] - box[:2]).clamp(min=0).prod().sqrt())
        marks = self._marks(view, box, label)
        return LostObject(int(objects.rows[at]), label, fate.stage, fate.reason, level, side, fate.value, marks)

    def _marks(self, view: ImageView, box: Tensor, label: int) -> tuple[Mark, ...]:
        names = self.detector.classes.names
        marks = [Mark.of("truth", box, names[label])]
        anchors, given = view.batch.anchors.anchors, view.detections
        for what, boxes in (("anchor", anchors), ("proposal", view.rois), ("detection", given.boxes)):
            overlap, best = best_overlap(boxes, box[None])
            if len(boxes) and float(overlap[0]) > 0:
                place = int(best[0])
                text = f"IoU {float(overlap[0]):.2f}"
                if what == "detection":
                    text = f"{names[int(given.labels[place])]} {float(given.scores[place]):.2f}, {text}"
                marks.append(Mark.of(what, boxes[place], text))
        return tuple(marks)
