"""Which detection found which object, by COCO's rules: what average precision, its intervals and thresholds count."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from fpn.errors import DataError, DataNotFoundError
from fpn.evaluation.coco import SIZES, match_objects
from fpn.structures import Classes

# COCO's ten overlaps, IoU 0.5 first.
OVERLAPS = 10


@dataclass(frozen=True)
class ClassMatches:
    """The detections of one class, best first; of equal ones those of the image with the lower id come first.

    A detection may be neither true nor false: of a crowd, or, when objects of one size are counted, of another size.

    Attributes:
        images: (d,) the image of each, as its place in `Matches.image_ids`.
        scores: (d,) 0..1.
        true: (t, d) whether it found an object that counts, at each overlap.
        false: (t, d) whether it found nothing and counts.
        objects: (i,) how many objects count in each image.
    """

    images: Int64[np.ndarray, " d"]
    scores: Float64[np.ndarray, " d"]
    true: Bool[np.ndarray, "t d"]
    false: Bool[np.ndarray, "t d"]
    objects: Int64[np.ndarray, " i"]

    def in_image(self, place: int) -> ClassMatches:
        """Those of one image, as if it were all there is."""
        which = self.images == place
        return ClassMatches(
            self.images[which] * 0,
            self.scores[which],
            self.true[:, which],
            self.false[:, which],
            self.objects[place : place + 1],
        )


@dataclass(frozen=True)
class Matches:
    """What detections found in I images of K classes.

    Attributes:
        image_ids: (i,) sorted.
        file_names: (i,) the images' names in the truth.
        classes: with the ids of the truth, in its order.
        tables: class by class, each for objects of all sizes, small, medium and large ones.
    """

    image_ids: tuple[int, ...]
    file_names: tuple[str, ...]
    classes: Classes
    tables: tuple[tuple[ClassMatches, ...], ...]

    def __len__(self) -> int:
        return len(self.image_ids)


def match_detections(
    ground_truth: Mapping[str, Any],
    results: Sequence[dict[str, Any]],
    *,
    iou_type: Literal["bbox", "segm"] = "bbox",
) -> Matches:
    """Match detections and objects, up to 100 detections an image and class.

    Args:
        ground_truth: as `coco_metrics` takes it.
        results: as `coco_metrics` takes them.
        iou_type: what overlaps: boxes or masks.

    Raises:
        DataError: a detection names an image or category that the truth does not have.
    """
    names = {each["id"]: str(each.get("file_name", each["id"])) for each in ground_truth["images"]}
    image_ids = tuple(sorted(names))
    places = {image_id: place for place, image_id in enumerate(image_ids)}
    parts: defaultdict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for size, part in match_objects(ground_truth, results, iou_type=iou_type):
        parts[part["category_id"], size].append(part)
    categories = ground_truth["categories"]
    return Matches(
        image_ids=image_ids,
        file_names=tuple(names[image_id] for image_id in image_ids),
        classes=Classes(tuple(c["name"] for c in categories), tuple(c["id"] for c in categories)),
        tables=tuple(
            tuple(_table(parts[category["id"], size], places) for size in range(len(SIZES))) for category in categories
        ),
    )


def _table(parts: Sequence[Mapping[str, Any]], places: Mapping[int, int]) -> ClassMatches:
    """From the evaluator's records of one image each."""
    parts = sorted(parts, key=lambda part: places[part["image_id"]])
    objects = np.zeros(len(places), dtype=np.int64)
    for part in parts:
        objects[places[part["image_id"]]] = sum(not ignored for ignored in part["gtIgnore"])
    images = np.array([places[part["image_id"]] for part in parts for _ in part["dtScores"]], dtype=np.int64)
    scores = np.array([score for part in parts for score in part["dtScores"]], dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    found, ignored = (_joined(parts, key)[:, order] for key in ("dtMatched", "dtIgnore"))
    return ClassMatches(images[order], scores[order], found & ~ignored, ~found & ~ignored, objects)


def _joined(parts: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """(T, D): one flag for each overlap and detection."""
    flags = [np.array(part[key], dtype=bool).reshape(OVERLAPS, -1) for part in parts]
    return np.concatenate([np.zeros((OVERLAPS, 0), dtype=bool), *flags], axis=1)


def read_results(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """A COCO results file, as `fpn evaluate --detections` writes it.

    Raises:
        DataNotFoundError: no such file.
        DataError: not a list of records with `image_id`, `category_id`, `bbox` and `score`.
    """
    path = Path(path)
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{path}: no such file of detections") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: can't be read as JSON ({error})") from error
    if not isinstance(records, list):
        raise DataError(f"{path}: is no list of COCO results, such as fpn evaluate --detections writes")
    for number, record in enumerate(records):
        if not _is_result(record):
            raise DataError(f"{path}: record {number}: expected image_id, category_id, bbox (4 numbers) and score")
    return records


def _is_result(record: object) -> bool:
    if not isinstance(record, dict):
        return False
    box, score = record.get("bbox"), record.get("score")
    ids = all(isinstance(record.get(key), int) for key in ("image_id", "category_id"))
    return ids and isinstance(box, list) and len(box) == 4 and all(map(_is_finite, box)) and _is_finite(score)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))
