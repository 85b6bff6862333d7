"""Which objects no anchor fits, level by level, and which anchors and image size would.

An anchor learns an object if their IoU reaches the dialect's upper threshold; each object's best anchor does in any
case, but one that overlaps with less than the lower threshold starts from nearly nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fpn.data.checks.inspection import Inspected
from fpn.data.issues import Finding
from fpn.detectors.anchor_reach import Boxes, Fit, fit_anchors, stride_of, suggest_anchors, thresholds_of
from fpn.detectors.dialect import AnchorDialect


@dataclass(frozen=True)
class AnchorFit:
    """What a dialect's anchors reach, and what would reach more.

    Attributes:
        dialect: whose anchors.
        objects: how many there are, crowds not counted.
        levels: for each level its anchors and how many objects have their best anchor there, how well.
        unreached: objects whose best anchor overlaps with less than the lower threshold.
        suggestion: changed conventions and `unreached` with them; None if nothing has to be changed or would help.
        findings: one for each unreached object.
    """

    dialect: AnchorDialect
    objects: int
    levels: Sequence[Mapping[str, Any]]
    unreached: int
    suggestion: Mapping[str, Any] | None
    findings: Sequence[Finding]

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return {
            "anchor_sizes": [list(sizes) for sizes in self.dialect.anchors.sizes],
            "anchor_ratios": list(self.dialect.anchors.ratios),
            "short_side": self.dialect.pixels.short_side,
            "long_side": self.dialect.pixels.long_side,
            "objects": self.objects,
            "unreached": self.unreached,
            "levels": list(self.levels),
            "suggestion": self.suggestion,
        }


def fit_dataset(inspected: Inspected, dialect: AnchorDialect) -> AnchorFit:
    """Fit a dialect's anchors to all objects of a dataset.

    Args:
        inspected: a dataset that was checked; broken boxes and crowds are left out.
        dialect: with the anchors and image size that training will use.
    """
    numbers = {split: _usable(objects) for split, objects in inspected.objects.items()}
    together = Boxes(
        np.concatenate([np.zeros((0, 4)), *(each.cut[numbers[split]] for split, each in inspected.objects.items())]),
        np.concatenate([np.zeros((0, 2)), *(each.sizes[numbers[split]] for split, each in inspected.objects.items())]),
    )
    fit = fit_anchors(together, dialect)
    unreached = fit.iou < thresholds_of(dialect)[0]
    return AnchorFit(
        dialect=dialect,
        objects=len(together),
        levels=[_level(number, fit, dialect) for number in range(len(dialect.anchors.sizes))],
        unreached=int(unreached.sum()),
        suggestion=suggest_anchors(together, dialect) if unreached.any() else None,
        findings=list(_tell(inspected, numbers, fit, unreached, dialect)),
    )


def _usable(objects: Any) -> np.ndarray:
    """Numbers of objects with a box in an image of known size."""
    sides = objects.cut[:, 2:] - objects.cut[:, :2]
    known = objects.measured & np.isfinite(objects.sizes).all(axis=1) & (sides > 0).all(axis=1)
    return np.flatnonzero(known & ~objects.ignore)


def _level(number: int, fit: Fit, dialect: AnchorDialect) -> dict[str, Any]:
    iou = fit.iou[fit.level == number]
    low, high = thresholds_of(dialect)
    return {
        "level": f"p{dialect.neck.finest_level + number}",
        "stride": stride_of(number, dialect),
        "sizes": list(dialect.anchors.sizes[number]),
        "objects": len(iou),
        "well": int((iou >= high).sum()),
        "fairly": int(((iou >= low) & (iou < high)).sum()),
        "not": int((iou < low).sum()),
    }


def _tell(
    inspected: Inspected, numbers: Mapping[str, np.ndarray], fit: Fit, unreached: np.ndarray, dialect: AnchorDialect
) -> Iterator[Finding]:
    start = 0
    for split, mine in numbers.items():
        survey, owner = inspected.splits[split], inspected.objects[split].owner
        for place in np.flatnonzero(unreached[start : start + len(mine)]).tolist():
            width, height = fit.sides[start + place]
            level = f"p{dialect.neck.finest_level + int(fit.level[start + place])}"
            where = f"{survey.called(int(mine[place]))} is {width:.0f} x {height:.0f} in the network"
            message = f"{where}, the best anchor (IoU {fit.iou[start + place]:.2f}) is on {level}"
            yield Finding("anchor-unreached", message, survey.name_of(int(owner[mine[place]])))
        start += len(mine)
