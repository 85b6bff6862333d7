"""Faster R-CNN of MMDetection and of Detectron2's new baselines: from the originals' weights to boxes and losses."""

import re
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import Tensor

from fpn.detectors import TwoStageDetector
from fpn.detectors.builder import build_box_head, build_pooler
from fpn.detectors.toolkits import MMDETECTION
from fpn.heads.box import BoxCandidates
from fpn.ops.nms import nms, soft_nms
from fpn.structures import ImageBatch, Level, Targets
from parity.golden.cases import Case
from parity.golden.compare import MAP_TOLERANCE, OP_TOLERANCE, assert_map, assert_near, assert_same_set
from parity.golden.family import family_case, inputs, weights_of
from parity.golden.files import import_file
from parity.golden.test_detectors import assert_same_detections, assert_same_masks, predict, prepare, rows, unpacked


@lru_cache(maxsize=1)
def _built(digest: str, case: Case, settings: tuple[tuple[str, object], ...]) -> TwoStageDetector:
    return import_file(case.name, weights_of(case), **dict(settings)).module


def detector_of(case: Case, **settings: object) -> TwoStageDetector:
    """The original's weights in our detector; cases of the same weights and settings share it."""
    detector = _built(case.meta["weights_sha256"], case, tuple(settings.items()))
    return detector.eval()


def overrides(case: Case) -> dict[str, float]:
    """The config lines that the case changes, by their last word: score_thr, pre_nms_topk, ..."""
    listed = case.meta["config_overrides"]
    pairs = listed if isinstance(listed[0], list) else list(zip(listed[::2], listed[1::2], strict=True))
    return {name.rpartition(".")[2]: value for name, value in pairs}


# --- MMDetection -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_mmdetection_detects():
    case = family_case("mm_1_faster_full")
    long_side, short_side = case.meta["resize_scale"]
    detector = detector_of(
        case, short_side=short_side, long_side=long_side, box_score_limit=overrides(case)["score_thr"]
    )
    _, images = prepare(case, detector.preprocessor)
    assert_map(case, "net_input", images.pixels)
    features = detector.features(images.pixels)
    assert_map(case, "c5", detector.features.backbone(images.pixels)["c5"])
    for name, value in features.items():
        assert_map(case, f"feat_{name}", value)
    [proposals] = detector.proposals(images)
    assert len(proposals.boxes) == case.meta["n_proposals"]
    stored = torch.from_numpy(case["proposals"])
    logits, deltas = detector.roi_heads.box(features, images, [stored[: len(case["roi_cls_score"])]])
    assert_map(case, "roi_cls_score", logits)
    assert_map(case, "roi_bbox_pred", deltas)
    found = predict(detector, case)
    assert_same_detections(found, *(torch.from_numpy(case[name]) for name in ("pred_boxes", "classes", "scores")))


def batch_of(case: Case, detector: TwoStageDetector) -> tuple[ImageBatch, list[Targets]]:
    """The stored images at their own size, normalised and padded together, and their objects."""
    names = sorted(name for name in case.arrays if re.fullmatch(r"image\d+_rgb", name))
    labels = "gt_labels" if "gt_labels0" in case.arrays else "gt_classes"
    pixels = [detector.preprocessor._normalised(case[name]) for name in names]
    targets = [
        Targets(torch.from_numpy(case[f"gt_boxes{k}"]), torch.from_numpy(case[f"{labels}{k}"]))
        for k in range(len(names))
    ]
    return detector.preprocessor.collate(pixels), targets


def test_mmdetection_learns():
    case = family_case("mm_2_faster_losses")
    detector = detector_of(
        case,
        rpn_sampling_count=int(overrides(case)["num"]),
        box_sampling_count=int(overrides(case)["num"]),
    )
    images, targets = batch_of(case, detector)
    assert list(images.padded_size) == case.meta["batch_input_shape"]
    detector.train()
    terms = detector.losses(images, targets)
    wanted = {
        "objectness": case["loss_rpn_cls"].sum(),
        "rpn_box": case["loss_rpn_bbox"].sum(),
        "classification": case["loss_cls"].sum(),
        "box": case["loss_bbox"].sum(),
    }
    found = {name: float(value.detach()) for name, value in terms.terms.items()}
    assert found == pytest.approx(wanted, rel=1e-4)
    drawn = case.meta["sampled"]
    positive_rois = sum(each["pos"] for each in drawn[len(targets) :]) / len(targets)
    positive_anchors = sum(each["pos"] for each in drawn[: len(targets)]) / len(targets)
    assert float(terms.counts["positive_anchors"]) == pytest.approx(positive_anchors)
    assert float(terms.counts["positive_rois"]) == pytest.approx(positive_rois)
    terms.total.backward()
    for theirs, ours in {
        "neck.lateral_convs.3.conv.weight": detector.features.neck.laterals["c5"].weight,
        "rpn_head.rpn_conv.weight": detector.rpn.shared.weight,
        "roi_head.bbox_head.shared_fcs.0.weight": detector.roi_heads.box.trunk[1].weight,
        "backbone.layer4.0.conv2.weight": detector.features.backbone.net.layer4[0].conv2.weight,
    }.items():
        assert float(ours.grad.norm()) == pytest.approx(case.meta["grad_l2"][theirs], rel=1e-3)


@torch.no_grad()
def test_mmdetection_reads_rois():
    case = family_case("mm_11_roi_extractor")
    maps = inputs(case)
    levels = tuple(Level(f"p{k + 2}", maps[0].shape[1], 4 * 2**k, k + 2) for k in range(len(maps)))
    features = {level.name: map_ for level, map_ in zip(levels, maps, strict=True)}
    height, width = (side * levels[0].stride for side in maps[0].shape[2:])
    images = ImageBatch(torch.zeros(len(maps[0]), 3, height, width), torch.tensor([[height, width]] * len(maps[0])))
    rois = torch.from_numpy(case["rois"])
    order = rois[:, 0].argsort(stable=True)
    boxes = [rois[rois[:, 0] == k, 1:] for k in range(len(maps[0]))]
    for name in [name for name in case.arrays if name.startswith("pooled_")]:
        pooler = build_pooler(levels, MMDETECTION, case.meta["arrays"][name]["full_shape"][-1])
        assert pooler.assign(rois[:, 1:]).tolist() == case["levels"].tolist()
        found = torch.empty(case.meta["arrays"][name]["full_shape"])
        found[order] = pooler(features, images, boxes)
        assert_near(case.stored_part(name, found.numpy()), case[name], MAP_TOLERANCE)
    wh = torch.from_numpy(case["wh"])
    at_origin = torch.cat([torch.zeros_like(wh), wh], dim=1)
    assert pooler.assign(at_origin).tolist() == case["wh_levels"].tolist()


# Names of the case's variants, as its meta's note explains them.
SOFT = {
    "linear_03": {"decay": "linear", "threshold": 0.3},
    "linear_05_min005": {"decay": "linear", "threshold": 0.5, "lowest": 0.05},
    "gaussian_05": {"decay": "gaussian", "sigma": 0.5},
    "gaussian_03_min005": {"decay": "gaussian", "sigma": 0.3, "lowest": 0.05},
    "linear_03_offset1": {"decay": "linear", "threshold": 0.3, "legacy_plus_one": True},
    "batched_linear_05": {"decay": "linear", "threshold": 0.5, "lowest": 0.05, "by_class": True},
    "batched_gaussian": {"decay": "gaussian", "lowest": 0.05, "by_class": True},
}
HARD = {
    "nms_05": {},
    "nms_05_offset1": {"legacy_plus_one": True},
    "nms_05_score03_max20": {"above": 0.3, "limit": 20},
    # Their soft_nms with the method "naive" drops at an IoU of 0.5 itself, too.
    "naive_05": {"threshold": float(np.nextafter(np.float32(0.5), np.float32(0)))},
    "batched_nms_05": {"by_class": True},
    "batched_split": {"by_class": True},  # class by class from some number of boxes on, which changes nothing
    "batched_agnostic_05": {},
}
# Of RoIs with a score and a box a class: settings of our box head.
MULTICLASS = {"multiclass_nms": {}, "multiclass_soft": {"suppression": "linear", "nms_lowest": 0.05}}


def table(case: Case, kept: Tensor, scores: Tensor) -> np.ndarray:
    boxes = torch.from_numpy(case["boxes"])[kept]
    return torch.cat([boxes, scores[:, None], kept[:, None].float()], dim=1).numpy()


@pytest.mark.parametrize("variant", [*SOFT, *HARD])
def test_mmdetection_suppression(variant):
    case = family_case("mm_12_soft_nms")
    boxes, scores, labels = (torch.from_numpy(case[name]) for name in ("boxes", "scores", "labels"))
    settings = {"groups": None, **(SOFT | HARD)[variant]}
    if settings.pop("by_class", False):
        settings["groups"] = labels
    places = (scores > settings.pop("above", 0.0)).nonzero().squeeze(1)
    if variant in SOFT:
        kept, left = soft_nms(boxes, scores, **settings)
    else:
        kept = places[nms(boxes[places], scores[places], **{"threshold": 0.5, **settings})]
        left = scores[kept]
    assert len(kept) == case.meta["kept"][variant]
    wanted = np.concatenate([case[f"{variant}_dets"], case[f"{variant}_inds"][:, None]], axis=1)
    assert_same_set(table(case, kept, left), wanted, OP_TOLERANCE)


@pytest.mark.parametrize("variant", MULTICLASS)
def test_mmdetection_suppression_of_several_classes(variant):
    case = family_case("mm_12_soft_nms")
    scores = torch.from_numpy(case["multi_scores"])
    num_classes = scores.shape[1] - 1
    boxes = torch.from_numpy(case["multi_boxes"]).reshape(len(scores), num_classes, 4)
    box = {"score_limit": 0.2, "limit": case.meta["kept"][variant], "width": 8, **MULTICLASS[variant]}
    head = build_box_head((Level("p2", 4, 8, 2),), num_classes, MMDETECTION.changed(box=box))
    rois, labels = (head.class_scores(scores) > head.config.score_limit).nonzero(as_tuple=True)
    candidates = BoxCandidates(boxes[rois, labels], scores[rois, labels], labels, rois)
    image = ImageBatch(torch.zeros(1, 3, 256, 256), torch.tensor([[256, 256]]))
    kept, left = head.suppress(candidates, image, 0)
    found = [candidates.boxes[kept], left[:, None], labels[kept, None], (rois * num_classes + labels)[kept, None]]
    wanted = [case[f"{variant}_dets"], case[f"{variant}_labels"][:, None], case[f"{variant}_inds"][:, None]]
    assert_same_set(torch.cat(found, dim=1), np.concatenate(wanted, axis=1), OP_TOLERANCE)


def test_every_variant_of_mmdetections_suppression_is_compared():
    assert set(family_case("mm_12_soft_nms").meta["kept"]) == {*SOFT, *HARD, *MULTICLASS}


# --- Detectron2's new baselines --------------------------------------------------------------------------------------


@torch.no_grad()
def test_detectron2_new_baseline():
    case = family_case("d2_21_new_baseline_mask")
    changed = overrides(case)
    imported = import_file(
        case.name,
        weights_of(case),
        short_side=min(case.meta["arrays"]["resized_bgr"]["full_shape"][:2]),
        long_side=1333,
        box_score_limit=case.meta["score_thresh"],
        rpn_before_nms=tuple(changed["pre_nms_topk"]),
        rpn_after_nms=tuple(changed["post_nms_topk"]),
    )
    detector = imported.module
    assert detector.rpn.config.num_convolutions == 2
    _, images = prepare(case, detector.preprocessor)
    assert list(images.pixels.shape) == case.meta["padded_shape"]
    features = detector.features(images.pixels)
    for name, value in features.items():
        assert_map(case, f"feat_{name}", value)
    [proposals] = detector.proposals(images)
    assert_same_set(proposals.boxes, case["proposals"], 0.01)
    stored = torch.from_numpy(case["proposals"])
    box = detector.roi_heads.box
    hidden = box.trunk(box.pooler(features, images, [stored]))
    assert_map(case, "box_head_features", hidden)
    assert_map(case, "cls_logits", box.scores(hidden))
    assert_map(case, "box_deltas", box.deltas(hidden))
    found = predict(detector, case)
    wanted = (torch.from_numpy(case[name]) for name in ("pred_boxes", "classes", "scores"))
    assert_same_set(rows(found.boxes, found.labels, found.scores), rows(*wanted).numpy(), 0.01)
    if "pred_masks_packed" in case.arrays:
        assert_same_masks(found, torch.from_numpy(case["pred_boxes"]), unpacked(case, "pred_masks_packed"))
