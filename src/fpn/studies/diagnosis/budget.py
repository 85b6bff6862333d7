"""The error budget: what each stage and each kind of false alarm costs, in points of AP, by class, size and level."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from fpn.evaluation.coco import CocoMetrics, coco_metrics
from fpn.structures import Detections

SIZE_NAMES = ("small", "medium", "large")
# Areas in pixels where COCO's medium and large objects begin.
_MEDIUM_AREA, _LARGE_AREA = 32**2, 96**2


@dataclass(frozen=True)
class BudgetLine:
    """One stage or kind.

    Attributes:
        name, title, meaning, repair: of its `Stage`.
        count: objects lost there, or false alarms of that kind.
        share: of all lost objects, or of all false alarms, 0..1.
        points: AP in points of 100 that it would give back, were it without fault.
        points50: the same of AP at IoU 0.5.
        remedy: what to do.
        by_class, by_size, by_level: count and points of each class, size and pyramid level. Points of a level: of AP
            where objects of other levels are regions to be ignored.
    """

    name: str
    title: str
    meaning: str
    repair: str
    count: int
    share: float
    points: float
    points50: float
    remedy: str
    by_class: Mapping[str, tuple[int, float]]
    by_size: Mapping[str, tuple[int, float]]
    by_level: Mapping[str, tuple[int, float]]

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        parts = {
            kind: {name: {"count": count, "points": points} for name, (count, points) in groups.items()}
            for kind, groups in (("by_class", self.by_class), ("by_size", self.by_size), ("by_level", self.by_level))
        }
        return asdict(self) | parts


def size_name(area: float) -> str:
    """COCO's size of an object of that many pixels."""
    return SIZE_NAMES[(area >= _MEDIUM_AREA) + (area > _LARGE_AREA)]


def coco_rows(image_id: int, found: Detections, ids: Mapping[int, int]) -> np.ndarray:
    """(n, 7) image id, x, y, w, h, score, category id, of the classes that the truth has.

    Args:
        image_id: of the image.
        found: in its pixels.
        ids: detector's label -> category id.
    """
    known = torch.tensor([label in ids for label in found.labels.tolist()], dtype=torch.bool)
    found = found[known]
    rows = np.empty((len(found), 7))
    boxes = found.boxes.double().numpy()
    rows[:, 0], rows[:, 1:3], rows[:, 3:5] = image_id, boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    rows[:, 5], rows[:, 6] = found.scores.numpy(), [ids[label] for label in found.labels.tolist()]
    return rows


def measure_rows(truth: Mapping[str, Any], parts: Sequence[np.ndarray]) -> CocoMetrics:
    """COCO's figures of the rows of all images."""
    return coco_metrics(truth, np.concatenate([np.zeros((0, 7)), *parts]))


def only_level(truth: Mapping[str, Any], levels: Mapping[int, str], level: str) -> dict[str, Any]:
    """The truth in which objects of other levels are to be ignored.

    Args:
        truth: a COCO json.
        levels: level by an annotation's id; others stay as they are.
        level: which one counts.
    """
    records = [
        each if levels.get(each["id"], level) == level else {**each, "iscrowd": 1} for each in truth["annotations"]
    ]
    return {**truth, "annotations": records}


def gains(now: CocoMetrics, then: CocoMetrics) -> dict[str, Any]:
    """Points of AP that `then` has more than `now`, in all, by class and by size; what is not defined is 0."""
    return {
        "points": _points(now.ap, then.ap),
        "points50": _points(now.ap50, then.ap50),
        "by_class": {a.name: _points(a.ap, b.ap) for a, b in zip(now.per_class, then.per_class, strict=False)},
        "by_size": {name: _points(getattr(now, f"ap_{name}"), getattr(then, f"ap_{name}")) for name in SIZE_NAMES},
    }


def _points(now: float, then: float) -> float:
    return 0.0 if now < 0 or then < 0 else 100 * (then - now)


def with_points(counts: Counter[str], points: Mapping[str, float]) -> dict[str, tuple[int, float]]:
    """Count and points of each name that has one."""
    return {name: (counts[name], points.get(name, 0.0)) for name in points if counts[name] or points[name]}
