"""Following objects through a cascade: as through Faster R-CNN, and from stage to stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fpn.heads.cascade import box_heads
from fpn.ops.boxes import pairwise_iou
from fpn.studies.diagnosis.fates import Fate, Repair, TraceableObjects
from fpn.studies.diagnosis.pairing import own
from fpn.studies.diagnosis.stages import Stage
from fpn.studies.diagnosis.two_stage import TWO_STAGES, TwoStageTracer
from fpn.studies.diagnosis.two_stage_view import ImageView

_AWAY = "moved_by_stage_"


@dataclass(frozen=True)
class CascadeTracer(TwoStageTracer):
    """Follows objects through one detector with several box heads in a row; its last one is "the box head"."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """See `Tracer`."""
        count = len(box_heads(self.detector.roi_heads.box))
        first = [stage.name for stage in TWO_STAGES].index("level")
        return (*TWO_STAGES[:first], *map(_stage, range(1, count)), *TWO_STAGES[first:])

    def remedy(self, stage: str, values: Sequence[float]) -> str:
        """See `Tracer`."""
        if stage.startswith(_AWAY):
            return "more epochs; its class and boxes are learned at cascade.ious of this stage"
        return super().remedy(stage, values)

    def between(self, view: ImageView, objects: TraceableObjects, at: int) -> Fate | None:
        """The last stage that still read a RoI of its own moved it away."""
        box = objects.boxes[at : at + 1]
        after = (*view.earlier[1:], view.rois)
        for number in reversed(range(len(view.earlier))):
            mine = own(pairwise_iou(view.earlier[number], objects.boxes))[:, at]
            if not bool(mine.any()):
                continue
            was = float(pairwise_iou(view.earlier[number][mine], box).max())
            became = float(pairwise_iou(after[number][mine], box).max())
            reason = f"stage {number + 1} moves its RoIs from IoU {was:.2f} to {became:.2f}"
            return Fate(f"{_AWAY}{number + 1}", reason, Repair(rois=box, start=number + 1), became)
        return None


def _stage(number: int) -> Stage:
    return Stage(
        f"{_AWAY}{number}",
        f"moved away by stage {number}",
        f"stage {number} of the cascade reads a RoI of its own, and stage {number + 1} none",
        f"the object's box joins what stage {number + 1} reads, and the cascade goes on",
    )
