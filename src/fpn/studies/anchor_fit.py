"""Which objects no anchor fits, level by level, and which anchors and image size would.

An anchor learns an object if their IoU reaches the dialect's upper threshold; each object's best anchor does in any
case, but one that overlaps with less than the lower threshold starts from nearly nothing. Anchors of one shape stand on
a grid, so that the best of a shape is the one whose centre is nearest: no grid has to be drawn, and a million objects
take seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from fpn.data.checks.inspection import Inspected
from fpn.data.issues import Finding
from fpn.detectors.dialect import Dialect
from fpn.ops.anchors import cell_anchors

# Objects that a suggestion is looked for with; its effect is then told for all.
_SAMPLE = 4000
# What a change costs, as a part of the objects that it must win at least: first ratios and sizes, then the image.
_COST_RATIOS, _COST_SIZES, _COST_SIDE = 0.002, 0.002, 0.02
_SIZE_STEPS = (1.0, 0.71, 0.5, 0.35, 0.25, 1.41, 2.0)
_STRETCHES = (0.5, 0.35, 0.25)
_SIDE_STEPS = (1.0, 1.25, 1.5, 2.0)


@dataclass(frozen=True)
class Boxes:
    """Objects of many images: (M, 4) xyxy in original pixels, and (M, 2) height and width of their images."""

    boxes: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class Fit:
    """How well anchors fit.

    Attributes:
        iou: (M,) of each object with its best anchor.
        level: (M,) which level that one is on, from 0 as the finest.
        sides: (M, 2) width and height of each object in network pixels.
    """

    iou: np.ndarray
    level: np.ndarray
    sides: np.ndarray


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

    dialect: Dialect
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


def fit_dataset(inspected: Inspected, dialect: Dialect) -> AnchorFit:
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
    unreached = fit.iou < dialect.rpn.sampling.negative_iou
    return AnchorFit(
        dialect=dialect,
        objects=len(together),
        levels=[_level(number, fit, dialect) for number in range(len(dialect.anchors.sizes))],
        unreached=int(unreached.sum()),
        suggestion=_suggest(together, dialect) if unreached.any() else None,
        findings=list(_tell(inspected, numbers, fit, unreached, dialect)),
    )


def _usable(objects: Any) -> np.ndarray:
    """Numbers of objects with a box in an image of known size."""
    sides = objects.cut[:, 2:] - objects.cut[:, :2]
    known = objects.measured & np.isfinite(objects.sizes).all(axis=1) & (sides > 0).all(axis=1)
    return np.flatnonzero(known & ~objects.ignore)


def fit_anchors(objects: Boxes, dialect: Dialect) -> Fit:
    """The best anchor of each object."""
    scaled, extents = _in_network(objects, dialect)
    best = np.zeros(len(objects))
    level = np.zeros(len(objects), dtype=np.int64)
    for number, sizes in enumerate(dialect.anchors.sizes):
        iou = _best_on_level(scaled, extents, stride_of(number, dialect), sizes, dialect)
        # The first of equals is the finer one.
        level[iou > best] = number
        best = np.maximum(best, iou)
    return Fit(best, level, scaled[:, 2:] - scaled[:, :2])


def stride_of(number: int, dialect: Dialect) -> int:
    """Pixels between the anchors of a level."""
    if isinstance(dialect.anchors.strides, tuple):
        return dialect.anchors.strides[number]
    return int(2 ** (dialect.neck.finest_level + number))


def _in_network(objects: Boxes, dialect: Dialect) -> tuple[np.ndarray, np.ndarray]:
    """(M, 4) boxes in network pixels, and (M, 2) width and height of their images there."""
    sizes = np.maximum(objects.sizes, 1)
    scale = dialect.pixels.short_side / sizes.min(axis=1)
    if dialect.pixels.long_side is not None:
        scale = np.minimum(scale, dialect.pixels.long_side / sizes.max(axis=1))
    return objects.boxes * scale[:, None], sizes[:, ::-1] * scale[:, None]


def _best_on_level(
    boxes: np.ndarray, extents: np.ndarray, stride: int, sizes: Sequence[float], dialect: Dialect
) -> np.ndarray:
    cell = cell_anchors(
        sizes,
        dialect.anchors.ratios,
        ratio=dialect.anchors.ratio,
        rounded=dialect.anchors.rounded,
        order=dialect.anchors.order,
    ).numpy()
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    last = np.maximum(np.ceil(extents / stride) - 1, 0)
    best = np.zeros(len(boxes))
    for anchor in cell.astype(np.float64):
        middle = (anchor[:2] + anchor[2:]) / 2
        place = np.clip(np.round((centres - middle) / stride - dialect.anchors.offset), 0, last)
        shift = (place + dialect.anchors.offset) * stride
        best = np.maximum(best, _iou(boxes, np.concatenate((shift + anchor[:2], shift + anchor[2:]), axis=1)))
    return best


def _iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    shared = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    shared = np.clip(shared, 0, None).prod(axis=1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, other)]
    return np.asarray(shared / (areas[0] + areas[1] - shared))


def _level(number: int, fit: Fit, dialect: Dialect) -> dict[str, Any]:
    iou = fit.iou[fit.level == number]
    low, high = dialect.rpn.sampling.negative_iou, dialect.rpn.sampling.positive_iou
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
    inspected: Inspected, numbers: Mapping[str, np.ndarray], fit: Fit, unreached: np.ndarray, dialect: Dialect
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


def _suggest(objects: Boxes, dialect: Dialect) -> dict[str, Any] | None:
    """The cheapest change of anchors and image size after which fewest objects are unreached."""
    sample = _sample(objects)
    least, best = _unreached(sample, dialect) / len(sample), dialect
    for (ratios, cost_r), (sizes, cost_s), (side, cost_p) in product(
        _ratio_choices(sample, dialect), _size_choices(dialect), _side_choices(dialect)
    ):
        changed = dialect.changed(
            anchors={"ratios": ratios, "sizes": sizes}, pixels={"short_side": side[0], "long_side": side[1]}
        )
        cost = cost_r + cost_s + cost_p + _unreached(sample, changed) / len(sample)
        if cost < least - 1e-9:
            least, best = cost, changed
    if best is dialect:
        return None
    return {
        "anchor_sizes": [list(sizes) for sizes in best.anchors.sizes],
        "anchor_ratios": list(best.anchors.ratios),
        "short_side": best.pixels.short_side,
        "long_side": best.pixels.long_side,
        "unreached": _unreached(objects, best),
    }


def _sample(objects: Boxes) -> Boxes:
    step = max(1, len(objects) // _SAMPLE)
    return Boxes(objects.boxes[::step], objects.sizes[::step])


def _unreached(objects: Boxes, dialect: Dialect) -> int:
    return int((fit_anchors(objects, dialect).iou < dialect.rpn.sampling.negative_iou).sum())


def _ratio_choices(objects: Boxes, dialect: Dialect) -> list[tuple[tuple[float, ...], float]]:
    """The ratios there are, and the data's own: three or five that part its objects evenly."""
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    ratios = sides[:, 1] / sides[:, 0] if dialect.anchors.ratio == "height/width" else sides[:, 0] / sides[:, 1]
    own = [
        tuple(sorted({float(f"{value:.2g}") for value in np.percentile(ratios, percents)}))
        for percents in ((5, 50, 95), (2, 20, 50, 80, 98))
    ]
    return [(dialect.anchors.ratios, 0.0), (own[0], _COST_RATIOS), (own[1], 2 * _COST_RATIOS)]


def _size_choices(dialect: Dialect) -> list[tuple[tuple[tuple[float, ...], ...], float]]:
    """The sizes there are; all made smaller or larger; or only the finer ones smaller, the more the finer."""
    last = len(dialect.anchors.sizes) - 1
    steps = [[step] * (last + 1) for step in _SIZE_STEPS]
    steps += [[finest ** ((last - level) / max(last, 1)) for level in range(last + 1)] for finest in _STRETCHES]
    return [
        (
            tuple(
                tuple(float(round(size * step)) for size in sizes)
                for sizes, step in zip(dialect.anchors.sizes, each, strict=True)
            ),
            0.0 if set(each) == {1.0} else _COST_SIZES,
        )
        for each in steps
    ]


def _side_choices(dialect: Dialect) -> list[tuple[tuple[int, int | None], float]]:
    """Short and long side as they are, and larger."""
    return [
        (
            (
                round(dialect.pixels.short_side * step),
                None if dialect.pixels.long_side is None else round(dialect.pixels.long_side * step),
            ),
            _COST_SIDE * (step - 1) * 2,
        )
        for step in _SIDE_STEPS
    ]
