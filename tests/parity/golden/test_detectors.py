"""Whole detectors: from the original's weights and the stored image to its final detections."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fpn.detectors.detector import Detector
from fpn.detectors.modes import evaluating
from fpn.detectors.presets import adapt_dialect
from fpn.detectors.toolkits import FPN_PYTORCH
from fpn.preprocessing.preprocessor import Prepared, Preprocessor
from fpn.structures import Detections, ImageBatch
from parity.golden.cases import Case, case, cases, same_weights
from parity.golden.compare import assert_map, assert_near, assert_same_set, unmatched
from parity.golden.files import import_file

YX = [1, 0, 3, 2]


def prepare(figures: Case, preprocessor: Preprocessor) -> tuple[Prepared, ImageBatch]:
    prepared = preprocessor.prepare(Image.fromarray(figures["image_rgb"]))
    return prepared, preprocessor.collate([prepared.pixels], [prepared.frame])


def rows(boxes: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
    """One row a detection, in units in which a hundredth is little: pixels, whole classes, tenths of a score."""
    return torch.cat([boxes.double(), labels[:, None].double(), scores[:, None].double() * 10], dim=1)


def assert_same_detections(found: Detections, boxes: Tensor, labels: Tensor, scores: Tensor) -> None:
    assert_same_set(rows(found.boxes, found.labels, found.scores), rows(boxes, labels, scores).numpy(), 0.01)


def unpacked(figures: Case, name: str) -> np.ndarray:
    """Masks (N, H, W) of the case's image that are packed, eight pixels a byte."""
    height, width = figures["image_rgb"].shape[:2]
    bits = np.unpackbits(figures[name], axis=1)[:, : height * width]
    return bits.reshape(len(bits), height, width).astype(bool)


def assert_same_masks(found: Detections, boxes: Tensor, masks: np.ndarray, few: int = 3) -> None:
    """But for a few pixels whose probability is half to the last digits; `boxes` say which mask is whose."""
    whose = torch.cdist(boxes[: len(masks)], found.boxes).argmin(dim=1)
    assert found.masks is not None
    assert (found.masks[whose].dense().numpy() != masks).sum() <= few


def predict(detector: Detector, figures: Case) -> Detections:
    [found] = detector.predict([figures["image_rgb"]])
    return found


def from_config(figures: Case, **conventions) -> dict:
    """The short side that the case's config line states."""
    side = int(figures.meta["config"].split("MIN_SIZE_TEST=")[1])
    return {"short_side": side, "long_side": 1333, **conventions}


# --- Detectron2 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("figures", [case("d2_10_full_faster"), case("d2_10_full_mask")], ids=lambda f: f.name)
def test_detectron2(figures):
    state = same_weights(figures, figures.meta["names"].removeprefix("names/"))
    imported = import_file(figures.name, state, **from_config(figures))
    detector = imported.module
    assert imported.leftover == ()
    assert ("masks" in detector.tasks) == ("mask" in figures.name)
    found = predict(detector, figures)
    boxes, classes, scores = (torch.from_numpy(figures[name]) for name in ("pred_boxes", "classes", "scores"))
    assert_same_detections(found, boxes, classes, scores)
    if "pred_masks_packed" in figures.arrays:
        assert_same_masks(found, boxes, unpacked(figures, "pred_masks_packed"))
    if "proposals" not in figures.arrays:
        return
    _, images = prepare(figures, detector.preprocessor)
    assert list(images.pixels.shape) == figures.meta["padded_shape"]
    with torch.no_grad():
        for name, value in detector.features(images.pixels).items():
            assert_map(figures, f"feat_{name}", value)
        [proposals] = detector.proposals(images)
    best = figures["proposals"]
    assert_same_set(proposals.boxes[: len(best)], best, 0.01)
    logits = torch.from_numpy(figures["objectness"])
    assert_near(proposals.scores[: len(best)], logits.sigmoid().numpy(), 1e-4)


def test_detectron2_retinanet():
    figures = case("d2_10_full_retinanet")
    imported = import_file(figures.name, same_weights(figures, "d2_retinanet.json"), **from_config(figures))
    assert not imported.leftover
    _, images = prepare(figures, Preprocessor(imported.dialect.pixels))
    with torch.no_grad():
        maps = imported.module.features(images.pixels)
    assert list(maps) == ["p3", "p4", "p5", "p6", "p7"]
    for name, value in maps.items():
        assert_map(figures, f"feat_{name}", value)
    assert_same_detections(
        predict(imported.module, figures),
        *(torch.from_numpy(figures[name]) for name in ("pred_boxes", "classes", "scores")),
    )


# --- fpn.pytorch -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def fpn_pytorch_101(salt: str) -> Detector:
    """Three cases share one ResNet-101, which takes longer to build than to run."""
    figures = next(f for f in cases("fpnpt_i_full") if f.salt == salt)
    state = same_weights(figures, figures.meta["names"].removeprefix("names/"))
    return import_file(
        figures.name,
        state,
        short_side=round(min(figures.meta["im_info"][0][:2])),
        box_score_limit=figures.meta["thresh"],
        box_nms=figures.meta["nms"],
        box_limit=figures.meta["max_per_image"],
    ).module


def fpn_pytorch(figures: Case) -> Detector:
    figures.arrays["image_rgb"] = case("fpnpt_i_preprocess")["image_rgb"]
    detector = fpn_pytorch_101(figures.salt)
    neck = detector.features.neck
    neck.config = neck.config.changed(
        top_down="bilinear_corners" if figures.meta["upsample_align_corners"] else "bilinear"
    )
    sampler = {"align": "align_avg", "pool": "pool"}[figures.meta["pooling_mode"]]
    detector.roi_heads.box.pooler = replace(
        detector.roi_heads.box.pooler, config=detector.roi_heads.box.pooler.config.changed(sampler=sampler)
    )
    return detector


@pytest.mark.parametrize("figures", cases("fpnpt_i_full"), ids=lambda f: f.name)
def test_fpn_pytorch(figures):
    detector = fpn_pytorch(figures)
    prepared, images = prepare(figures, detector.preprocessor)
    height, width, scale = figures.meta["im_info"][0]
    assert (*prepared.frame.network, prepared.frame.scale[0]) == pytest.approx((height, width, scale))
    rois = torch.from_numpy(figures["rois"])[0, :, 1:]
    with torch.no_grad():
        [proposals] = detector.proposals(images)
        logits, deltas = detector.roi_heads.box(detector.features(images.pixels), images, [rois])
    assert_same_set(proposals.boxes, rois.numpy(), 0.01)
    # Background, first there and last here, has deltas there that nobody reads.
    assert_near(logits.softmax(dim=1).roll(1, dims=1), figures["cls_prob"][0], 1e-4)
    stored = figures["bbox_pred"][0, :, 4:]
    assert_near(deltas[:: len(deltas) // len(stored)], stored, 1e-4 * abs(stored).max())
    # Scores of neighbours tie to 1e-6 here, and exactly where RoIPool rounds them to the same cells. Which of such a
    # pair survives NMS, and what that one drops, hangs on the last bit; all but a few are the same to 0.01 pixel.
    found, expected = predict(detector, figures), torch.from_numpy(figures["detections"])
    ours = rows(found.boxes, found.labels, found.scores)
    theirs = rows(expected[:, 1:5], expected[:, 0] - 1, expected[:, 5])
    assert len(ours) == len(theirs)
    assert unmatched(theirs, ours, 0.01) <= len(theirs) // 20


@pytest.mark.parametrize("target", [160, 600])
def test_fpn_pytorch_preprocessing(target):
    figures = case("fpnpt_i_preprocess")
    prepared, images = prepare(figures, Preprocessor(adapt_dialect(FPN_PYTORCH, short_side=target).pixels))
    assert_map(figures, f"blob_{target}", images.pixels)
    info = [*prepared.frame.network, prepared.frame.scale[0]]
    assert info == pytest.approx(figures[f"im_info_{target}"][0].tolist())


# --- matterport ------------------------------------------------------------------------------------------------------


def test_matterport():
    figures = case("mrcnn_9_full")
    config = figures.meta["config"]
    state = same_weights(figures, figures.meta["names"].removeprefix("names/"))
    imported = import_file(
        figures.name,
        state,
        short_side=config["IMAGE_MIN_DIM"],
        long_side=config["IMAGE_MAX_DIM"],
        rpn_after_nms=(2000, config["POST_NMS_ROIS_INFERENCE"]),
        box_limit=config["DETECTION_MAX_INSTANCES"],
        box_score_limit=config["DETECTION_MIN_CONFIDENCE"],
    )
    detector = imported.module
    assert imported.leftover == ()
    _, images = prepare(figures, detector.preprocessor)
    assert_map(figures, "molded", images.pixels.permute(0, 2, 3, 1).numpy())
    last = torch.tensor([images.padded_size.width - 1, images.padded_size.height - 1] * 2)
    with torch.no_grad(), evaluating(detector):
        [proposals] = detector.proposals(images)
        [inside] = detector.detect(images)
    assert_same_set((proposals.boxes / last)[:, YX], figures["rpn_rois"][0], 1e-4)
    expected = torch.from_numpy(figures["detections"])[0]
    expected = expected[expected[:, 4] > 0]
    ours = torch.cat([(inside.boxes / last)[:, YX], inside.labels[:, None] + 1, inside.scores[:, None]], dim=1)
    assert_same_set(ours, expected.numpy(), 1e-4)
    boxes = torch.from_numpy(figures["final_rois"])[:, YX]
    labels, scores = torch.from_numpy(figures["final_class_ids"]) - 1, torch.from_numpy(figures["final_scores"])
    found = predict(detector, figures)
    assert_same_detections(found, boxes, labels, scores)
    assert_same_masks(found, boxes.float(), figures["final_masks"].astype(bool).transpose(2, 0, 1))
    probable = figures["mask_of_det_class"][: len(expected)]
    nearest = torch.cdist(expected[:, :4], (inside.boxes / last)[:, YX]).argmin(dim=1)
    assert_near(inside.mask_probabilities[nearest], probable, 1e-4)
