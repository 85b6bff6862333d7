"""What is wrong with a detection that found no object: TIDE's kinds.

Source: Bolya et al. 2020, arXiv:2008.08115, section 2.2: thresholds 0.5 and 0.1, and what each kind's repair is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fpn.ops.boxes import pairwise_iou
from fpn.structures import Detections, Targets
from fpn.studies.diagnosis.pairing import NOTHING
from fpn.studies.diagnosis.stages import FOUND_IOU, Stage

_BACKGROUND_IOU = 0.1

_REMOVED = "it is taken away"
FALSE_KINDS = (
    Stage(
        "classification",
        "wrong class",
        "it reaches an object of another class",
        "it gets that class, or is taken away where that object is found already",
    ),
    Stage(
        "localisation",
        "poor box",
        "it overlaps an object of its class with IoU 0.1 to 0.5",
        "it gets that object's box, or is taken away where that object is found already",
    ),
    Stage("both", "wrong class and poor box", "it overlaps an object of another class with 0.1 to 0.5", _REMOVED),
    Stage("duplicate", "found twice", "it reaches an object that a surer one found", _REMOVED),
    Stage("background", "background", "it overlaps no object with more than 0.1", _REMOVED),
)
MISSED = Stage(
    "missed",
    "objects missed altogether",
    "an object that no wrong class and no poor box is about",
    "the object does not count",
)


@dataclass(frozen=True)
class Alarm:
    """A detection that found no object.

    Attributes:
        number: its place among those of the image.
        kind: name of one of `FALSE_KINDS`.
        row: the object that it is about; -1: none.
    """

    number: int
    kind: str
    row: int


def sort_alarms(found: Detections, matched: torch.Tensor, truth: Targets) -> list[Alarm]:
    """The kind of each detection that found nothing; one in an ignored region is none.

    Args:
        found: of one image, best first.
        matched: what `pair` says of them.
        truth: in the same pixels.
    """
    rows = (~truth.ignore).nonzero().squeeze(1)
    iou = pairwise_iou(found.boxes, truth.boxes[rows]).cpu()
    same = (found.labels[:, None] == truth.labels[rows]).cpu()
    places = rows.tolist()
    alarms = []
    for number in (matched == NOTHING).nonzero().squeeze(1).tolist():
        kind, place = _kind(iou[number], same[number])
        alarms.append(Alarm(number, kind, -1 if place is None else places[place]))
    return alarms


def _kind(iou: torch.Tensor, same: torch.Tensor) -> tuple[str, int | None]:
    """One detection's kind, and the object that it is about by its place; in TIDE's order."""
    if len(iou) == 0:
        return "background", None
    own, other = iou.where(same, 0.0), iou.where(~same, 0.0)
    if _BACKGROUND_IOU <= float(own.max()) < FOUND_IOU:
        return "localisation", int(own.argmax())
    if float(other.max()) >= FOUND_IOU:
        return "classification", int(other.argmax())
    if float(own.max()) >= FOUND_IOU:
        return "duplicate", int(own.argmax())
    if float(iou.max()) < _BACKGROUND_IOU:
        return "background", None
    return "both", int(other.argmax())


def without_fault(
    found: Detections, matched: torch.Tensor, truth: Targets, alarms: Sequence[Alarm], kind: str
) -> Detections:
    """The detections as they would be without faults of one kind."""
    boxes, labels = found.boxes.clone(), found.labels.clone()
    kept = torch.ones(len(found), dtype=torch.bool, device=boxes.device)
    taken = set(matched.tolist())
    for alarm in alarms:
        if alarm.kind != kind:
            continue
        if kind not in ("classification", "localisation") or alarm.row in taken:
            kept[alarm.number] = False
            continue
        taken.add(alarm.row)
        boxes[alarm.number], labels[alarm.number] = truth.boxes[alarm.row], truth.labels[alarm.row]
    return Detections(boxes[kept], found.scores[kept], labels[kept])
