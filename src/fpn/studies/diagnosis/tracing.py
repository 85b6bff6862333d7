"""What tracers of all kinds do alike: who is lost, what is told of it, and detections that are given beside others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fpn.structures import Detections, Targets
from fpn.studies.diagnosis.fates import Fate, TraceableObjects
from fpn.studies.diagnosis.pairing import best_overlap, pair
from fpn.studies.diagnosis.stages import ImageTrace, LostObject, Mark, Stage

# The last stages of every kind.
LAST_STAGES = (
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
class Findings:
    """What counts in an image.

    Attributes:
        objects: those that can be found.
        found: detections that reach the threshold, best first.
        matched: (n,) number of the object that each of them found, see `ImageTrace`.
        lost: places among `objects` that none of them found.
    """

    objects: TraceableObjects
    found: Detections
    matched: Tensor
    lost: list[int]


def trace_image(
    given: Detections,
    truth: Targets,
    threshold: float,
    *,
    levels_of: Callable[[Tensor], tuple[str, ...]],
    follow: Callable[[Findings], dict[int, Fate]],
    repair: Callable[[Detections, list[Fate]], Detections],
    mark: Callable[[Tensor, int], tuple[Mark, ...]],
) -> ImageTrace:
    """What became of one image's objects.

    Args:
        given: all detections, best first.
        truth: the image's objects.
        threshold: detections with this score or more count.
        levels_of: names of the levels of boxes (n, 4).
        follow: the fate of each lost object, by its place among the objects.
        repair: from what was found, what the detector would give were the stage of these fates without fault.
        mark: what to draw for an object: its box (4,) and label.
    """
    found = given[: int((given.scores >= threshold).sum())]
    matched = pair(found, truth)
    objects = TraceableObjects.of(truth)
    lost = (~torch.isin(objects.rows.cpu(), matched)).nonzero().squeeze(1).tolist()
    levels, found_levels = levels_of(objects.boxes), levels_of(found.boxes)
    if not lost:
        return ImageTrace(found, matched, levels, found_levels, [])
    fates = follow(Findings(objects, found, matched, lost))
    told = [_tell(objects, at, fate, levels[at], mark) for at, fate in fates.items()]
    repaired = {
        stage: repair(found, [fate for fate in fates.values() if fate.stage == stage])
        for stage in {fate.stage for fate in fates.values()}
    }
    return ImageTrace(found, matched, levels, found_levels, told, repaired)


def _tell(
    objects: TraceableObjects, at: int, fate: Fate, level: str, mark: Callable[[Tensor, int], tuple[Mark, ...]]
) -> LostObject:
    box, label = objects.boxes[at], int(objects.labels[at])
    side = float((box[2:] - box[:2]).clamp(min=0).prod().sqrt())
    marks = mark(box, label)
    return LostObject(int(objects.rows[at]), label, fate.stage, fate.reason, level, side, fate.value, marks)


def mark_nearest(
    box: Tensor, label: int, given: Detections, others: Sequence[tuple[str, Tensor]], names: Sequence[str]
) -> tuple[Mark, ...]:
    """The truth (4,), and what overlaps it best of each of `others` (m, 4), by what they are, and of the detections."""
    marks = [Mark.of("truth", box, names[label])]
    for what, boxes in (*others, ("detection", given.boxes)):
        overlap, best = best_overlap(boxes, box[None])
        if len(boxes) and float(overlap[0]) > 0:
            place, text = int(best[0]), f"IoU {float(overlap[0]):.2f}"
            if what == "detection":
                text = f"{names[int(given.labels[place])]} {float(given.scores[place]):.2f}, {text}"
            marks.append(Mark.of(what, boxes[place], text))
    return tuple(marks)


def give_beside(found: Detections, beside: Iterable[Detections]) -> Detections:
    """These, and those beside them, best first."""
    together = [found, *beside]
    boxes, scores, labels = (
        torch.cat([getattr(each, name) for each in together]) for name in ("boxes", "scores", "labels")
    )
    return Detections(boxes, scores, labels)[scores.argsort(descending=True, stable=True)]
