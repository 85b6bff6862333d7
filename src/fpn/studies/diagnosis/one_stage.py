"""Following objects through one-stage detectors: anchors or cells, the head, top-k, NMS, the threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fpn.detectors.one_stage import OneStageDetector
from fpn.heads.dense_towers import TowerHead
from fpn.structures import Detections, ImageBatch, Targets
from fpn.studies.diagnosis.dense_fates import DenseFates, exchange
from fpn.studies.diagnosis.fates import Fate
from fpn.studies.diagnosis.one_stage_view import DenseView
from fpn.studies.diagnosis.remedies import dense_remedy
from fpn.studies.diagnosis.stages import ImageTrace, Mark, Stage
from fpn.studies.diagnosis.tracing import LAST_STAGES, Findings, give_beside, mark_nearest, trace_image

_AS_SURE = "its box is given beside the others, as sure as the median of what finds its object in this image"

_STAGES = (
    Stage("anchors", "no anchor fits", "no anchor or cell would learn it, were it alone in its image", _AS_SURE),
    Stage("score", "scored low", "an anchor or cell fits; its class has less than dense.score_limit there", _AS_SURE),
    Stage(
        "class",
        "classified wrongly",
        "a place of its own is sure of another class and not of its",
        "the two classes change names there, and NMS goes on",
    ),
    Stage(
        "box",
        "box poor",
        "a place that fits is sure of its class, but no such place's box has IoU 0.5 with an object",
        "its box is given with that score beside the others",
    ),
    Stage(
        "quality",
        "centre-ness low",
        "its class alone would have the score that is asked for",
        "it is given with its class's score beside the others",
    ),
    Stage(
        "top_k",
        "cut by top-k",
        "its score would do, but more pairs of place and class of its level are surer",
        "its surest box is given beside the others",
    ),
    *LAST_STAGES,
)


@dataclass(frozen=True)
class OneStageTracer:
    """Follows objects through one detector.

    Attributes:
        detector: which.
        head: its head.
        threshold: detections with this score or more count.
    """

    detector: OneStageDetector
    head: TowerHead
    threshold: float

    @property
    def stages(self) -> tuple[Stage, ...]:
        """See `Tracer`; centre-ness where there is one."""
        return tuple(stage for stage in _STAGES if stage.name != "quality" or self.head.quality is not None)

    def remedy(self, stage: str, values: Sequence[float]) -> str:
        """See `Tracer`."""
        return dense_remedy(stage, values, self.head)

    def trace(self, images: ImageBatch, truths: Sequence[Targets]) -> list[ImageTrace]:
        """See `Tracer`."""
        maps = self.head.maps(self.detector.run_dense(images.pixels))
        references = self.head.references(maps, images)
        views = [DenseView(self.head, maps, references, images, index) for index in range(len(truths))]
        return [self._trace(view, truth) for view, truth in zip(views, truths, strict=True)]

    def _trace(self, view: DenseView, truth: Targets) -> ImageTrace:
        return trace_image(
            view.detections,
            truth,
            self.threshold,
            levels_of=view.names_of,
            follow=lambda findings: self._fates(view, findings),
            repair=lambda found, fates: self._repaired(view, found, fates),
            mark=lambda box, label: self._marks(view, box, label),
        )

    def _fates(self, view: DenseView, findings: Findings) -> dict[int, Fate]:
        found, matched = findings.found, findings.matched
        right = (matched >= 0).to(found.scores.device)
        first = len(matched)
        taken = view.given.places[:first] * self.head.num_classes + view.given.labels[:first]
        usual = float(found.scores[right].median()) if bool(right.any()) else max(self.threshold, 0.5)
        names = self.detector.classes.names
        fates = DenseFates(
            view, findings.objects, threshold=self.threshold, names=names, taken=taken[right], usual=usual
        )
        return {at: fates.of(at) for at in findings.lost}

    def _repaired(self, view: DenseView, found: Detections, fates: list[Fate]) -> Detections:
        """What the detector would give with all of these put right."""
        if fates[0].stage == "class":
            given = Detections(*view.suppress(exchange(view.candidates, [fate.repair for fate in fates]))[:3])
            return given[given.scores >= self.threshold]
        return give_beside(found, [fate.repair.detection for fate in fates if fate.repair.detection is not None])

    def _marks(self, view: DenseView, box: Tensor, label: int) -> tuple[Mark, ...]:
        anchors = [("anchor", view.places)] if view.places.shape[1] == 4 else []
        return mark_nearest(box, label, view.detections, anchors, self.detector.classes.names)
