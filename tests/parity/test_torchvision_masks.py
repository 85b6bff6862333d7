"""torchvision's own Mask R-CNN and Keypoint R-CNN beside ours, with the same weights."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection import (
    keypointrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
)

from fpn import interop
from fpn.detectors import TwoStageDetector
from fpn.detectors.detector import count_parameters
from fpn.shapes import Size
from fpn.structures import Masks, Targets
from parity.test_torchvision import BATCHES, FEW, NUM_CLASSES, _close, _image_list, _take, decided, with_proposals

BATCH = BATCHES[1]  # two images of two odd sizes
SMALL = {"weights": None, "weights_backbone": None, "min_size": 160, "max_size": 240}
NUM_KEYPOINTS = 5
OUTLINES = (
    [[10.0, 20.0, 90.0, 30.0, 70.0, 120.0]],
    [[60.0, 30.0, 75.0, 30.0, 75.0, 52.0, 60.0, 52.0], [62.0, 60.0, 70.0, 60.0, 66.0, 66.0]],
)


BUILT = {
    "masks": lambda: maskrcnn_resnet50_fpn(num_classes=NUM_CLASSES + 1, **SMALL),
    "keypoints": lambda: keypointrcnn_resnet50_fpn(num_classes=2, num_keypoints=NUM_KEYPOINTS, **SMALL),
    "masks v2": lambda: maskrcnn_resnet50_fpn_v2(num_classes=NUM_CLASSES + 1, **SMALL),
}
# Of a single class few are found, so that these are few in training only.
FEW_IN_TRAINING = {"rpn_before_nms": (200, 1000), "rpn_after_nms": (60, 1000)}


@pytest.fixture(scope="module", params=BUILT)
def pair(request: pytest.FixtureRequest) -> tuple[torch.nn.Module, TwoStageDetector]:
    torch.manual_seed(0)
    task, _, version = request.param.partition(" ")
    few = FEW if task == "masks" else FEW_IN_TRAINING
    theirs = with_proposals(decided(BUILT[request.param]()), few)
    imported = interop.import_weights(theirs.state_dict(), **few)
    assert not [name for name in imported.leftover if not name.endswith("num_batches_tracked")]
    assert imported.dialect.name == f"torchvision_{version}".rstrip("_")
    assert imported.module.tasks[1] == task
    return theirs, imported.module.eval()


def test_both_have_as_many_weights(pair) -> None:
    """Ours are without background's box and mask; both backbones' norms count as weights only where they learn."""
    theirs, ours = pair
    norms = sum(
        weight.numel()
        for name, weight in theirs.backbone.body.named_parameters()
        if "bn" in name or "downsample.1" in name
    )
    heads = theirs.roi_heads
    background = 4 * (heads.box_predictor.bbox_pred.in_features + 1)
    if heads.mask_predictor is not None:
        background += heads.mask_predictor.mask_fcn_logits.in_channels + 1
    assert count_parameters(ours) == count_parameters(theirs) - norms - background


@torch.no_grad()
def test_detections_agree(pair) -> None:
    theirs, ours = pair
    image_list = _image_list(BATCH)
    features = theirs.backbone(BATCH.pixels)
    proposals, _ = theirs.rpn(image_list, features)
    wanted, _ = theirs.roi_heads(features, proposals, image_list.image_sizes)
    found = ours.detect(BATCH)
    assert sum(map(len, found)) > 10
    for got, want in zip(found, wanted, strict=True):
        assert got.labels.tolist() == (want["labels"] - 1).tolist()
        torch.testing.assert_close(got.boxes, want["boxes"], rtol=0, atol=1e-3)
        torch.testing.assert_close(got.scores, want["scores"], rtol=0, atol=1e-4)
        if "masks" in want:
            torch.testing.assert_close(got.mask_probabilities, want["masks"][:, 0], rtol=0, atol=1e-4)
        if "keypoints" in want:
            away = (got.keypoints[..., :2] - want["keypoints"][..., :2]).abs().amax(dim=2)
            assert float((away <= 1e-2).float().mean()) > 0.99  # of two equal peaks the last digit decides
            torch.testing.assert_close(got.keypoints[..., 2], want["keypoints_scores"], rtol=1e-4, atol=1e-4)


def objects() -> list[Targets]:
    """Two objects in the first image, one in the second."""
    (height, width), (second_height, second_width) = BATCH.sizes.tolist()
    first = Masks.from_coco(OUTLINES, Size(height, width))
    second = Masks.from_coco([[[5.0, 5.0, 150.0, 40.0, 80.0, 140.0]]], Size(second_height, second_width))
    points = torch.tensor([[20.0, 30.0, 2.0], [90.0, 60.0, 1.0], [0.0, 0.0, 0.0], [30.0, 119.0, 2.0], [5.0, 5.0, 2.0]])
    keypoints = [torch.stack([points, points + torch.tensor([50.0, 10.0, 0.0])]), points[None]]
    labels = [torch.tensor([0, 0]), torch.tensor([0])]
    return [
        Targets(masks.boxes(), label, masks=masks, keypoints=own)
        for masks, label, own in zip((first, second), labels, keypoints, strict=True)
    ]


def test_training_losses_agree_on_the_same_samples(pair) -> None:
    """Both sides take every candidate, so that no random choice differs."""
    theirs, ours = pair
    targets, everything = objects(), 10**6
    theirs.rpn.fg_bg_sampler.batch_size_per_image = theirs.roi_heads.fg_bg_sampler.batch_size_per_image = everything
    theirs.roi_heads.fg_bg_sampler.positive_fraction = theirs.rpn.fg_bg_sampler.positive_fraction = 0.5
    ours.rpn.sampler = _take(ours.rpn.sampler, everything)
    ours.roi_heads.box.sampler = _take(ours.roi_heads.box.sampler, everything)
    told = [
        {"boxes": t.boxes, "labels": t.labels + 1, "masks": t.masks.dense().to(torch.uint8), "keypoints": t.keypoints}
        for t in targets
    ]
    theirs.rpn.train()
    theirs.roi_heads.train()
    ours.roi_heads.train()  # norms over the batch learn from it
    with torch.no_grad():
        features = theirs.backbone(BATCH.pixels)
        proposals, _ = theirs.rpn(_image_list(BATCH), features, told)
        _, want = theirs.roi_heads(features, proposals, _image_list(BATCH).image_sizes, told)
        got = ours.losses(BATCH, targets)
    theirs.eval()
    ours.eval()
    assert float(got.counts["positive_rois"]) > 1
    for name, other in (("mask", "loss_mask"), ("keypoint", "loss_keypoint"), ("classification", "loss_classifier")):
        assert (name in got.terms) == (other in want)
        if name in got.terms:
            _close(got.terms[name], want[other])
