"""torchvision's own Mask R-CNN and Keypoint R-CNN beside ours, with the same weights."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection import keypointrcnn_resnet50_fpn, maskrcnn_resnet50_fpn

from fpn import interop
from fpn.detectors import TwoStageDetector
from fpn.shapes import Size
from fpn.structures import Masks, Targets
from parity.test_torchvision import BATCHES, NUM_CLASSES, _close, _image_list, _take, decided

BATCH = BATCHES[1]  # two images of two odd sizes
SMALL = {"weights": None, "weights_backbone": None, "min_size": 160, "max_size": 240}
NUM_KEYPOINTS = 5
OUTLINES = (
    [[10.0, 20.0, 90.0, 30.0, 70.0, 120.0]],
    [[60.0, 30.0, 75.0, 30.0, 75.0, 52.0, 60.0, 52.0], [62.0, 60.0, 70.0, 60.0, 66.0, 66.0]],
)


@pytest.fixture(scope="module", params=["masks", "keypoints"])
def pair(request: pytest.FixtureRequest) -> tuple[torch.nn.Module, TwoStageDetector]:
    torch.manual_seed(0)
    if request.param == "masks":
        theirs = maskrcnn_resnet50_fpn(num_classes=NUM_CLASSES + 1, **SMALL)
    else:
        theirs = keypointrcnn_resnet50_fpn(num_classes=2, num_keypoints=NUM_KEYPOINTS, **SMALL)
    imported = interop.import_weights(decided(theirs).state_dict())
    assert not [name for name in imported.leftover if not name.endswith("num_batches_tracked")]
    assert imported.module.tasks[1] == request.param
    return theirs, imported.module.eval()


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
    with torch.no_grad():
        features = theirs.backbone(BATCH.pixels)
        proposals, _ = theirs.rpn(_image_list(BATCH), features, told)
        _, want = theirs.roi_heads(features, proposals, _image_list(BATCH).image_sizes, told)
        got = ours.losses(BATCH, targets)
    theirs.eval()
    assert float(got.counts["positive_rois"]) > 1
    for name, other in (("mask", "loss_mask"), ("keypoint", "loss_keypoint"), ("classification", "loss_classifier")):
        assert (name in got.terms) == (other in want)
        if name in got.terms:
            _close(got.terms[name], want[other])
