"""Image by image: which of the counted detections found which object, and what stands beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fpn.data.dataset import Dataset
from fpn.ops.boxes import pairwise_iou, xywh_to_xyxy
from fpn.shapes import Size
from fpn.structures import Detections, Masks, Targets
from fpn.studies.diagnosis.pairing import IGNORED, NOTHING, pair
from fpn.studies.diagnosis.stages import FOUND_IOU


@dataclass(frozen=True)
class ImageOutcome:
    """One image at the thresholds in use; labels are places among the classes that are measured.

    Attributes:
        index: the image's number in the dataset.
        image_id: its id there.
        path: its path within the dataset's folder.
        truth: original pixels; with masks and keypoints where detections have them.
        areas: of the objects, as COCO counts sizes.
        found: all detections, best first.
        counted: (n,) places of those that reach their class's threshold, best first.
        matched: of each of them the object that it found, or `NOTHING`, or `IGNORED`.
        taken: of each of them that found nothing, the object of another class that it covers by half and that nothing
            else found; else -1.
    """

    index: int
    image_id: int
    path: str
    truth: Targets
    areas: tuple[float, ...]
    found: Detections
    counted: Int[Tensor, " c"]
    matched: tuple[int, ...]
    taken: tuple[int, ...]

    @cached_property
    def overlaps(self) -> Float[Tensor, "n m"]:
        """IoU of all detections with all objects."""
        return pairwise_iou(self.found.boxes, self.truth.boxes)

    @property
    def sure(self) -> Detections:
        """The detections that count."""
        return self.found[self.counted]

    @cached_property
    def real(self) -> tuple[int, ...]:
        """Rows of the objects that are not to be ignored."""
        return tuple((~self.truth.ignore).nonzero().squeeze(1).tolist())

    @property
    def missed(self) -> list[int]:
        """Rows of the objects that no counted detection of their class found."""
        found = set(self.matched)
        return [row for row in self.real if row not in found]

    @property
    def right(self) -> int:
        """How many detections found an object."""
        return sum(row >= 0 for row in self.matched)

    @property
    def wrong(self) -> int:
        """How many found nothing and count."""
        return sum(row == NOTHING for row in self.matched)


def judge_images(
    dataset: Dataset,
    truth: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    thresholds: Mapping[str, float],
) -> list[ImageOutcome]:
    """Every image of a dataset, in its order.

    Args:
        dataset: whose images could be read.
        truth: what is measured of it, as a COCO json.
        records: COCO results, as `fpn.evaluate` gives them.
        thresholds: class -> score.
    """
    names = [each["name"] for each in truth["categories"]]
    places = {each["id"]: place for place, each in enumerate(truth["categories"])}
    renamed = torch.tensor([names.index(name) if name in names else -1 for name in dataset.classes.names])
    limits = torch.tensor([thresholds[name] for name in names], dtype=torch.float64)
    by_image: dict[int, list[Mapping[str, Any]]] = {}
    for record in records:
        by_image.setdefault(record["image_id"], []).append(record)
    files = {each["id"]: str(each["file_name"]) for each in truth["images"]}
    outlined, pointed = (any(name in record for record in records) for name in ("segmentation", "keypoints"))
    outcomes = []
    for index in range(len(dataset)):
        labelled = dataset.targets(index, masks=outlined)
        labels = renamed[labelled.labels]
        points = labelled.keypoints if pointed else None
        objects = replace(labelled, labels=labels, keypoints=points)[labels >= 0]
        areas = [each["area"] for each in dataset.annotations(index) if each["category_id"] in places]
        image_id = dataset.image_id(index)
        found = _detections(by_image.get(image_id, []), places, dataset.size(index))
        matched, counted, taken = _judge(objects, found, limits)
        outcomes.append(
            ImageOutcome(index, image_id, files[image_id], objects, tuple(areas), found, counted, matched, taken)
        )
    return outcomes


def _detections(records: Sequence[Mapping[str, Any]], places: Mapping[int, int], size: Size) -> Detections:
    records = sorted(records, key=lambda record: -record["score"])
    boxes = torch.tensor([record["bbox"] for record in records], dtype=torch.float64).reshape(-1, 4)
    scores = torch.tensor([record["score"] for record in records], dtype=torch.float64)
    labels = torch.tensor([places[record["category_id"]] for record in records], dtype=torch.int64)
    masks = [record["segmentation"] for record in records if "segmentation" in record]
    points = [record["keypoints"] for record in records if "keypoints" in record]
    return Detections(
        xywh_to_xyxy(boxes).float(),
        scores,
        labels,
        masks=Masks.from_coco(masks, size) if masks else None,
        keypoints=torch.tensor(points).reshape(len(points), -1, 3) if points else None,
    )


def _judge(truth: Targets, found: Detections, limits: Tensor) -> tuple[tuple[int, ...], Tensor, tuple[int, ...]]:
    """What `ImageOutcome` calls matched, counted and taken."""
    counted = (found.scores >= limits[found.labels]).nonzero().squeeze(1)
    sure = found[counted]
    matched = pair(sure, truth)
    return tuple(matched.tolist()), counted, tuple(_taken(sure, truth, matched))


def _taken(sure: Detections, truth: Targets, matched: Tensor) -> list[int]:
    """Each object that nothing found goes to the surest detection of another class that covers it best."""
    free = ~truth.ignore
    free[matched[matched >= 0]] = False
    overlaps = pairwise_iou(sure.boxes, truth.boxes).where(free, -1.0)
    taken = [-1] * len(sure)
    for number in (matched == NOTHING).nonzero().squeeze(1).tolist():
        if overlaps.shape[1] == 0:
            break
        best, row = overlaps[number].max(dim=0)
        if best >= FOUND_IOU:
            taken[number] = int(row)
            overlaps[:, row] = -1.0
    return taken


def confusion(outcomes: Sequence[ImageOutcome], classes: int) -> list[list[int]]:
    """Objects and detections at the thresholds in use, IoU 0.5: rows are what is there, columns what was said.

    The last row is background, where detections found nothing; the last column is objects that nothing is said of.
    """
    table = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    for outcome in outcomes:
        labels, said = outcome.truth.labels.tolist(), outcome.sure.labels.tolist()
        for label, row, other in zip(said, outcome.matched, outcome.taken, strict=True):
            if row >= 0 or other >= 0:
                table[labels[max(row, other)], label] += 1
            elif row != IGNORED:
                table[classes, label] += 1
        noticed = {*outcome.matched, *outcome.taken}
        for row in outcome.real:
            if row not in noticed:
                table[labels[row], classes] += 1
    found: list[list[int]] = table.tolist()
    return found


def found_by_size(outcomes: Sequence[ImageOutcome]) -> list[dict[str, Any]]:
    """Objects by the root of their area, in octaves of pixels: how many there are, and how many are found."""
    counts: dict[int, list[int]] = {}
    for outcome in outcomes:
        found = set(outcome.matched)
        for row in outcome.real:
            side = max(1.0, outcome.areas[row] ** 0.5)
            octave = counts.setdefault(int(np.log2(side)), [0, 0])
            octave[0] += 1
            octave[1] += row in found
    sizes = range(min(counts), max(counts) + 1) if counts else range(0)
    return [
        {
            "from": 2**octave if octave else 0,
            "to": 2 ** (octave + 1),
            "objects": counts.get(octave, [0, 0])[0],
            "found": counts.get(octave, [0, 0])[1],
        }
        for octave in sizes
    ]
