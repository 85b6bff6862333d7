"""Cascade R-CNN of Detectron2 and of MMDetection: stages, detections and losses."""

import pytest
import torch
from torch import Tensor

from fpn.detectors import TwoStageDetector
from fpn.interop import import_weights
from fpn.structures import Features, ImageBatch, LossTerms
from parity.golden.cases import Case
from parity.golden.compare import assert_map, assert_near, assert_same_set
from parity.golden.family import family_case, weights_of
from parity.golden.test_detectors import predict, prepare, rows
from parity.golden.test_two_stages import batch_of, overrides


def detector_of(case: Case, **settings: object) -> TwoStageDetector:
    return import_weights(weights_of(case), **settings).module


def assert_detections(detector: TwoStageDetector, case: Case) -> None:
    found = predict(detector, case)
    wanted = (torch.from_numpy(case[name]) for name in ("pred_boxes", "classes", "scores"))
    assert_same_set(rows(found.boxes, found.labels, found.scores), rows(*wanted).numpy(), 0.02)


def stage(detector: TwoStageDetector, number: int, features: Features, images: ImageBatch, rois: Tensor):
    return detector.roi_heads.box.stages[number](features, images, [rois])


@torch.no_grad()
def test_detectron2_detects():
    case = family_case("d2_16_cascade_full")
    changed = overrides(case)
    detector = detector_of(
        case,
        short_side=changed["MIN_SIZE_TEST"],
        long_side=1333,
        box_score_limit=case.meta["score_thresh"],
        rpn_before_nms=(2000, changed["PRE_NMS_TOPK_TEST"]),
        rpn_after_nms=(2000, changed["POST_NMS_TOPK_TEST"]),
    )
    _, images = prepare(case, detector.preprocessor)
    features = detector.features(images.pixels)
    for name, value in features.items():
        assert_map(case, f"feat_{name}", value)
    [proposals] = detector.proposals(images)
    assert_same_set(proposals.boxes, case["proposals"], 0.01)
    rois = torch.from_numpy(case["proposals"])
    for number, head in enumerate(detector.roi_heads.box.stages):
        assert_near(case.stored_part(f"stage{number}_proposals", rois.numpy()), case[f"stage{number}_proposals"], 0.02)
        logits, deltas = stage(detector, number, features, images, rois)
        assert_map(case, f"stage{number}_cls_logits", logits)
        assert_map(case, f"stage{number}_deltas", deltas)
        [rois] = head.refine([rois], logits, deltas, images)
    assert_detections(detector, case)


@torch.no_grad()
def test_mmdetection_detects():
    case = family_case("mm_8_cascade_full")
    long_side, short_side = case.meta["resize_scale"]
    limit = overrides(case)["score_thr"]
    detector = detector_of(case, short_side=short_side, long_side=long_side, box_score_limit=limit)
    _, images = prepare(case, detector.preprocessor)
    [proposals] = detector.proposals(images)
    assert len(proposals.boxes) == case.meta["n_proposals"]
    features = detector.features(images.pixels)
    for number in range(len(detector.roi_heads.box.stages)):
        count = case.meta["arrays"][f"stage{number}_cls_score"]["full_shape"][0]
        rois = torch.from_numpy(case["proposals"])[:count]
        logits, deltas = stage(detector, number, features, images, rois)
        assert_map(case, f"stage{number}_cls_score", logits)
        assert_map(case, f"stage{number}_bbox_pred", deltas)
    assert_detections(detector, case)


def values(terms: LossTerms) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in terms.terms.items()}


def test_mmdetection_learns():
    case = family_case("mm_8_cascade_losses")
    count = int(overrides(case)["num"])
    detector = detector_of(case, rpn_sampling_count=count, box_sampling_count=count)
    images, targets = batch_of(case, detector)
    detector.train()
    terms = detector.losses(images, targets)
    wanted = {"objectness": case["loss_rpn_cls"].sum(), "rpn_box": case["loss_rpn_bbox"].sum()}
    for number in range(len(detector.roi_heads.box.stages)):
        wanted[f"classification_stage{number + 1}"] = case[f"s{number}.loss_cls"].sum()
        wanted[f"box_stage{number + 1}"] = case[f"s{number}.loss_bbox"].sum()
    assert values(terms) == pytest.approx(wanted, rel=2e-4)
    drawn = case.meta["sampled"][len(targets) :]
    for number in range(len(detector.roi_heads.box.stages)):
        positive = sum(each["pos"] for each in drawn[number * len(targets) :][: len(targets)]) / len(targets)
        assert float(terms.counts[f"positive_rois_stage{number + 1}"]) == pytest.approx(positive)


def test_detectron2_learns():
    case = family_case("d2_17_cascade_losses")
    changed = overrides(case)
    count = int(changed["BATCH_SIZE_PER_IMAGE"])
    state = {name: value for name, value in weights_of(case).items() if ".mask_head." not in name}
    detector = import_weights(
        state,
        rpn_sampling_count=count,
        box_sampling_count=count,
        rpn_before_nms=(changed["PRE_NMS_TOPK_TRAIN"], changed["PRE_NMS_TOPK_TEST"]),
        rpn_after_nms=(changed["POST_NMS_TOPK_TRAIN"], changed["POST_NMS_TOPK_TEST"]),
    ).module
    images, targets = batch_of(case, detector)
    detector.train()
    terms = detector.losses(images, targets)
    wanted = {"objectness": case["loss_rpn_cls"].item(), "rpn_box": case["loss_rpn_loc"].item()}
    for number in range(len(detector.roi_heads.box.stages)):
        wanted[f"classification_stage{number + 1}"] = case[f"loss_cls_stage{number}"].item()
        wanted[f"box_stage{number + 1}"] = case[f"loss_box_reg_stage{number}"].item()
    assert values(terms) == pytest.approx(wanted, rel=2e-4)
    terms.total.backward()
    # What the mask head shares with the boxes is left out: these are gradients of a total with its loss.
    heads = detector.roi_heads.box.stages
    for number, head in enumerate(heads):
        assert_map(case, f"grad:roi_heads.box_head.{number}.fc2.weight", head.trunk[3].weight.grad, tolerance=1e-3)
        assert_map(case, f"grad:roi_heads.box_predictor.{number}.bbox_pred.bias", head.deltas.bias.grad, tolerance=1e-3)
    shared = detector.rpn.shared.weight.grad
    assert_map(case, "grad:proposal_generator.rpn_head.conv.weight", shared, tolerance=1e-3)
