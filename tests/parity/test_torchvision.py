"""The proof that the maths is right: torchvision's own Faster R-CNN beside ours, with the same weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection.image_list import ImageList

from fpn import interop
from fpn.detectors import TwoStageDetector
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.structures import ImageBatch, Targets

NUM_CLASSES = 5  # background not counted
# Box heads read every proposal: with a thousand of them it takes five times as long.
FEW = {"rpn_before_nms": (200, 100), "rpn_after_nms": (60, 50)}


def with_proposals(model: torch.nn.Module, few: dict[str, tuple[int, int]]) -> torch.nn.Module:
    for name, key in (("_pre_nms_top_n", "rpn_before_nms"), ("_post_nms_top_n", "rpn_after_nms")):
        setattr(model.rpn, name, dict(zip(("training", "testing"), few[key], strict=True)))
    return model


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    torch.manual_seed(0)
    model = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=NUM_CLASSES + 1, min_size=160, max_size=240
    )
    return with_proposals(decided(model), FEW)


@torch.no_grad()
def decided(model: torch.nn.Module) -> torch.nn.Module:
    """With random weights that make scores and boxes differ from place to place."""
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    # Fresh heads say almost nothing.
    model.rpn.head.cls_logits.weight.normal_(0, 0.3)
    model.rpn.head.bbox_pred.weight.normal_(0, 0.1)
    model.roi_heads.box_predictor.cls_score.weight.normal_(0, 0.5)
    model.roi_heads.box_predictor.bbox_pred.weight.normal_(0, 0.1)
    # Keep activations of the random trunk near one.
    for stage in (model.backbone.body.layer1, model.backbone.body.layer2, model.backbone.body.layer3):
        for block in stage:
            block.bn3.weight.mul_(0.3)
    for block in model.backbone.body.layer4:
        block.bn3.weight.mul_(0.1)
    # Its pooler guesses the levels' scales from the first image that it sees, and keeps them: from one as small and
    # odd as the last of `BATCHES` it would guess wrong.
    model.eval()([torch.rand(3, 160, 224)])
    return model


@pytest.fixture(scope="module")
def ours(theirs: torch.nn.Module) -> TwoStageDetector:
    imported = interop.import_weights(theirs.state_dict(), **FEW)
    assert isinstance(imported.module, TwoStageDetector)
    assert imported.dialect.name == "torchvision"
    assert not [name for name in imported.leftover if not name.endswith("num_batches_tracked")]
    return imported.module.eval()


def _batch(*sizes: tuple[int, int], seed: int = 0) -> ImageBatch:
    generator = torch.Generator().manual_seed(seed)
    height, width = (-(-max(side) // 32) * 32 for side in zip(*sizes, strict=True))
    pixels = torch.zeros(len(sizes), 3, height, width)
    for row, (h, w) in zip(pixels, sizes, strict=True):
        row[:, :h, :w] = torch.randn(3, h, w, generator=generator)
    return ImageBatch(pixels, torch.tensor(sizes))


BATCHES = [_batch((160, 224)), _batch((160, 213), (151, 160), seed=1), _batch((33, 97), seed=2)]
IDS = ["one", "two-odd", "one-odd"]


def _image_list(images: ImageBatch) -> ImageList:
    return ImageList(images.pixels, [(int(h), int(w)) for h, w in images.sizes])


def _close(got: Tensor, wanted: Tensor) -> None:
    got, wanted = got.detach(), wanted.detach()
    assert got.shape == wanted.shape
    scale = max(float(wanted.abs().max()), 1.0) if wanted.numel() else 1.0
    torch.testing.assert_close(got / scale, wanted / scale, rtol=0, atol=1e-4)


@pytest.mark.parametrize("images", BATCHES, ids=IDS)
@torch.no_grad()
def test_pyramid_and_rpn_agree(theirs, ours, images) -> None:
    their_features = list(theirs.backbone(images.pixels).values())
    our_features = ours.features(images.pixels)
    assert list(our_features) == ["p2", "p3", "p4", "p5", "p6"]
    for got, wanted in zip(our_features.values(), their_features, strict=True):
        _close(got, wanted)
    their_scores, their_deltas = theirs.rpn.head(their_features)
    raw = ours.rpn(our_features)
    for got, wanted in zip(raw.objectness + raw.deltas, their_scores + their_deltas, strict=True):
        _close(got, wanted)


@pytest.mark.parametrize("images", BATCHES, ids=IDS)
@torch.no_grad()
def test_proposals_agree(theirs, ours, images) -> None:
    wanted, _ = theirs.rpn(_image_list(images), theirs.backbone(images.pixels))
    for got, boxes in zip(ours.proposals(images), wanted, strict=True):
        assert len(got) > 20
        _close(got.boxes, boxes)


@pytest.mark.parametrize("images", BATCHES, ids=IDS)
@torch.no_grad()
def test_class_scores_agree_on_the_same_boxes(theirs, ours, images) -> None:
    features = theirs.backbone(images.pixels)
    boxes, _ = theirs.rpn(_image_list(images), features)
    pooled = theirs.roi_heads.box_roi_pool(features, boxes, [tuple(size.tolist()) for size in images.sizes])
    scores, deltas = theirs.roi_heads.box_predictor(theirs.roi_heads.box_head(pooled))
    our_scores, our_deltas = ours.roi_heads.box(ours.features(images.pixels), images, boxes)
    _close(our_scores[:, :-1], scores[:, 1:])
    _close(our_scores[:, -1], scores[:, 0])
    _close(our_deltas, deltas[:, 4:])


@pytest.mark.parametrize("images", BATCHES, ids=IDS)
@torch.no_grad()
def test_final_detections_agree(theirs, ours, images) -> None:
    image_list = _image_list(images)
    features = theirs.backbone(images.pixels)
    boxes, _ = theirs.rpn(image_list, features)
    wanted, _ = theirs.roi_heads(features, boxes, image_list.image_sizes)
    for got, want in zip(ours.detect(images), wanted, strict=True):
        assert len(got) > 10
        assert got.labels.tolist() == (want["labels"] - 1).tolist()
        _close(got.scores, want["scores"])
        _close(got.boxes, want["boxes"])


@torch.no_grad()
def test_an_image_without_detections_gives_none(theirs, ours) -> None:
    images = BATCHES[0]
    theirs_limit, theirs.roi_heads.score_thresh = theirs.roi_heads.score_thresh, 1.1
    (want,) = theirs([images.pixels[0]])
    theirs.roi_heads.score_thresh = theirs_limit
    box = ours.roi_heads.box
    config, box.config = box.config, box.config.changed(score_limit=0.999)
    (got,) = ours.detect(images)
    box.config = config
    assert len(want["boxes"]) == len(got) == 0
    assert got.boxes.shape == (0, 4)


def _targets(with_empty: bool) -> list[Targets]:
    first = Targets(torch.tensor([[10.0, 20.0, 90.0, 120.0], [60.0, 30.0, 75.0, 52.0]]), torch.tensor([1, 4]))
    second = Targets.empty() if with_empty else Targets(torch.tensor([[5.0, 5.0, 150.0, 140.0]]), torch.tensor([0]))
    return [first, second]


@pytest.mark.parametrize("with_empty", [False, True], ids=["objects", "one-without-objects"])
def test_training_losses_agree_on_the_same_samples(theirs, ours, with_empty) -> None:
    """Both sides take every candidate, so that no random choice differs."""
    images, targets = BATCHES[1], _targets(with_empty)
    everything = 10**6
    theirs.rpn.fg_bg_sampler.batch_size_per_image = everything
    theirs.roi_heads.fg_bg_sampler.batch_size_per_image = everything
    theirs.roi_heads.fg_bg_sampler.positive_fraction = theirs.rpn.fg_bg_sampler.positive_fraction = 0.5
    ours.rpn.sampler = _take(ours.rpn.sampler, everything)
    ours.roi_heads.box.sampler = _take(ours.roi_heads.box.sampler, everything)
    their_targets = [{"boxes": t.boxes, "labels": t.labels + 1} for t in targets]
    theirs.rpn.train()
    theirs.roi_heads.train()
    features = theirs.backbone(images.pixels)
    boxes, want = theirs.rpn(_image_list(images), features, their_targets)
    _, more = theirs.roi_heads(features, boxes, _image_list(images).image_sizes, their_targets)
    theirs.eval()
    got = ours.losses(images, targets).terms
    _close(got["objectness"], want["loss_objectness"])
    _close(got["rpn_box"], want["loss_rpn_box_reg"])
    _close(got["classification"], more["loss_classifier"])
    _close(got["box"], more["loss_box_reg"])


def _take(sampling, count):
    return replace(sampling, config=sampling.config.changed(count=count, positive_fraction=0.5))


@pytest.mark.parametrize("size", [(120, 160), (333, 211), (160, 1000), (64, 64)])
def test_the_preprocessor_does_what_theirs_does(theirs, ours, size) -> None:
    values = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    preprocessor = Preprocessor(ours.preprocessor.config.changed(short_side=160, long_side=240))
    prepared = preprocessor.prepare(
        Image.fromarray(values), Targets(torch.tensor([[3.0, 4.0, 50.0, 60.0]]), torch.tensor([0]))
    )
    image = torch.from_numpy(values).permute(2, 0, 1).float() / 255
    boxes = {"boxes": torch.tensor([[3.0, 4.0, 50.0, 60.0]]), "labels": torch.tensor([1])}
    want, targets = theirs.transform([image], [boxes])
    images = preprocessor.collate([prepared.pixels])
    assert [tuple(size) for size in images.sizes.tolist()] == want.image_sizes
    _close(images.pixels, want.tensors)
    _close(prepared.targets.boxes, targets[0]["boxes"])
