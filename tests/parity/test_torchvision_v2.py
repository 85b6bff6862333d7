"""torchvision's fasterrcnn_resnet50_fpn_v2 beside ours, with the same weights: norms in pyramid and box head."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection import fasterrcnn_resnet50_fpn_v2

from fpn import interop
from fpn.detectors import TwoStageDetector
from fpn.detectors.detector import count_parameters
from parity.test_torchvision import _batch, _close, _image_list, _take, _targets

IMAGES = _batch((96, 128), (91, 100), seed=1)


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    torch.manual_seed(0)
    model = fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=6, min_size=96, max_size=128)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_mean"):
                value.normal_(0, 0.1)
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            if "backbone.body" in name and name.endswith("bn3.weight"):
                value.mul_(0.2)
        model.rpn.head.cls_logits.weight.normal_(0, 0.3)
        model.rpn.head.bbox_pred.weight.normal_(0, 0.1)
        model.roi_heads.box_predictor.cls_score.weight.normal_(0, 0.5)
        model.roi_heads.box_predictor.bbox_pred.weight.normal_(0, 0.1)
        model.rpn._pre_nms_top_n = {"training": 200, "testing": 100}
        model.rpn._post_nms_top_n = {"training": 60, "testing": 50}
        model.eval()([torch.rand(3, 96, 128)])
    return model


@pytest.fixture(scope="module")
def ours(theirs: torch.nn.Module) -> TwoStageDetector:
    imported = interop.import_weights(theirs.state_dict(), rpn_before_nms=(200, 100), rpn_after_nms=(60, 50))
    assert imported.dialect.name == "torchvision_v2"
    assert not [name for name in imported.leftover if not name.endswith("num_batches_tracked")]
    return imported.module.eval()


def test_both_have_as_many_weights(theirs, ours) -> None:
    # Ours are without the boxes of background, and its backbone's norms are frozen: 2 a channel.
    frozen = sum(weight.numel() for name, weight in theirs.backbone.body.named_parameters() if "bn" in name)
    frozen += sum(p.numel() for n, p in theirs.backbone.body.named_parameters() if "downsample.1" in n)
    background = 4 * (1024 + 1)
    assert count_parameters(ours) == count_parameters(theirs) - frozen - background


@torch.no_grad()
def test_maps_proposals_and_detections_agree(theirs, ours) -> None:
    their_features = theirs.backbone(IMAGES.pixels)
    for got, wanted in zip(ours.features(IMAGES.pixels).values(), their_features.values(), strict=True):
        _close(got, wanted)
    image_list = _image_list(IMAGES)
    boxes, _ = theirs.rpn(image_list, their_features)
    for got, wanted in zip(ours.proposals(IMAGES), boxes, strict=True):
        _close(got.boxes, wanted)
    detections, _ = theirs.roi_heads(their_features, boxes, image_list.image_sizes)
    for got, want in zip(ours.detect(IMAGES), detections, strict=True):
        assert len(got) > 10
        assert got.labels.tolist() == (want["labels"] - 1).tolist()
        _close(got.scores, want["scores"])
        _close(got.boxes, want["boxes"])


def test_training_losses_agree_on_the_same_samples(theirs, ours) -> None:
    targets = _targets(with_empty=False)
    everything = 10**6
    for sampler in (theirs.rpn.fg_bg_sampler, theirs.roi_heads.fg_bg_sampler):
        sampler.batch_size_per_image, sampler.positive_fraction = everything, 0.5
    ours.rpn.sampler = _take(ours.rpn.sampler, everything)
    ours.roi_heads.box.sampler = _take(ours.roi_heads.box.sampler, everything)
    their_targets = [{"boxes": t.boxes, "labels": t.labels + 1} for t in targets]
    theirs.rpn.train()
    theirs.roi_heads.train()
    ours.roi_heads.train()
    features = theirs.backbone(IMAGES.pixels)
    boxes, want = theirs.rpn(_image_list(IMAGES), features, their_targets)
    _, more = theirs.roi_heads(features, boxes, _image_list(IMAGES).image_sizes, their_targets)
    got = ours.losses(IMAGES, targets).terms
    theirs.eval()
    ours.eval()
    _close(got["objectness"], want["loss_objectness"])
    _close(got["rpn_box"], want["loss_rpn_box_reg"])
    _close(got["classification"], more["loss_classifier"])
    _close(got["box"], more["loss_box_reg"])
