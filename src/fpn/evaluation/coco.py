"""COCO's average precision and recall, counted by hotcoco (equal to pycocotools, many times faster).

All figures are fractions 0..1; -1 means that there was nothing to measure, such as no small object in the whole set.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from hotcoco import COCO, COCOeval
from jaxtyping import Float64

from fpn.errors import DataError

# What two objects' overlap is counted on.
IouType: TypeAlias = Literal["bbox", "segm", "keypoints"]

# COCO's object sizes in the order of the evaluator's third axis; the borders are areas of 32 ** 2 and 96 ** 2 pixels.
SIZES = ("all", "small", "medium", "large")
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
_LIMITS = (1, 10, 100)
_PROPOSAL_LIMITS = (1, 100, 1000)
_SEGMENT_LIMITS = (10, 100, 1000)
_KEYPOINT_LIMITS = (20,)
# Sizes of people in the order of the evaluator's axis when it compares keypoints: COCO labels none of the small ones.
_KEYPOINT_ALL, _KEYPOINT_MEDIUM, _KEYPOINT_LARGE = range(3)
# COCO's people have 17 points with a spread of their own each, from 0.025 (eyes) to 0.107 (hips). Points of other kinds
# all get one in between, as no one has measured how far their annotators differ.
_COCO_POINTS, _OTHER_SIGMA = 17, 0.05
# Places of IoU 0.5 and 0.75 among 0.5, 0.55, ..., 0.95.
_IOU_50, _IOU_75 = 0, 5
# Columns of results as rows.
_IMAGE, _CATEGORY = 0, 6
_OWNERS = {"images": ("image_id", "image"), "categories": ("category_id", "category")}


@dataclass(frozen=True)
class ClassMetrics:
    """Average precision of one class.

    Attributes:
        name: class name.
        category_id: the id that the user's files gave it.
        objects: how many there are in the truth, ignored ones not counted.
        ap, ap50, ap75: over IoU 0.5..0.95, at 0.5, at 0.75.
        ap_small, ap_medium, ap_large: over IoU 0.5..0.95, objects below 32 ** 2 pixels, up to 96 ** 2, above.
        ar100: average recall with up to 100 detections an image.
    """

    name: str
    category_id: int
    objects: int
    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar100: float


@dataclass(frozen=True)
class CocoMetrics:
    """COCO's twelve numbers, and each class's.

    Attributes:
        ap, ap50, ap75: average precision over IoU 0.5..0.95, at 0.5, at 0.75.
        ap_small, ap_medium, ap_large: by object area, below 32 ** 2 pixels, up to 96 ** 2, above.
        ar1, ar10, ar100: average recall with up to 1, 10, 100 detections an image.
        ar_small, ar_medium, ar_large: average recall with up to 100, by object area.
        per_class: in the order of the truth's categories.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    per_class: tuple[ClassMetrics, ...]


@dataclass(frozen=True)
class LimitMetrics:
    """COCO's numbers with another limit of detections an image than its 100.

    Attributes:
        ap, ap50, ap75: average precision over IoU 0.5..0.95, at 0.5, at 0.75.
        ap_small, ap_medium, ap_large: by object area.
        ar: average recall over IoU 0.5..0.95.
        ar_small, ar_medium, ar_large: by object area.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar: float
    ar_small: float
    ar_medium: float
    ar_large: float


@dataclass(frozen=True)
class KeypointMetrics:
    """COCO's ten numbers for keypoints: "overlap" is the likeness of the points (OKS), up to 20 detections an image.

    Attributes:
        ap, ap50, ap75: average precision over OKS 0.5..0.95, at 0.5, at 0.75.
        ap_medium, ap_large: by object area, up to 96 ** 2 pixels, above.
        ar, ar50, ar75: average recall over OKS 0.5..0.95, at 0.5, at 0.75.
        ar_medium, ar_large: by object area.
    """

    ap: float
    ap50: float
    ap75: float
    ap_medium: float
    ap_large: float
    ar: float
    ar50: float
    ar75: float
    ar_medium: float
    ar_large: float


@dataclass(frozen=True)
class ProposalRecall:
    """Average recall of class-free boxes over IoU 0.5..0.95, up to 100 and up to 1000 an image (paper, table 1)."""

    ar100: float
    ar100_small: float
    ar100_medium: float
    ar100_large: float
    ar1000: float
    ar1000_small: float
    ar1000_medium: float
    ar1000_large: float


@dataclass(frozen=True)
class SegmentRecall:
    """Average recall of class-free masks over IoU 0.5..0.95, up to 1000 (paper, table 6), 100 and 10 an image."""

    ar1000: float
    ar1000_small: float
    ar1000_medium: float
    ar1000_large: float
    ar100: float
    ar100_small: float
    ar100_medium: float
    ar100_large: float
    ar10: float
    ar10_small: float
    ar10_medium: float
    ar10_large: float


def coco_metrics(
    ground_truth: Mapping[str, Any],
    results: Sequence[dict[str, Any]] | Float64[np.ndarray, "n 7"],
    *,
    iou_type: Literal["bbox", "segm"] = "bbox",
) -> CocoMetrics:
    """Measure detections as COCO does.

    Args:
        ground_truth: a COCO json: `images`, `annotations` (`iscrowd` 1: neither object nor background), `categories`.
        results: COCO records with `image_id`, `category_id`, `bbox` xywh in pixels, `score`; or, faster,
            the same as rows of image id, x, y, w, h, score, category id.
        iou_type: "segm": compare masks. Truth and results are records with `segmentation`; a result is then as large
            as its mask, not as its box.

    Raises:
        DataError: a detection names an image or category that the truth does not have.
    """
    refuse_strange_results(ground_truth, results)
    if iou_type == "segm":
        results = _without(results, "bbox", "keypoints")
    precision, recall = _count(ground_truth, results, iou_type=iou_type, limits=_LIMITS, by_class=True)
    best = precision[..., -1]
    return CocoMetrics(
        **_average_precisions(best),
        ar1=_mean(recall[:, :, _ALL, 0]),
        ar10=_mean(recall[:, :, _ALL, 1]),
        ar100=_mean(recall[:, :, _ALL, 2]),
        ar_small=_mean(recall[:, :, _SMALL, 2]),
        ar_medium=_mean(recall[:, :, _MEDIUM, 2]),
        ar_large=_mean(recall[:, :, _LARGE, 2]),
        per_class=_per_class(ground_truth, best, recall),
    )


def limit_metrics(
    ground_truth: Mapping[str, Any], results: Sequence[dict[str, Any]] | Float64[np.ndarray, "n 7"], *, limit: int
) -> LimitMetrics:
    """Measure boxes as COCO does, but with up to `limit` detections of a class in an image.

    Args:
        ground_truth: as `coco_metrics`.
        results: as `coco_metrics`.
        limit: at least 1.

    Raises:
        DataError: a detection names an image or category that the truth does not have.
    """
    refuse_strange_results(ground_truth, results)
    precision, recall = _count(ground_truth, results, iou_type="bbox", limits=(limit,), by_class=True)
    best, found = precision[..., -1], recall[..., -1]
    return LimitMetrics(
        **_average_precisions(best),
        ar=_mean(found[:, :, _ALL]),
        ar_small=_mean(found[:, :, _SMALL]),
        ar_medium=_mean(found[:, :, _MEDIUM]),
        ar_large=_mean(found[:, :, _LARGE]),
    )


def _average_precisions(best: np.ndarray) -> dict[str, float]:
    """AP and its parts, of precision (IoU, recall, class, size)."""
    return {
        "ap": _mean(best[..., _ALL]),
        "ap50": _mean(best[_IOU_50, ..., _ALL]),
        "ap75": _mean(best[_IOU_75, ..., _ALL]),
        "ap_small": _mean(best[..., _SMALL]),
        "ap_medium": _mean(best[..., _MEDIUM]),
        "ap_large": _mean(best[..., _LARGE]),
    }


def keypoint_metrics(
    ground_truth: Mapping[str, Any],
    results: Sequence[dict[str, Any]],
    *,
    sigmas: Sequence[float] | None = None,
) -> KeypointMetrics:
    """Measure keypoints as COCO does. Every object has the same number of points.

    Args:
        ground_truth: as `coco_metrics`; annotations have `keypoints` (x, y, visibility for each) and `num_keypoints`.
        results: COCO records with `image_id`, `category_id`, `keypoints`, `score`.
        sigmas: how far annotators differ at each point, as a share of the object's size. None: COCO's own where there
            are 17 points, else 0.05 for each.

    Raises:
        DataError: a detection names an image or category that the truth does not have.
    """
    refuse_strange_results(ground_truth, results)
    precision, recall = _count(
        ground_truth,
        _without(results, "bbox", "segmentation"),
        iou_type="keypoints",
        limits=_KEYPOINT_LIMITS,
        by_class=True,
        sigmas=_sigmas(ground_truth) if sigmas is None else sigmas,
    )
    best, found = precision[..., -1], recall[..., -1]
    return KeypointMetrics(
        ap=_mean(best[..., _KEYPOINT_ALL]),
        ap50=_mean(best[_IOU_50, ..., _KEYPOINT_ALL]),
        ap75=_mean(best[_IOU_75, ..., _KEYPOINT_ALL]),
        ap_medium=_mean(best[..., _KEYPOINT_MEDIUM]),
        ap_large=_mean(best[..., _KEYPOINT_LARGE]),
        ar=_mean(found[..., _KEYPOINT_ALL]),
        ar50=_mean(found[_IOU_50, ..., _KEYPOINT_ALL]),
        ar75=_mean(found[_IOU_75, ..., _KEYPOINT_ALL]),
        ar_medium=_mean(found[..., _KEYPOINT_MEDIUM]),
        ar_large=_mean(found[..., _KEYPOINT_LARGE]),
    )


def _sigmas(ground_truth: Mapping[str, Any]) -> Sequence[float] | None:
    """None: the evaluator's own, which are COCO's."""
    points = max((len(each.get("keypoints", ())) // 3 for each in ground_truth["annotations"]), default=0)
    return None if points in (0, _COCO_POINTS) else [_OTHER_SIGMA] * points


def proposal_recall(ground_truth: Mapping[str, Any], boxes: Mapping[int, np.ndarray]) -> ProposalRecall:
    """Measure proposals: which part of the objects, whatever their class, is covered by some box.

    Args:
        ground_truth: as `coco_metrics`.
        boxes: image id -> (n, 5) boxes x, y, w, h in pixels, and score.

    Raises:
        DataError: an image that the truth does not have.
    """
    _refuse_strangers(ground_truth, "images", boxes)
    category = ground_truth["categories"][0]["id"]
    rows = [_result_rows(image_id, found, category) for image_id, found in boxes.items()]
    found = np.concatenate([np.zeros((0, 7)), *rows])
    _, recall = _count(ground_truth, found, iou_type="bbox", limits=_PROPOSAL_LIMITS, by_class=False)
    return ProposalRecall(**_by_limit_and_size(recall, {1: 100, 2: 1000}))


def segment_recall(ground_truth: Mapping[str, Any], results: Sequence[dict[str, Any]]) -> SegmentRecall:
    """Measure proposed masks: which part of the objects, whatever their class, is covered by some mask.

    Args:
        ground_truth: as `coco_metrics`; annotations have `segmentation`.
        results: COCO records with `segmentation`.

    Raises:
        DataError: a detection names an image or category that the truth does not have.
    """
    refuse_strange_results(ground_truth, results)
    masks = _without(results, "bbox", "keypoints")
    _, recall = _count(ground_truth, masks, iou_type="segm", limits=_SEGMENT_LIMITS, by_class=False)
    return SegmentRecall(**_by_limit_and_size(recall, dict(enumerate(_SEGMENT_LIMITS))))


def _by_limit_and_size(recall: np.ndarray, limits: Mapping[int, int]) -> dict[str, float]:
    """Average recall by names such as "ar100_small", of recall (IoU, class, size, limit).

    Args:
        recall: as `_count` gives it.
        limits: place on the last axis -> detections an image.
    """
    return {
        f"ar{limit}" + ("" if size == "all" else f"_{size}"): _mean(recall[:, :, place, column])
        for column, limit in limits.items()
        for place, size in enumerate(SIZES)
    }


def match_objects(
    ground_truth: Mapping[str, Any], results: Sequence[dict[str, Any]], *, iou_type: Literal["bbox", "segm"] = "bbox"
) -> Iterable[tuple[int, dict[str, Any]]]:
    """Which detection found which object, one record of the evaluator an image, class and size.

    Returns:
        Pairs of a place in `SIZES` and a record with the keys of pycocotools: `image_id`, `category_id`, `dtScores`,
        `dtMatched` and `dtIgnore` (IoU, detection), `gtIgnore`. Where there is nothing there is no record.

    Raises:
        DataError: a detection names an image or category that the truth does not have.
    """
    refuse_strange_results(ground_truth, results)
    if iou_type == "segm":
        results = _without(results, "bbox", "keypoints")
    counter = _counter(ground_truth, results, iou_type=iou_type, limits=_LIMITS, by_class=True)
    counter.evaluate()
    sizes = {tuple(borders): place for place, borders in enumerate(counter.params.area_rng)}
    return [(sizes[tuple(each["aRng"])], each) for each in counter.eval_imgs if each is not None]


def _count(
    ground_truth: Mapping[str, Any],
    results: Sequence[dict[str, Any]] | np.ndarray,
    *,
    iou_type: IouType,
    limits: tuple[int, ...],
    by_class: bool,
    sigmas: Sequence[float] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Precision (IoU, recall, class, size, limit) and recall (IoU, class, size, limit); -1 where undefined."""
    counter = _counter(ground_truth, results, iou_type=iou_type, limits=limits, by_class=by_class)
    if sigmas is not None:
        counter.params.kpt_oks_sigmas = list(sigmas)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*kpt_oks_sigmas", category=UserWarning)  # chosen, and documented
        counter.evaluate()
        counter.accumulate()
    counts = counter.eval
    assert counts is not None, "accumulate fills it"
    return np.asarray(counts["precision"]), np.asarray(counts["recall"])


def _counter(
    ground_truth: Mapping[str, Any],
    results: Sequence[dict[str, Any]] | np.ndarray,
    *,
    iou_type: IouType,
    limits: tuple[int, ...],
    by_class: bool,
) -> COCOeval:
    """The evaluator, before it begins."""
    truth = COCO({**ground_truth, "images": _nameless(ground_truth["images"])})
    found = truth.load_res(results if isinstance(results, np.ndarray) else _nameless(results))
    counter = COCOeval(truth, found, iou_type)
    counter.params.max_dets = list(limits)
    counter.params.use_cats = by_class
    return counter


def _nameless(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Without names of files, which are not looked at: some are no text (bytes that are no UTF-8)."""
    if not any("file_name" in record for record in records):
        return [dict(record) for record in records]
    return [{name: value for name, value in record.items() if name != "file_name"} for record in records]


def _per_class(ground_truth: Mapping[str, Any], best: np.ndarray, recall: np.ndarray) -> tuple[ClassMetrics, ...]:
    # The evaluator's class axis is sorted by id; the truth's categories may come in any order.
    places = {number: place for place, number in enumerate(sorted(c["id"] for c in ground_truth["categories"]))}
    counts = dict.fromkeys(places, 0)
    for record in ground_truth["annotations"]:
        counts[record["category_id"]] += not record.get("iscrowd", 0)
    return tuple(
        _one_class(category, counts[category["id"]], best[:, :, place], recall[:, place])
        for category in ground_truth["categories"]
        for place in [places[category["id"]]]
    )


def _one_class(category: Mapping[str, Any], objects: int, best: np.ndarray, recall: np.ndarray) -> ClassMetrics:
    return ClassMetrics(
        name=category["name"],
        category_id=category["id"],
        objects=objects,
        ap=_mean(best[:, :, _ALL]),
        ap50=_mean(best[_IOU_50, :, _ALL]),
        ap75=_mean(best[_IOU_75, :, _ALL]),
        ap_small=_mean(best[:, :, _SMALL]),
        ap_medium=_mean(best[:, :, _MEDIUM]),
        ap_large=_mean(best[:, :, _LARGE]),
        ar100=_mean(recall[:, _ALL, -1]),
    )


def _mean(values: np.ndarray) -> float:
    """Mean of what is defined, -1 if nothing is."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0


def _result_rows(image_id: int, found: np.ndarray, category: int) -> np.ndarray:
    """(n, 5) boxes and scores as hotcoco's (n, 7): image, x, y, w, h, score, category."""
    rows = np.empty((len(found), 7))
    rows[:, 0], rows[:, 1:6], rows[:, 6] = image_id, found, category
    return rows


def _column(results: Sequence[dict[str, Any]] | np.ndarray, key: str, place: int) -> Iterable[Any]:
    if isinstance(results, np.ndarray):
        return set(np.unique(results[:, place]).tolist())
    return (each[key] for each in results)


def _without(results: Sequence[dict[str, Any]] | np.ndarray, *keys: str) -> Sequence[dict[str, Any]]:
    """The records without what would decide how large an object is before the thing that is compared."""
    assert not isinstance(results, np.ndarray), "rows have boxes alone"
    return [{key: value for key, value in record.items() if key not in keys} for record in results]


def refuse_strange_results(ground_truth: Mapping[str, Any], results: Sequence[dict[str, Any]] | np.ndarray) -> None:
    """Stop at detections of images or categories that the truth does not have.

    Args:
        ground_truth, results: as `coco_metrics` takes them.

    Raises:
        DataError: says the first of them.
    """
    _refuse_strangers(ground_truth, "images", _column(results, "image_id", _IMAGE))
    _refuse_strangers(ground_truth, "categories", _column(results, "category_id", _CATEGORY))


def _refuse_strangers(ground_truth: Mapping[str, Any], owner: str, ids: Iterable[Any]) -> None:
    strange = set(ids).difference(each["id"] for each in ground_truth[owner])
    if strange:
        key, what = _OWNERS[owner]
        raise DataError(f"a detection has {key} {min(strange):g}, but the truth has no {what} with that id")
