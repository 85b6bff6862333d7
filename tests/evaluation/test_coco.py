from __future__ import annotations

import contextlib
import io
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import coco as oracle_data
from pycocotools import mask as oracle_mask
from pycocotools.cocoeval import COCOeval as Oracle

from fpn.errors import DataError
from fpn.evaluation.coco import coco_metrics, keypoint_metrics, limit_metrics, proposal_recall, segment_recall
from fpn.shapes import Size
from fpn.structures import Masks

SUMMARY = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
SUMMARY += ["ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"]


def truth(*boxes: tuple[int, int, list[float]], categories: tuple[int, ...] = (3, 7), crowd: bool = False) -> Any:
    """Two images, 1 and 2; each box is (image, category, xywh)."""
    annotations = [
        {"id": n, "image_id": i, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": int(crowd)}
        for n, (i, c, b) in enumerate(boxes, start=1)
    ]
    images = [{"id": n, "width": 400, "height": 300, "file_name": f"{n}.jpg"} for n in (1, 2)]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": n, "name": f"class {n}"} for n in categories],
    }


def found(image: int, category: int, box: list[float], score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def oracle(
    ground_truth: Any,
    records: list[dict[str, Any]],
    *,
    proposals: bool = False,
    iou_type: str = "bbox",
    sigmas: list[float] | None = None,
    limits: list[int] | None = None,
) -> Oracle:
    with contextlib.redirect_stdout(io.StringIO()):
        data = oracle_data.COCO()
        data.dataset = ground_truth
        data.createIndex()
        if records:
            results = data.loadRes([dict(each) for each in records])
        else:  # pycocotools can't load an empty list
            results = oracle_data.COCO()
            results.dataset = {**ground_truth, "annotations": []}
            results.createIndex()
        counter = Oracle(data, results, iou_type)
        if sigmas is not None:
            counter.params.kpt_oks_sigmas = np.array(sigmas)
        if proposals:
            counter.params.useCats, counter.params.maxDets = 0, [1, 100, 1000]
        if limits is not None:
            counter.params.maxDets = limits
        counter.evaluate()
        counter.accumulate()
        if not proposals and limits is None:
            counter.summarize()
    return counter


def scattered(seed: int, *, images: int = 12, num_found: int = 15) -> tuple[Any, list[dict[str, Any]]]:
    """Random truth with crowds, images without truth, a class without objects, gaps between ids; noisy detections."""
    random = np.random.default_rng(seed)
    ids = [int(n) * 17 + 5 for n in range(images)]
    annotations: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    for image_id in ids:
        for _ in range(int(random.integers(0, 8))):
            side = np.exp(random.uniform(np.log(6), np.log(250), 2))
            box = [*random.uniform(0, 300, 2), *side]
            number = {"id": len(annotations) + 1, "image_id": image_id, "category_id": int(random.choice([2, 9, 90]))}
            extent = {"bbox": box, "area": float(box[2] * box[3] * 0.8), "iscrowd": int(random.random() < 0.15)}
            annotations.append(number | extent)
            if random.random() < 0.8:
                near = (np.array(box) + random.normal(0, 0.07, 4) * side.mean()).clip(1).tolist()
                records.append(found(image_id, number["category_id"], near, float(random.random())))
        for _ in range(int(random.integers(0, num_found))):
            box = [*random.uniform(0, 300, 2), *random.uniform(4, 200, 2)]
            # Scores with ties.
            records.append(found(image_id, int(random.choice([2, 9, 41, 90])), box, float(random.integers(0, 10)) / 10))
    images = [{"id": n, "width": 600, "height": 600, "file_name": str(n)} for n in ids]
    # Not sorted: per_class has to follow this order.
    categories = [{"id": n, "name": f"class {n}"} for n in (90, 2, 41, 9)]
    return {"images": images, "annotations": annotations, "categories": categories}, records


def shaped(seed: int, *, points: int = 17) -> tuple[Any, list[dict[str, Any]]]:
    """As `scattered`, with outlines (crowds as run lengths) and points; each result has a box, a mask and points."""
    random = np.random.default_rng(seed)
    ground_truth, records = scattered(seed)
    for each in ground_truth["annotations"]:
        each["segmentation"] = run_lengths(each["bbox"]) if each["iscrowd"] else [house(each["bbox"])]
        each["keypoints"] = scatter_points(each["bbox"], points, random)
        each["num_keypoints"] = sum(visible > 0 for visible in each["keypoints"][2::3])
        near = (np.array(each["keypoints"]) + np.tile([1.0, 1.0, 0.0], points) * random.normal(0, 4)).tolist()
        there = {"image_id": each["image_id"], "category_id": each["category_id"], "score": float(random.random())}
        records.append(there | {"bbox": each["bbox"], "keypoints": near})
    for record in records:
        record["segmentation"] = run_lengths(record["bbox"])
        record.setdefault("keypoints", scatter_points(record["bbox"], points, random))
    return ground_truth, records


def house(box: list[float]) -> list[float]:
    """An outline that fills three quarters of a box."""
    x, y, width, height = box
    return [x, y + height, x, y + height / 2, x + width / 2, y, x + width, y + height / 2, x + width, y + height]


def run_lengths(box: list[float]) -> dict[str, Any]:
    encoded = oracle_mask.merge(oracle_mask.frPyObjects([house(box)], 600, 600))
    return {"size": [600, 600], "counts": encoded["counts"].decode()}


def scatter_points(box: list[float], points: int, random: np.random.Generator) -> list[float]:
    places = random.random((points, 2)) * box[2:] + box[:2]
    return np.column_stack([places, random.integers(0, 3, points)]).ravel().tolist()


@pytest.mark.parametrize("seed", range(4))
def test_all_twelve_numbers_equal_pycocotools(seed: int) -> None:
    ground_truth, records = scattered(seed)
    ours = asdict(coco_metrics(ground_truth, records))
    theirs = oracle(ground_truth, records).stats
    np.testing.assert_allclose([ours[name] for name in SUMMARY], theirs, rtol=0, atol=1e-12)


def test_figures_with_another_limit_equal_pycocotools() -> None:
    ground_truth, records = scattered(5, images=3, num_found=400)
    most = max(sum(each["image_id"] == image["id"] for each in records) for image in ground_truth["images"])
    assert most > 250
    ours = limit_metrics(ground_truth, records, limit=60)
    counter = oracle(ground_truth, records, limits=[1, 10, 60])
    precision, recall = counter.eval["precision"][..., -1], counter.eval["recall"][..., -1]
    assert ours.ap == pytest.approx(precision[..., 0][precision[..., 0] > -1].mean(), abs=1e-12)
    assert ours.ap50 == pytest.approx(precision[0, ..., 0][precision[0, ..., 0] > -1].mean(), abs=1e-12)
    for size, name in enumerate(("ar", "ar_small", "ar_medium", "ar_large")):
        defined = recall[..., size][recall[..., size] > -1]
        assert getattr(ours, name) == pytest.approx(defined.mean(), abs=1e-12)
    assert ours.ap > limit_metrics(ground_truth, records, limit=400).ap + 1e-4  # the limit does something here


def test_each_class_equals_pycocotools_on_that_class_alone() -> None:
    ground_truth, records = scattered(7)
    per_class = coco_metrics(ground_truth, records).per_class
    assert [each.category_id for each in per_class] == [90, 2, 41, 9]
    precision = oracle(ground_truth, records).eval["precision"]  # (IoU, recall, class by id, size, limit)
    for each, place in zip(per_class, [3, 0, 2, 1], strict=True):
        for size, value in enumerate([each.ap, each.ap_small, each.ap_medium, each.ap_large]):
            part = precision[:, :, place, size, 2]
            expected = part[part > -1].mean() if (part > -1).any() else -1
            assert value == pytest.approx(expected, abs=1e-12)


def test_proposal_recall_equals_pycocotools_without_classes() -> None:
    ground_truth, records = scattered(3, images=6, num_found=400)
    boxes = {
        image["id"]: np.array([[*r["bbox"], r["score"]] for r in records if r["image_id"] == image["id"]])
        for image in ground_truth["images"]
    }
    ours = proposal_recall(ground_truth, boxes)
    # One class for all: pycocotools would order boxes with equal scores by class, and ours have none.
    alike = [{**record, "category_id": 2} for record in records]
    recall = oracle(ground_truth, alike, proposals=True).eval["recall"]  # (IoU, 1, size, limit)

    def expected(size: int, limit: int) -> float:
        part = recall[:, :, size, limit]
        return float(part[part > -1].mean())

    assert ours.ar100 == pytest.approx(expected(0, 1), abs=1e-12)
    assert ours.ar1000 == pytest.approx(expected(0, 2), abs=1e-12)
    assert ours.ar1000_small == pytest.approx(expected(1, 2), abs=1e-12)
    assert ours.ar1000_medium == pytest.approx(expected(2, 2), abs=1e-12)
    assert ours.ar1000_large == pytest.approx(expected(3, 2), abs=1e-12)
    assert ours.ar100_small == pytest.approx(expected(1, 1), abs=1e-12)
    assert ours.ar1000 > ours.ar100


def test_a_perfect_detection_of_the_only_object_scores_one() -> None:
    metrics = coco_metrics(truth((1, 3, [10, 10, 20, 20])), [found(1, 3, [10, 10, 20, 20], 0.4)])
    assert (metrics.ap, metrics.ap_small, metrics.ar1) == pytest.approx((1.0, 1.0, 1.0))


def test_sizes_and_classes_without_objects_are_minus_one_and_do_not_lower_the_mean() -> None:
    metrics = coco_metrics(truth((1, 3, [10, 10, 20, 20])), [found(1, 3, [10, 10, 20, 20], 0.4)])
    assert (metrics.ap_medium, metrics.ap_large) == (-1.0, -1.0)
    assert [each.ap for each in metrics.per_class] == pytest.approx([1.0, -1.0])
    assert [each.objects for each in metrics.per_class] == [1, 0]


def test_half_the_objects_found_at_iou_070_gives_a_recall_of_a_quarter() -> None:
    # 14 x 20 inside of 20 x 20 is an IoU of 0.7: right at 0.5, 0.55, 0.6, 0.65 and 0.7, half of the ten thresholds.
    ground_truth = truth((1, 3, [0, 0, 20, 20]), (2, 3, [0, 0, 20, 20]))
    metrics = coco_metrics(ground_truth, [found(1, 3, [0, 0, 14, 20], 0.9)])
    assert metrics.ar100 == pytest.approx(0.25)
    # Precision 1 up to recall 0.5: 51 of the 101 recall points.
    assert metrics.ap50 == pytest.approx(51 / 101)
    assert metrics.ap75 == 0.0


def test_no_detection_at_all_scores_zero() -> None:
    metrics = coco_metrics(truth((1, 3, [10, 10, 20, 20])), [])
    assert (metrics.ap, metrics.ar100) == (0.0, 0.0)
    theirs = oracle(truth((1, 3, [10, 10, 20, 20])), []).stats
    np.testing.assert_array_equal([asdict(metrics)[name] for name in SUMMARY], theirs)


def test_truth_without_objects_is_undefined() -> None:
    assert coco_metrics(truth(), [found(1, 3, [0, 0, 5, 5], 0.9)]).ap == -1.0


def test_a_detection_inside_a_crowd_is_neither_right_nor_wrong() -> None:
    object_and_crowd = truth((1, 3, [0, 0, 20, 20]))
    object_and_crowd["annotations"] += truth((1, 3, [100, 100, 200, 100]), crowd=True)["annotations"]
    object_and_crowd["annotations"][1]["id"] = 2
    in_crowd = found(1, 3, [120, 120, 30, 30], 0.99)
    assert coco_metrics(object_and_crowd, [in_crowd, found(1, 3, [0, 0, 20, 20], 0.5)]).ap == pytest.approx(1.0)
    outside = found(1, 3, [20, 120, 30, 30], 0.99)
    assert coco_metrics(object_and_crowd, [outside, found(1, 3, [0, 0, 20, 20], 0.5)]).ap == pytest.approx(0.5)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    coco_metrics(truth((1, 3, [10, 10, 20, 20])), [])
    assert capfd.readouterr() == ("", "")


def test_an_unknown_image_or_category_is_named() -> None:
    with pytest.raises(DataError, match="image_id 5"):
        coco_metrics(truth(), [found(5, 3, [0, 0, 5, 5], 0.9)])
    with pytest.raises(DataError, match="category_id 4"):
        coco_metrics(truth(), [found(1, 4, [0, 0, 5, 5], 0.9)])


def test_results_as_rows_count_like_results_as_records() -> None:
    ground_truth, records = scattered(3)
    rows = np.array([[r["image_id"], *r["bbox"], r["score"], r["category_id"]] for r in records])
    assert coco_metrics(ground_truth, rows) == coco_metrics(ground_truth, records)


def test_rows_of_a_image_that_the_truth_lacks_are_refused() -> None:
    rows = np.array([[1, 0, 0, 9, 9, 0.5, 3], [8, 0, 0, 9, 9, 0.5, 3.0]])
    with pytest.raises(DataError, match="image_id 8, but the truth has no image"):
        coco_metrics(truth((1, 3, [0, 0, 9, 9])), rows)


def test_counting_leaves_the_callers_records_alone() -> None:
    records = [found(1, 3, [0, 0, 9, 9], 0.5)]
    coco_metrics(truth((1, 3, [0, 0, 9, 9])), records)
    assert records == [{"image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9], "score": 0.5}]


@pytest.mark.parametrize("seed", range(3))
def test_the_twelve_numbers_of_masks_equal_pycocotools(seed: int) -> None:
    ground_truth, records = shaped(seed)
    ours = asdict(coco_metrics(ground_truth, records, iou_type="segm"))
    # With a box in the record pycocotools would take its area for the mask's.
    masks = [{key: record[key] for key in record if key not in ("bbox", "keypoints")} for record in records]
    theirs = oracle(ground_truth, masks, iou_type="segm").stats
    np.testing.assert_allclose([ours[name] for name in SUMMARY], theirs, rtol=0, atol=1e-12)
    assert ours["ap"] != pytest.approx(coco_metrics(ground_truth, records).ap, abs=1e-6)


@pytest.mark.parametrize(("points", "sigmas"), [(17, None), (5, [0.05] * 5)])
def test_the_ten_numbers_of_keypoints_equal_pycocotools(points: int, sigmas: list[float] | None) -> None:
    ground_truth, records = shaped(1, points=points)
    ours = list(asdict(keypoint_metrics(ground_truth, records)).values())
    alone = [{key: record[key] for key in record if key not in ("bbox", "segmentation")} for record in records]
    theirs = oracle(ground_truth, alone, iou_type="keypoints", sigmas=sigmas).stats
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    assert 0 < ours[0] < 1


def test_keypoints_count_by_the_spread_that_is_asked_for() -> None:
    ground_truth, records = shaped(1, points=5)
    strict = keypoint_metrics(ground_truth, records, sigmas=[0.01] * 5)
    assert strict.ap < keypoint_metrics(ground_truth, records).ap


def test_recall_of_segments_is_of_any_class_and_of_so_many_masks_an_image() -> None:
    def squares(*lefts: int) -> list[Any]:
        boxes = torch.tensor([[left, 0, left + 20, 20] for left in lefts], dtype=torch.float32)
        return Masks.of_boxes(boxes, Size(40, 200)).to_coco(polygons=False)

    truth = {
        "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 200}],
        "categories": [{"id": 1, "name": "nut"}, {"id": 2, "name": "bolt"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": number, "iscrowd": 0, "area": 400, "segmentation": code}
            | {"bbox": [left, 0, 20, 20]}
            for number, (left, code) in enumerate(zip((0, 100), squares(0, 100), strict=True), start=1)
        ],
    }
    # Ten that find nothing, then the second object's mask as one of the first one's class.
    codes = squares(*range(40, 50), 100)
    results = [
        {"image_id": 1, "category_id": 1, "segmentation": code, "score": 0.9 - number / 100}
        for number, code in enumerate(codes)
    ]
    found = segment_recall(truth, results)
    assert (found.ar10, found.ar100, found.ar1000) == (0.0, 0.5, 0.5)
    assert (found.ar100_small, found.ar100_large) == (0.5, -1.0)


def test_names_of_files_may_be_bytes_that_are_no_text() -> None:
    named = truth((1, 3, [10, 10, 50, 50]), (2, 7, [10, 10, 50, 50]))
    records = [found(1, 3, [10, 10, 50, 50], 0.9)]
    wanted = coco_metrics(named, records)
    for each in (*named["images"], *records):
        each["file_name"] = "b\udcff.jpg"
    assert coco_metrics(named, records) == wanted
