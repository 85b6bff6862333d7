"""Cascade R-CNN of Detectron2 and of MMDetection: stages, detections and losses."""

import pytest
import torch
from torch import Tensor

from fpn.detectors import TwoStageDetector
from fpn.interop import import_weights
from fpn.interop.detectron2 import BLOCK_RULES, RULES
from fpn.interop.key_rules import rename
from fpn.structures import Features, ImageBatch, LossTerms
from parity.golden.cases import Case
from parity.golden.compare import assert_map, assert_near, assert_same_set
from parity.golden.family import FAMILY_NAMES, family_case, listed, weights_of
from parity.golden.files import import_file
from parity.golden.test_detectors import predict, prepare, rows, unpacked
from parity.golden.test_masks import training_batch
from parity.golden.test_two_stages import batch_of, overrides


def detector_of(case: Case, **settings: object) -> TwoStageDetector:
    return import_file(case.name, weights_of(case), **settings).module


def assert_detections(detector: TwoStageDetector, case: Case) -> None:
    found = predict(detector, case)
    wanted = (torch.from_numpy(case[name]) for name in ("pred_boxes", "classes", "scores"))
    ours, theirs = rows(found.boxes, found.labels, found.scores), rows(*wanted)
    assert_same_set(ours, theirs.numpy(), 0.02)
    if "pred_masks_packed" in case.arrays:
        masks = found.masks[torch.cdist(theirs, ours).argmin(dim=1)].dense().numpy()
        assert (masks != unpacked(case, "pred_masks_packed")).sum() <= 8  # as many as noise of 1e-5 changes there


def stage(detector: TwoStageDetector, number: int, features: Features, images: ImageBatch, rois: Tensor):
    return detector.roi_heads.box.stages[number](features, images, [rois])


@pytest.mark.parametrize("name", ["d2_16_cascade_full", "d2_16_cascade_mask_full"])
@torch.no_grad()
def test_detectron2_detects(name: str):
    case = family_case(name)
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
    assert ("masks" in detector.tasks) == ("mask_probs_28" in case.arrays)
    if "masks" in detector.tasks:
        boxes, labels = (torch.from_numpy(case[key]) for key in ("boxes_in_resized_image", "classes"))
        masks = detector.roi_heads.mask(features, images, [boxes], labels)
        assert_map(case, "mask_probs_28", masks.sigmoid()[:, None])
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


def narrow(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a weight outside of the backbone, with maps and layers that are 8 wide."""
    if name.startswith("backbone."):
        return shape
    own = {256: 8, 1024: 8, 12544: 8 * 49}
    incoming = shape[1:] if name.startswith("neck.lateral_convs.") else tuple(own.get(side, side) for side in shape[1:])
    return (*(own.get(side, side) for side in shape[:1]), *incoming)


def test_mmdetections_mask_head_a_stage_is_recognised_by_its_names():
    names = "mm_cascade_mask_r50.json"
    if not (FAMILY_NAMES / names).is_file():
        pytest.skip(f"no {names} in {FAMILY_NAMES}")
    state = {name: torch.zeros(narrow(name, shape)) for name, shape in listed(names)}
    numbers = {name.split(".")[2] for name in state if ".mask_head." in name}
    for number in numbers:
        state[f"roi_head.mask_head.{number}.convs.1.conv.bias"] += float(number) + 1
    imported = import_weights(state)
    assert not [name for name in imported.leftover if not name.endswith("num_batches_tracked")]
    assert imported.module.tasks == ("boxes", "masks", "proposals")
    assert imported.dialect.cascade.mask_heads == "each_stage"
    heads = imported.module.roi_heads.mask.heads
    assert [head.tower[1][0].bias[0].item() for head in heads] == [float(k) + 1 for k in sorted(numbers)]


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


THEIRS = {"objectness": "rpn_cls", "rpn_box": "rpn_loc", "mask": "mask"}


def test_detectron2_learns():
    case = family_case("d2_17_cascade_losses")
    changed = overrides(case)
    count = int(changed["BATCH_SIZE_PER_IMAGE"])
    detector = import_weights(
        weights_of(case),
        rpn_sampling_count=count,
        box_sampling_count=count,
        rpn_before_nms=(changed["PRE_NMS_TOPK_TRAIN"], changed["PRE_NMS_TOPK_TEST"]),
        rpn_after_nms=(changed["POST_NMS_TOPK_TRAIN"], changed["POST_NMS_TOPK_TEST"]),
    ).module
    images, targets = training_batch(case, detector)
    detector.train()
    terms = detector.losses(images, targets)
    wanted = {ours: case[f"loss_{theirs}"].item() for ours, theirs in THEIRS.items()}
    for number in range(len(detector.roi_heads.box.stages)):
        wanted[f"classification_stage{number + 1}"] = case[f"loss_cls_stage{number}"].item()
        wanted[f"box_stage{number + 1}"] = case[f"loss_box_reg_stage{number}"].item()
    assert values(terms) == pytest.approx(wanted, rel=2e-4)
    terms.total.backward()
    own = dict(detector.named_parameters())
    names = [name.removeprefix("grad:") for name in case.arrays if name.startswith("grad:")]
    assert "roi_heads.mask_head.predictor.weight" in names
    for name in names:
        assert_map(case, f"grad:{name}", own[named_here(name)].grad, tolerance=1e-3)


def named_here(name: str) -> str:
    """Our name of one of Detectron2's weights."""
    staged, _ = rename({name: torch.empty(0)}, RULES)
    [own] = rename(staged, BLOCK_RULES)[0]
    return own
