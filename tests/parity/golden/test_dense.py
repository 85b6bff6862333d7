"""One-stage detectors: from the original's weights and images to its maps, detections, labels and losses.

Names, shapes, sizes and settings are the cases' own; they lie beside the project.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fpn.detectors import OneStageDetector
from fpn.structures import ImageBatch, Targets
from parity.golden import rule
from parity.golden.cases import Case
from parity.golden.compare import assert_map, unmatched
from parity.golden.files import import_file

SHARED = Path(__file__).parents[3].joinpath("../shared/golden").resolve()
FOLDER = Path(os.environ.get("FPN_GOLDEN_FAMILY", SHARED / "public"))
LISTS = Path(os.environ.get("FPN_GOLDEN_FAMILY_NAMES", SHARED / "names"))
FULL = ("d2_11_retinanet_full", "d2_18_fcos_full", "mm_4_retinanet_full", "mm_6_fcos_full")
LOSSES = ("d2_12_retinanet_losses", "d2_19_fcos_losses", "mm_5_retinanet_losses", "mm_7_fcos_losses")
OURS = {"logits": 0, "cls": 0, "deltas": 1, "reg": 1, "ctrness": 2, "centerness": 2}
TERMS = {
    "classification": ("loss_cls", "loss_fcos_cls"),
    "box": ("loss_box_reg", "loss_fcos_loc", "loss_bbox"),
    "centreness": ("loss_fcos_ctr", "loss_centerness"),
}


def stored(name: str) -> Case:
    if not (FOLDER / name / "meta.json").is_file():
        pytest.skip(f"no golden case {name} in {FOLDER}")
    return Case(FOLDER / name)


@lru_cache(maxsize=1)
def weights(name: str) -> dict[str, np.ndarray]:
    figures = Case(FOLDER / name)
    listed = json.loads((LISTS / figures.meta["names"].removeprefix("names/")).read_text())["entries"]
    state = rule.weights(figures.salt, [(entry[0], tuple(entry[1])) for entry in listed], figures.factors)
    assert rule.sha256(state) == figures.meta["weights_sha256"], f"{name}: the rule gives other weights"
    return state


def settings(figures: Case) -> dict[str, float]:
    """What the case changes of its configuration."""
    meta, found = figures.meta, {}
    if "score_thresh" in meta:
        found["dense_score_limit"] = meta["score_thresh"]
    for name, value in meta.get("config_overrides", []) if figures.name.startswith("mm") else []:
        if name == "model.test_cfg.score_thr":
            found["dense_score_limit"] = value
    if "resize_scale" in meta:
        found |= {"short_side": min(meta["resize_scale"]), "long_side": max(meta["resize_scale"])}
    elif "resized_bgr" in figures.arrays:
        found |= {"short_side": min(meta["arrays"]["resized_bgr"]["full_shape"][:2]), "long_side": 1333}
    return found


def detector_of(figures: Case) -> OneStageDetector:
    """The original's weights in our detector, by way of the toolkit's own file."""
    imported = import_file(figures.name, weights(figures.name), **settings(figures))
    assert not [name for name in imported.leftover if not name.endswith("num_batches_tracked")]
    assert isinstance(imported.module, OneStageDetector)
    return imported.module


@pytest.mark.parametrize("name", [*FULL, "mm_10_atss_full"])
def test_the_originals_maps_and_detections(name: str) -> None:
    figures = stored(name)
    detector = detector_of(figures)
    prepared = detector.preprocessor.prepare(Image.fromarray(figures["image_rgb"]))
    images = detector.preprocessor.collate([prepared.pixels], [prepared.frame])
    with torch.no_grad():
        maps = detector.features(images.pixels)
        raw = detector.head.maps(detector.head(maps))
        (found,) = detector.detect(images)
    seen = 0
    for array in figures.arrays:
        if array.startswith("feat_"):
            assert_map(figures, array, maps[array.removeprefix("feat_")], 1e-4)
        elif array.startswith("head_"):
            part = array.removeprefix("head_").rstrip("0123456789").removesuffix("_p")
            level = int(array.lstrip("abcdefghijklmnopqrstuvwxyz_")) - (3 if "_p" in array else 0)
            whole = raw[OURS[part]][level]
            if name.startswith("mm_6") and part == "reg":
                whole = whole.exp()  # it keeps the distances themselves
            assert_map(figures, array, whole, 1e-4)
            seen += 1
    assert seen
    found = detector.preprocessor.restore(found, prepared.frame)
    got = torch.cat([found.boxes.double(), found.labels[:, None], found.scores[:, None].double() * 10], dim=1)
    wanted = np.concatenate(
        [figures["pred_boxes"], figures["classes"][:, None], figures["scores"][:, None] * 10], axis=1
    )
    assert len(got) == len(wanted)
    assert unmatched(torch.from_numpy(wanted), got, 0.01) == 0


def training_batch(figures: Case, detector: OneStageDetector) -> tuple[ImageBatch, list[Targets]]:
    """Images at their own size, as the case has them."""
    side = 16
    pixels, frames, targets = [], [], []
    while f"image{len(pixels)}_rgb" in figures.arrays:
        number = len(pixels)
        image = figures[f"image{number}_rgb"]
        side, long = min(image.shape[:2]), max(image.shape[:2])
        config = detector.preprocessor.config.changed(short_side=side, long_side=long)
        prepared = type(detector.preprocessor)(config).prepare(Image.fromarray(image))
        assert prepared.pixels.shape[1:] == image.shape[:2]
        labels = next(
            figures[f"gt_{kind}{number}"] for kind in ("classes", "labels") if f"gt_{kind}{number}" in figures.arrays
        )
        pixels.append(prepared.pixels)
        frames.append(prepared.frame)
        targets.append(Targets(torch.from_numpy(figures[f"gt_boxes{number}"]), torch.from_numpy(labels)))
    return detector.preprocessor.collate(pixels, frames), targets


@pytest.mark.parametrize("name", [*LOSSES, "mm_10_atss_losses"])
def test_the_originals_labels_and_losses(name: str) -> None:
    figures = stored(name)
    detector = detector_of(figures).train()
    images, targets = training_batch(figures, detector)
    head, learns = detector.head, any(array.startswith("grad:") for array in figures.arrays)
    with torch.set_grad_enabled(learns):
        raw = detector.dense_part(images.pixels)
        found = head.losses(raw, images, targets)
    with torch.no_grad():
        references = head.references(head.maps(raw), images)
        matches = [head.assign(references, t, s) for t, s in zip(targets, images.sizes, strict=True)]
    for term, value in found.terms.items():
        wanted = sum(float(figures[each].sum()) for each in TERMS[term] if each in figures.arrays)
        assert float(value.detach()) == pytest.approx(wanted, rel=1e-4), term
    for number, (truth, match) in enumerate(zip(targets, matches, strict=True)):
        labels = torch.where(match.kind == 1, truth.labels[match.gt_index], head.num_classes)
        labels = torch.where(match.kind == -1, -1, labels)
        if f"anchor_labels{number}" in figures.arrays:
            assert np.array_equal(labels.numpy(), figures[f"anchor_labels{number}"])
        if "fcos_labels" in figures.arrays:
            assert np.array_equal(labels.numpy(), figures["fcos_labels"][number])
        if figures.meta.get("sampled"):
            assert int((match.kind == 1).sum()) == figures.meta["sampled"][number]["pos"]
            assert int((match.kind == 0).sum()) == figures.meta["sampled"][number]["neg"]
    if learns:
        found.total.backward()
        same_gradients(figures, detector)


def same_gradients(figures: Case, detector: OneStageDetector) -> None:
    head = detector.head
    ours = {
        "grad:head.cls_subnet.0.weight": head.class_tower.convolutions[0].weight,
        "grad:head.cls_score.weight": head.scores.weight,
        "grad:head.cls_score.bias": head.scores.bias,
        "grad:head.bbox_pred.weight": head.deltas.weight,
        "grad:head.bbox_pred.bias": head.deltas.bias,
        "grad:backbone.fpn_lateral5.weight": detector.features.neck.laterals["c5"].weight,
        "grad:backbone.top_block.p6.weight": detector.features.neck.extras["p6"].weight,
    }
    for array, weight in ours.items():
        assert_map(figures, array, weight.grad, tolerance=1e-3)
