"""Following objects through one-stage detectors: anchors or cells, the head, top-k, NMS, the threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fpn.detectors.one_stage import OneStageDetector
from fpn.heads.dense_towers import TowerHead
from fpn.structures import Detections, ImageBatch, Targets
from fpn.studies.diagnosis.dense_fates import DenseFates, exchange
from fpn.studies.diagnosis.fates import Fate, TraceableObjects
from fpn.studies.diagnosis.one_stage_view import DenseView
from fpn.studies.diagnosis.pairing import best_overlap, pair
from fpn.studies.diagnosis.remedies import dense_remedy
from fpn.studies.diagnosis.stages import ImageTrace, LostObject, Mark, Stage

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
        given = view.detections
        found = given[: int((given.scores >= self.threshold).sum())]
        matched = pair(found, truth)
        objects = TraceableObjects.of(truth)
        lost = (~torch.isin(objects.rows.cpu(), matched)).nonzero().squeeze(1).tolist()
        levels, found_levels = view.names_of(objects.boxes), view.names_of(found.boxes)
        if not lost:
            return ImageTrace(found, matched, levels, found_levels, [])
        fates = self._fates(view, objects, lost, found, matched)
        told = [self._tell(view, objects, at, fate, levels[at]) for at, fate in fates.items()]
        repaired = {
            stage: self._repaired(view, found, [fate for fate in fates.values() if fate.stage == stage])
            for stage in {fate.stage for fate in fates.values()}
        }
        return ImageTrace(found, matched, levels, found_levels, told, repaired)

    def _fates(
        self, view: DenseView, objects: TraceableObjects, lost: list[int], found: Detections, matched: Tensor
    ) -> dict[int, Fate]:
        right = (matched >= 0).to(found.scores.device)
        first = len(matched)
        taken = view.given.places[:first] * self.head.num_classes + view.given.labels[:first]
        usual = float(found.scores[right].median()) if bool(right.any()) else max(self.threshold, 0.5)
        names = self.detector.classes.names
        fates = DenseFates(view, objects, threshold=self.threshold, names=names, taken=taken[right], usual=usual)
        return {at: fates.of(at) for at in lost}

    def _repaired(self, view: DenseView, found: Detections, fates: list[Fate]) -> Detections:
        """What the detector would give with all of these put right."""
        if fates[0].stage == "class":
            given = Detections(*view.suppress(exchange(view.candidates, [fate.repair for fate in fates]))[:3])
            return given[given.scores >= self.threshold]
        beside = [fate.repair.detection for fate in fates if fate.repair.detection is not None]
        together = [found, *beside]
        boxes, scores, labels = (
            torch.cat([getattr(each, name) for each in together]) for name in ("boxes", "scores", "labels")
        )
        return Detections(boxes, scores, labels)[scores.argsort(descending=True, stable=True)]

    def _tell(self, view: DenseView, objects: TraceableObjects, at: int, fate: Fate, level: str) -> LostObject:
        box, label = objects.boxes[at], int(objects.labels[at])
        side = float((box[2:] - box[:2]).clamp(min=0).prod().sqrt())
        marks = self._marks(view, box, label)
        return LostObject(int(objects.rows[at]), label, fate.stage, fate.reason, level, side, fate.value, marks)

    def _marks(self, view: DenseView, box: Tensor, label: int) -> tuple[Mark, ...]:
        names, given = self.detector.classes.names, view.detections
        marks = [Mark.of("truth", box, names[label])]
        drawn = [("detection", given.boxes)]
        if view.places.shape[1] == 4:
            drawn.insert(0, ("anchor", view.places))
        for what, boxes in drawn:
            overlap, best = best_overlap(boxes, box[None])
            if len(boxes) and float(overlap[0]) > 0:
                place, text = int(best[0]), f"IoU {float(overlap[0]):.2f}"
                if what == "detection":
                    text = f"{names[int(given.labels[place])]} {float(given.scores[place]):.2f}, {text}"
                marks.append(Mark.of(what, boxes[place], text))
        return tuple(marks)
