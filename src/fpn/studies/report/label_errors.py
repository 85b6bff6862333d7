"""Labels that are likely wrong: what the model is sure of, and what they say instead.

How sure is sure is each class's own: the mean score of its right detections (confident learning, Northcutt et al. 2021,
arXiv:1911.00068, section 3.1), but no less than its threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fpn.ops.boxes import pairwise_coverage, pairwise_iou
from fpn.studies.diagnosis.pairing import IGNORED
from fpn.studies.diagnosis.stages import FOUND_IOU
from fpn.studies.report.outcomes import ImageOutcome

# A detection that overlaps an object less is not about it, a label that every detection overlaps less is found by none.
_NEAR = 0.3

KINDS_OF_ERRORS = {
    "unlabelled": "sure detections without a label",
    "unfound": "labels that nothing was found of",
    "swapped": "labels of another class than was found",
}


@dataclass(frozen=True)
class LabelError:
    """One label, or the lack of one, that a person should look at.

    Attributes:
        kind: one of `KINDS_OF_ERRORS`.
        index: the image's number in the dataset.
        image: its path.
        labelled: the label's class; None: there is no label.
        found: what the model says; None: nothing.
        score: of the detection, or None.
        box: xyxy, original pixels.
        suspicion: 0 to 1, to order those of one kind by.
    """

    kind: str
    index: int
    image: str
    labelled: str | None
    found: str | None
    score: float | None
    box: tuple[float, float, float, float]
    suspicion: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "box": [round(value, 2) for value in self.box]}


def find_label_errors(outcomes: Sequence[ImageOutcome], names: Sequence[str]) -> list[LabelError]:
    """All of them, those of a kind together, the likeliest first.

    Args:
        outcomes: all images.
        names: of the classes that are measured.
    """
    sure = _sure_scores(outcomes, len(names))
    noticed = _noticed_shares(outcomes, len(names))
    errors: list[LabelError] = []
    for outcome in outcomes:
        errors += _unlabelled(outcome, names, sure)
        errors += _unfound(outcome, names, noticed)
        errors += _swapped(outcome, names, sure)
    order = list(KINDS_OF_ERRORS)
    return sorted(errors, key=lambda error: (order.index(error.kind), -error.suspicion))


def _sure_scores(outcomes: Sequence[ImageOutcome], classes: int) -> Tensor:
    """Of each class; more than 1 where none of its detections is right."""
    sums, counts = torch.zeros(classes, dtype=torch.float64), torch.zeros(classes, dtype=torch.float64)
    for outcome in outcomes:
        hits = torch.tensor([row >= 0 for row in outcome.matched], dtype=torch.bool)
        right = outcome.sure[hits]
        sums.index_add_(0, right.labels, right.scores)
        counts.index_add_(0, right.labels, torch.ones_like(right.scores))
    return torch.where(counts > 0, sums / counts.clamp(min=1), 2.0)


def _noticed_shares(outcomes: Sequence[ImageOutcome], classes: int) -> Tensor:
    """Share of each class's objects that any detection is about."""
    seen, all_ = torch.zeros(classes), torch.zeros(classes)
    for outcome in outcomes:
        for row in outcome.real:
            label = int(outcome.truth.labels[row])
            all_[label] += 1
            seen[label] += _is_noticed(outcome, row)
    return seen / all_.clamp(min=1)


def _is_noticed(outcome: ImageOutcome, row: int) -> bool:
    return bool((outcome.overlaps[:, row] >= _NEAR).any())


def _unlabelled(outcome: ImageOutcome, names: Sequence[str], sure: Tensor) -> list[LabelError]:
    """Sure detections that are about no object; of several in one place the surest."""
    found, kept = outcome.sure, torch.zeros(0, 4)
    errors = []
    inside = pairwise_coverage(found.boxes, outcome.truth.boxes)
    for number, (row, label) in enumerate(zip(outcome.matched, found.labels.tolist(), strict=True)):
        box = found.boxes[number]
        overlaps = outcome.overlaps[outcome.counted[number]]
        if row == IGNORED or found.scores[number] < sure[label] or bool((overlaps >= _NEAR).any()):
            continue
        if bool((inside[number][outcome.truth.ignore] >= FOUND_IOU).any()):
            continue
        if len(kept) and bool((pairwise_iou(box[None], kept) >= FOUND_IOU).any()):
            continue
        kept = torch.cat([kept, box[None]])
        score = float(found.scores[number])
        errors.append(_error(outcome, "unlabelled", None, names[label], score, box, score))
    return errors


def _unfound(outcome: ImageOutcome, names: Sequence[str], noticed: Tensor) -> list[LabelError]:
    """Objects that no detection of any class and score is about; the likelier, the more of its class are noticed."""
    errors = []
    for row in outcome.real:
        if not _is_noticed(outcome, row):
            label = int(outcome.truth.labels[row])
            suspicion = float(noticed[label])
            errors.append(_error(outcome, "unfound", names[label], None, None, outcome.truth.boxes[row], suspicion))
    return errors


def _swapped(outcome: ImageOutcome, names: Sequence[str], sure: Tensor) -> list[LabelError]:
    """Objects that a sure detection of another class covers by half, and no detection of their own is as sure."""
    errors = []
    found = outcome.found
    for row in outcome.missed:
        label = int(outcome.truth.labels[row])
        reach = outcome.overlaps[:, row] >= FOUND_IOU
        other = reach & (found.labels != label) & (found.scores >= sure[found.labels])
        if not bool(other.any()):
            continue
        place = int(other.nonzero()[0, 0])  # best first
        own = found.scores[reach & (found.labels == label)]
        suspicion = float(found.scores[place]) - float(own.max() if len(own) else 0.0)
        if suspicion > 0 and not _belongs_elsewhere(outcome, place, row):
            said = names[int(found.labels[place])]
            score, box = float(found.scores[place]), outcome.truth.boxes[row]
            errors.append(_error(outcome, "swapped", names[label], said, score, box, suspicion))
    return errors


def _belongs_elsewhere(outcome: ImageOutcome, place: int, row: int) -> bool:
    """Whether that detection found an object of its own class, which lies there, too."""
    at = (outcome.counted == place).nonzero()
    return bool(len(at)) and outcome.matched[int(at[0, 0])] not in (-1, row)


def _error(
    outcome: ImageOutcome,
    kind: str,
    labelled: str | None,
    found: str | None,
    score: float | None,
    box: Tensor,
    suspicion: float,
) -> LabelError:
    x1, y1, x2, y2 = box.tolist()
    return LabelError(kind, outcome.index, outcome.path, labelled, found, score, (x1, y1, x2, y2), suspicion)
