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
from fpn.studies.diagnosis.remedies import remedy
from fpn.studies.diagnosis.rpn_fates import ProposalFates
from fpn.studies.diagnosis.stages import ImageTrace, Mark, Stage
from fpn.studies.diagnosis.tracing import LAST_STAGES, Findings, give_beside, mark_nearest, trace_image
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
    *LAST_STAGES,
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
        return trace_image(
            view.detections,
            truth,
            self.threshold,
            levels_of=lambda boxes: self._levels(view, boxes),
            follow=lambda findings: self._fates(view, findings),
            repair=lambda found, fates: self._repaired(view, found, [fate.repair for fate in fates]),
            mark=lambda box, label: self._marks(view, box, label),
        )

    def _levels(self, view: ImageView, boxes: Tensor) -> tuple[str, ...]:
        """The names of the levels that equation 1 gives to boxes."""
        pooler = view.head.pooler
        return tuple(pooler.levels[place].name for place in pooler.assign(boxes, view.batch.images.padded_size))

    def _fates(self, view: ImageView, findings: Findings) -> dict[int, Fate]:
        objects, matched = findings.objects, findings.matched
        taken = torch.zeros(len(view.candidates.rois), dtype=torch.bool, device=view.rois.device)
        taken[view.kept[: len(matched)][(matched >= 0).to(taken.device)]] = True
        by_head = HeadFates(view, objects, self.threshold, taken)
        fates = {at: by_head.of(at) for at in findings.lost}
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
        return give_beside(found, beside)

    def _marks(self, view: ImageView, box: Tensor, label: int) -> tuple[Mark, ...]:
        others = [("anchor", view.batch.anchors.anchors), ("proposal", view.rois)]
        return mark_nearest(box, label, view.detections, others, self.detector.classes.names)
