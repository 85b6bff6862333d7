"""Boxes in themselves: over the edge, tiny, given twice. All objects at once, so that a million take seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fpn.data.checks.images import ImageInfo
from fpn.data.formats.survey import Survey, names_of
from fpn.data.formats.table_builder import QUIET_FRACTION, QUIET_PIXELS, invalid_boxes, kind_of_invalid, why_invalid
from fpn.data.issues import Finding

TINY_PIXELS = 2.0
# Two annotators who draw the same object agree to 0.8 or so; 0.9 is the same box, drawn or written twice.
SAME_OBJECT = 0.9
SAME_BOX = 0.95
# Neighbours from left to right that are compared: a bound on the time that thousands of boxes in one column take.
_REACH = 256


@dataclass(frozen=True)
class Objects:
    """The M objects of a split, in pixels.

    Attributes:
        boxes: (M, 4) float32 xyxy, as written.
        cut: (M, 4) the same, cut at the image's edge.
        owner: (M,) number of the image.
        labels: (M,).
        ignore: (M,) bool.
        sizes: (M, 2) height and width of the image; infinite where not known.
        measured: (M,) bool: boxes are in pixels indeed. False for fractions of an image that can't be read.
    """

    boxes: np.ndarray
    cut: np.ndarray
    owner: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    sizes: np.ndarray
    measured: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def gather_objects(survey: Survey, infos: Sequence[ImageInfo]) -> Objects:
    """The objects of a split whose images look like this."""
    table = survey.dataset.table
    said = table.sizes.numpy().astype(np.float32)
    seen = np.array([info.size for info in infos], dtype=np.float32).reshape(-1, 2)
    sizes = np.where(said > 0, said, np.where(seen > 0, seen, np.float32(np.inf)))
    owner = np.repeat(np.arange(len(infos)), np.diff(table.starts.numpy()))
    boxes, measured = survey.boxes, np.ones(len(owner), dtype=bool)
    if table.fractions:
        scale = np.where(np.isfinite(sizes), sizes, 1)[owner]
        measured = np.isfinite(sizes[owner, 0])
        boxes = boxes * np.concatenate((scale[:, ::-1], scale[:, ::-1]), axis=1)
        sizes = np.where(np.isfinite(sizes), sizes, 1)
    bounds = np.concatenate((sizes[:, ::-1], sizes[:, ::-1]), axis=1)[owner]
    return Objects(
        boxes=boxes,
        cut=np.clip(boxes, 0, bounds),
        owner=owner,
        labels=table.labels.numpy(),
        ignore=table.ignore.numpy(),
        sizes=sizes[owner],
        measured=measured,
    )


def check_crowding(survey: Survey, objects: Objects, limit: int) -> Iterator[Finding]:
    """Images with more objects than `limit`, the most detections of a model; ignored ones are not counted."""
    counts = np.bincount(objects.owner[~objects.ignore], minlength=len(survey.dataset))
    paths = names_of(survey)
    for row in np.flatnonzero(counts > limit).tolist():
        yield Finding("objects-many", f"{paths[row]} has {counts[row]} objects, a model gives {limit}", paths[row])


def check_boxes(survey: Survey, objects: Objects) -> Iterator[Finding]:
    """Everything that can be said of boxes which the reader let pass."""
    paths = names_of(survey)
    for number in np.flatnonzero(invalid(objects)).tolist():
        box, bounds = objects.boxes[number], objects.sizes[number][::-1]
        where = f"{survey.called(number)} has box {_shown(box)}: {why_invalid(box, bounds, False)}"
        yield Finding(kind_of_invalid(box), where, paths[objects.owner[number]])
    for number in np.flatnonzero(over_edge(survey, objects)).tolist():
        height, width = objects.sizes[number]
        where = f"{survey.called(number)} has box {_shown(objects.boxes[number])} in {width:.0f} x {height:.0f}"
        yield Finding("box-over-edge", where, paths[objects.owner[number]])
    sides = objects.cut[:, 2:] - objects.cut[:, :2]
    tiny = (sides.min(axis=1, initial=np.inf) < TINY_PIXELS) & objects.measured & ~invalid(objects)
    for number in np.flatnonzero(tiny).tolist():
        width, height = sides[number]
        where = f"{survey.called(number)} is {width:.3g} x {height:.3g} pixels"
        yield Finding("box-tiny", where, paths[objects.owner[number]])
    for kind, pairs in (("box-repeated", repeated(objects)), ("box-contradicted", contradicted(objects))):
        for first, second in pairs.tolist():
            where = f"{survey.called(second)} has the same box as {_short(survey, first)}"
            yield Finding(kind, where, paths[objects.owner[first]])


def invalid(objects: Objects) -> np.ndarray:
    """(M,) bool: wholly outside of an image whose size the annotation did not say."""
    return invalid_boxes(objects.boxes, objects.sizes[:, ::-1])


def over_edge(survey: Survey, objects: Objects) -> np.ndarray:
    """(M,) bool: reaches out of its image by more than rounding does, yet not wholly."""
    beyond = np.abs(objects.boxes - objects.cut)
    quiet: Any = QUIET_PIXELS
    if survey.dataset.table.fractions:
        quiet = QUIET_FRACTION * np.concatenate((objects.sizes[:, ::-1], objects.sizes[:, ::-1]), axis=1)
    return np.asarray((beyond > quiet).any(axis=1) & ~invalid(objects))


def repeated(objects: Objects) -> np.ndarray:
    """(P, 2) numbers of two objects of an image with the same class and nearly the same box."""
    pairs, iou = _overlapping(objects)
    same = objects.labels[pairs[:, 0]] == objects.labels[pairs[:, 1]]
    return np.asarray(pairs[same & (iou >= SAME_OBJECT)])


def contradicted(objects: Objects) -> np.ndarray:
    """(P, 2) numbers of two objects of an image with the same box and different classes."""
    pairs, iou = _overlapping(objects)
    differ = objects.labels[pairs[:, 0]] != objects.labels[pairs[:, 1]]
    return np.asarray(pairs[differ & (iou >= SAME_BOX)])


def _overlapping(objects: Objects) -> tuple[np.ndarray, np.ndarray]:
    """Ascending pairs of one image with an IoU of at least SAME_OBJECT, and their IoUs. Crowds are left out."""
    real = np.flatnonzero(~objects.ignore)
    boxes = objects.cut[real].astype(np.float64)
    # Equal boxes side by side, whatever else is there: image first, then from left to right.
    order = np.lexsort((boxes[:, 3], boxes[:, 1], boxes[:, 2], boxes[:, 0], objects.owner[real]))
    boxes, owner, numbers = boxes[order], objects.owner[real][order], real[order]
    # IoU >= 0.9 keeps left edges within 0.112 of the width.
    near = 0.12 * (boxes[:, 2] - boxes[:, 0])
    pairs, ious = [np.zeros((0, 2), dtype=np.int64)], [np.zeros(0)]
    candidates = np.arange(len(order))
    for step in range(1, _REACH + 1):
        candidates = candidates[candidates + step < len(order)]
        others = candidates + step
        reach = (owner[candidates] == owner[others]) & (boxes[others, 0] - boxes[candidates, 0] <= near[candidates])
        candidates, others = candidates[reach], others[reach]
        if not len(candidates):
            break
        iou = _paired_iou(boxes[candidates], boxes[others])
        same = iou >= SAME_OBJECT
        pairs.append(np.sort(np.stack((numbers[candidates[same]], numbers[others[same]]), axis=1), axis=1))
        ious.append(iou[same])
    return np.concatenate(pairs), np.concatenate(ious)


def _paired_iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    shared = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    shared = np.clip(shared, 0, None).prod(axis=1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, other)]
    return np.asarray(shared / np.maximum(areas[0] + areas[1] - shared, 1e-12))


def _short(survey: Survey, number: int) -> str:
    """An object without its file, which stands before."""
    return survey.called(number).split(": ", 1)[-1]


def _shown(box: np.ndarray) -> str:
    return f"({', '.join(f'{value:.6g}' for value in box)})"
