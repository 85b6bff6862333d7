"""Masks and keypoints: detections and losses of Detectron2's and MMDetection's detectors, with their own weights."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fpn.detectors.builder import build_mask_head
from fpn.detectors.roi_toolkits import with_masks
from fpn.detectors.two_stage import TwoStageDetector
from fpn.interop import import_weights
from fpn.interop.detectron2 import RULES
from fpn.interop.findings import needed
from fpn.interop.key_rules import fill_module, rename
from fpn.ops.heatmaps import cells_of_keypoints, keypoints_of_heatmaps
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.shapes import Size
from fpn.structures import ImageBatch, Masks, Targets
from parity.golden.cases import Case
from parity.golden.compare import BOX_TOLERANCE, assert_map, assert_near, unmatched
from parity.golden.family import family_case, weights_of
from parity.golden.files import import_file
from parity.golden.test_detectors import assert_same_masks, prepare, rows, unpacked

# Of the panoptic one, all but its head for what has no objects.
FULL = ("d2_14_keypoint_full", "d2_22_panoptic_fpn", "mm_3_mask_full")
LEFT_OUT = ("sem_seg_head.",)
LOSSES = ("d2_13_mask_losses", "d2_15_keypoint_losses", "mm_3_mask_losses")
# Our names of the losses, theirs, and how many samples a loss of ours is the mean of and theirs is divided by.
TERMS = {
    "classification": ("loss_cls",),
    "box": ("loss_box_reg", "loss_bbox"),
    "mask": ("loss_mask",),
    "keypoint": ("loss_keypoint",),
    "objectness": ("loss_rpn_cls",),
    "rpn_box": ("loss_rpn_loc", "loss_rpn_bbox"),
}
# How a case's overrides are called here: the name, and which of two numbers (training, detecting) it is.
OVERRIDES: dict[str, tuple[str, int | None]] = {
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": ("rpn_before_nms", 0),
    "MODEL.RPN.PRE_NMS_TOPK_TEST": ("rpn_before_nms", 1),
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": ("rpn_after_nms", 0),
    "MODEL.RPN.POST_NMS_TOPK_TEST": ("rpn_after_nms", 1),
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": ("rpn_sampling_count", None),
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": ("box_sampling_count", None),
    "model.train_cfg.rpn.sampler.num": ("rpn_sampling_count", None),
    "model.train_cfg.rcnn.sampler.num": ("box_sampling_count", None),
    "model.test_cfg.rcnn.score_thr": ("box_score_limit", None),
}


@lru_cache(maxsize=1)
def weights(name: str) -> dict[str, np.ndarray]:
    return weights_of(family_case(name))


def overrides(figures: Case) -> dict[str, Any]:
    """A flat list of names and values, or pairs."""
    listed = figures.meta.get("config_overrides") or []
    flat = not listed or isinstance(listed[0], str)
    return dict(zip(listed[::2], listed[1::2], strict=True)) if flat else dict(listed)


def detector_of(figures: Case) -> TwoStageDetector:
    """With the settings that the case changed."""
    settings: dict[str, Any] = {}
    for theirs, value in overrides(figures).items():
        ours, place = OVERRIDES.get(theirs, (None, None))
        if ours is not None:
            pair = settings.get(ours, [1000, 1000])
            settings[ours] = value if place is None else [*pair[:place], value, *pair[place + 1 :]]
    if "score_thresh" in figures.meta:
        settings["box_score_limit"] = figures.meta["score_thresh"]
    if "resize_scale" in figures.meta:
        settings |= {"short_side": min(figures.meta["resize_scale"]), "long_side": max(figures.meta["resize_scale"])}
    elif "resized_bgr" in figures.arrays:
        shape = figures.meta["arrays"]["resized_bgr"]["full_shape"]
        settings |= {"short_side": min(shape[:2]), "long_side": 1333}
    state = weights(figures.name)
    partly = any(name.startswith(LEFT_OUT) for name in state)
    imported = import_file(figures.name, state, allow_missing=partly, **settings)
    assert all(name.startswith(LEFT_OUT) for name in needed(imported.leftover))
    return imported.module


@pytest.mark.parametrize("name", FULL)
def test_the_originals_detections(name: str) -> None:
    figures = family_case(name)
    detector = detector_of(figures)
    [found] = detector.predict([figures["image_rgb"]])
    boxes, labels, scores = (torch.from_numpy(figures[f"{key}"]) for key in ("pred_boxes", "classes", "scores"))
    assert len(found) <= len(boxes)
    assert unmatched(rows(boxes, labels, scores), rows(found.boxes, found.labels, found.scores), 0.01) == 0
    for packed in {"masks_packed", "pred_masks_packed"} & set(figures.arrays):
        assert_same_masks(found, boxes, unpacked(figures, packed), 3)
    if "mask_sums" in figures.arrays:
        order = torch.cdist(boxes, found.boxes).argmin(dim=1)
        assert_near(found.masks[order].areas().double(), figures["mask_sums"].astype(np.float64), 3)
    if "pred_keypoints" in figures.arrays:
        assert_near(found.keypoints[..., :2], figures["pred_keypoints"][..., :2], 0.01)
        assert_near(found.keypoints[..., 2], figures["pred_keypoints"][..., 2], 1e-4)
    if "keypoint_logits_56" in figures.arrays:
        _, images = prepare(figures, detector.preprocessor)
        with torch.no_grad():
            maps = detector.features(images.pixels)
            inside = torch.from_numpy(figures["boxes_in_resized_image"])
            assert_map(figures, "keypoint_logits_56", detector.roi_heads.keypoint(maps, images, [inside]))


def training_batch(figures: Case, detector: TwoStageDetector) -> tuple[ImageBatch, list[Targets]]:
    """Images at their own size, as the case has them."""
    pixels, targets = [], []
    while f"image{len(pixels)}_rgb" in figures.arrays:
        number = len(pixels)
        image = figures[f"image{number}_rgb"]
        sides = {"short_side": min(image.shape[:2]), "long_side": max(image.shape[:2])}
        prepared = Preprocessor(detector.preprocessor.config.changed(**sides)).prepare(Image.fromarray(image))
        assert prepared.pixels.shape[1:] == image.shape[:2]
        pixels.append(prepared.pixels)
        targets.append(truth(figures, number, Size(*image.shape[:2])))
    return detector.preprocessor.collate(pixels), targets


def truth(figures: Case, number: int, size: Size) -> Targets:
    arrays = figures.arrays
    boxes = torch.from_numpy(arrays[f"gt_boxes{number}"])
    labels = next(arrays[f"gt_{kind}{number}"] for kind in ("classes", "labels") if f"gt_{kind}{number}" in arrays)
    masks = keypoints = None
    if f"gt_polygons{number}" in arrays:
        owner, corners = arrays[f"gt_polygon_owner{number}"], arrays[f"gt_polygons{number}"].astype(np.float64)
        outlines = [[each.reshape(-1, 2) for each in corners[owner == k]] for k in range(len(boxes))]
        masks = Masks.of_outlines(outlines, size)
    if f"gt_masks{number}_packed" in arrays:
        bits = np.unpackbits(figures[f"gt_masks{number}_packed"], axis=1)[:, : size.height * size.width]
        masks = Masks.from_dense(torch.from_numpy(bits.reshape(len(bits), *size).astype(bool)), size)
    if f"gt_keypoints{number}" in arrays:
        keypoints = torch.from_numpy(arrays[f"gt_keypoints{number}"])
    return Targets(boxes, torch.from_numpy(labels), masks=masks, keypoints=keypoints)


@pytest.mark.parametrize("name", LOSSES)
def test_the_originals_losses(name: str) -> None:
    figures = family_case(name)
    detector = detector_of(figures).train()
    images, targets = training_batch(figures, detector)
    with torch.no_grad():
        ours = detector.losses(images, targets)
    for term, value in ours.terms.items():
        theirs = next(figures.meta["losses"][key] for key in TERMS[term] if key in figures.meta["losses"])
        assert float(value) == pytest.approx(float(np.sum(theirs)), rel=1e-4, abs=1e-6), term
    assert {"mask", "keypoint"} & set(ours.terms)


def test_keypoints_and_heatmaps_of_the_original() -> None:
    figures = family_case("d2_25_keypoint_ops")
    boxes = torch.from_numpy(figures["rois"])
    found = keypoints_of_heatmaps(torch.from_numpy(figures["maps"]), boxes)
    assert_near(found, figures["keypoints"][..., [0, 1, -1]], BOX_TOLERANCE)
    side = 2 * figures["maps"].shape[-1]
    cells, inside = cells_of_keypoints(torch.from_numpy(figures["gt_keypoints"]), boxes, size=side)
    assert cells.tolist() == figures["heatmap_index"].tolist()
    assert inside.tolist() == figures["heatmap_valid"].astype(bool).tolist()


@torch.no_grad()
def test_the_new_baselines_mask_head_with_norms() -> None:
    figures = family_case("d2_21_new_baseline_mask")
    state = {name: torch.from_numpy(value) for name, value in weights(figures.name).items()}
    heads = ("proposal_generator.", "roi_heads.")
    imported = import_weights({name: value for name, value in state.items() if not name.startswith(heads)})
    own, _ = rename({name: value for name, value in state.items() if name.startswith("roi_heads.mask_head.")}, RULES)
    classes = len(own["roi_heads.mask.logits.weight"])
    dialect = with_masks(imported.dialect).changed(mask_norm="batch")
    head = build_mask_head(imported.module.levels, classes, dialect)
    fill_module(
        head, {name.removeprefix("roi_heads.mask."): value for name, value in own.items()}, toolkit="Detectron2"
    )
    sides = {"short_side": min(figures.meta["arrays"]["resized_bgr"]["full_shape"][:2]), "long_side": 1333}
    _, images = prepare(figures, Preprocessor(dialect.pixels.changed(**sides)))
    boxes, labels = (torch.from_numpy(figures[name]) for name in ("boxes_in_resized_image", "classes"))
    maps = imported.module(images.pixels)
    assert_map(figures, "feat_p2", maps["p2"])
    logits = head.eval()(maps, images, [boxes], labels)
    assert_map(figures, "mask_probs_28", logits.sigmoid()[:, None])
