"""Which objects anchors reach, and which anchors and image size would reach more: arithmetic, no detector is built.

Anchors of one shape stand on a grid, so that the best of a shape is the one whose centre is nearest: no grid has to be
drawn, and a million objects take seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from fpn.detectors.dialect import AnchorDialect, Dialect
from fpn.errors import ConfigError
from fpn.ops.anchors import cell_anchors

# Objects that a suggestion is looked for with; its effect is then told for all.
_SAMPLE = 4000
# What a change costs, as a part of the objects that it must win at least: first ratios and sizes, then the image.
_COST_RATIOS, _COST_SIZES, _COST_SIDE = 0.002, 0.002, 0.02
_SIZE_STEPS = (1.0, 0.71, 0.5, 0.35, 0.25, 1.41, 2.0)
_STRETCHES = (0.5, 0.35, 0.25)
SIDE_STEPS = (1.0, 1.25, 1.5, 2.0)


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


def fit_anchors(objects: Boxes, dialect: AnchorDialect) -> Fit:
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


def stride_of(number: int, dialect: AnchorDialect) -> int:
    """Pixels between the anchors of a level."""
    if isinstance(dialect.anchors.strides, tuple):
        return dialect.anchors.strides[number]
    return int(2 ** (dialect.neck.finest_level + number))


def _in_network(objects: Boxes, dialect: AnchorDialect) -> tuple[np.ndarray, np.ndarray]:
    """(M, 4) boxes in network pixels, and (M, 2) width and height of their images there."""
    sizes = np.maximum(objects.sizes, 1)
    scale = dialect.pixels.short_side / sizes.min(axis=1)
    if dialect.pixels.long_side is not None:
        scale = np.minimum(scale, dialect.pixels.long_side / sizes.max(axis=1))
    return objects.boxes * scale[:, None], sizes[:, ::-1] * scale[:, None]


def _best_on_level(
    boxes: np.ndarray, extents: np.ndarray, stride: int, sizes: Sequence[float], dialect: AnchorDialect
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


def suggest_anchors(
    objects: Boxes, dialect: AnchorDialect, *, sides: Sequence[float] = SIDE_STEPS
) -> dict[str, Any] | None:
    """The cheapest change of anchors and image size after which fewest objects are unreached.

    Args:
        objects: at least one.
        dialect: what is changed.
        sides: factors of the image's sides that are tried.

    Returns:
        Changed conventions, and `unreached` with them; None if nothing helps.
    """
    sample = _sample(objects)
    least, best = count_unreached(sample, dialect) / len(sample), dialect
    for (ratios, cost_r), (sizes, cost_s), (side, cost_p) in product(
        _ratio_choices(sample, dialect), _size_choices(dialect), _side_choices(dialect, sides)
    ):
        changed = dialect.changed(
            anchors={"ratios": ratios, "sizes": sizes}, pixels={"short_side": side[0], "long_side": side[1]}
        )
        cost = cost_r + cost_s + cost_p + count_unreached(sample, changed) / len(sample)
        if cost < least - 1e-9:
            least, best = cost, changed
    if best is dialect:
        return None
    return {
        "anchor_sizes": [list(sizes) for sizes in best.anchors.sizes],
        "anchor_ratios": list(best.anchors.ratios),
        "short_side": best.pixels.short_side,
        "long_side": best.pixels.long_side,
        "unreached": count_unreached(objects, best),
    }


def _sample(objects: Boxes) -> Boxes:
    step = max(1, len(objects) // _SAMPLE)
    return Boxes(objects.boxes[::step], objects.sizes[::step])


def count_unreached(objects: Boxes, dialect: AnchorDialect) -> int:
    """Objects whose best anchor overlaps with less than the lower threshold."""
    return int((fit_anchors(objects, dialect).iou < thresholds_of(dialect)[0]).sum())


def thresholds_of(dialect: Dialect) -> tuple[float, float]:
    """Below which IoU an anchor is background, and from which on it is an object's.

    Raises:
        ConfigError: IoU with anchors does not decide what the detector learns.
    """
    if dialect.anchor_ious is None:
        raise ConfigError(f"{dialect.name}: no fixed IoU with an anchor decides what this kind of detector learns")
    return dialect.anchor_ious


def _ratio_choices(objects: Boxes, dialect: AnchorDialect) -> list[tuple[tuple[float, ...], float]]:
    """The ratios there are, and the data's own: three or five that part its objects evenly."""
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    ratios = sides[:, 1] / sides[:, 0] if dialect.anchors.ratio == "height/width" else sides[:, 0] / sides[:, 1]
    own = [
        tuple(sorted({float(f"{value:.2g}") for value in np.percentile(ratios, percents)}))
        for percents in ((5, 50, 95), (2, 20, 50, 80, 98))
    ]
    return [(dialect.anchors.ratios, 0.0), (own[0], _COST_RATIOS), (own[1], 2 * _COST_RATIOS)]


def _size_choices(dialect: AnchorDialect) -> list[tuple[tuple[tuple[float, ...], ...], float]]:
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


def _side_choices(dialect: AnchorDialect, steps: Sequence[float]) -> list[tuple[tuple[int, int | None], float]]:
    """Short and long side as they are, and larger."""
    return [
        (
            (
                round(dialect.pixels.short_side * step),
                None if dialect.pixels.long_side is None else round(dialect.pixels.long_side * step),
            ),
            _COST_SIDE * (step - 1) * 2,
        )
        for step in steps
    ]
