"""torchvision's own RetinaNet and FCOS beside ours, with the same weights: predictions, losses and detections."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision.models.detection import fcos_resnet50_fpn, retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2
from torchvision.models.detection.image_list import ImageList

from fpn import interop
from fpn.detectors import OneStageDetector
from fpn.structures import ImageBatch, Targets
from parity.golden.compare import unmatched

NUM_CLASSES = 4
MODELS: dict[str, tuple[Callable[..., nn.Module], str]] = {
    "retinanet": (retinanet_resnet50_fpn, "torchvision"),
    "retinanet_v2": (retinanet_resnet50_fpn_v2, "torchvision_v2"),
    "fcos": (fcos_resnet50_fpn, "torchvision"),
}
TERMS = {"classification": "classification", "box": "bbox_regression", "centreness": "bbox_ctrness"}


@torch.no_grad()
def make(name: str) -> nn.Module:
    """Random weights that decide something."""
    torch.manual_seed(0)
    model = MODELS[name][0](weights=None, weights_backbone=None, num_classes=NUM_CLASSES)
    for module in model.backbone.body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for block in getattr(model.backbone.body, stage):
            block.bn3.weight.fill_(0.3)
    for head in (model.head.classification_head, model.head.regression_head):
        for module in head.conv.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
    model.head.classification_head.cls_logits.weight.normal_(0, 0.03)
    model.head.classification_head.cls_logits.bias.fill_(-2.0)
    model.head.regression_head.bbox_reg.weight.normal_(0, 0.01)
    return model.eval()


def batch() -> tuple[ImageBatch, list[Targets]]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(2, 3, 160, 224, generator=generator)
    pixels[1, :, :, 130:] = 0
    images = ImageBatch(pixels, torch.tensor([[160, 213], [151, 130]]))
    one = Targets(torch.tensor([[10.0, 12.0, 60.0, 70.0], [20.0, 8.0, 190.0, 150.0]]), torch.tensor([1, 3]))
    return images, [one, Targets(torch.tensor([[30.0, 40.0, 52.0, 55.0]]), torch.tensor([2]))]


@pytest.mark.parametrize("name", MODELS)
def test_predictions_losses_and_detections_are_torchvisions(name: str) -> None:
    theirs = make(name)
    imported = interop.import_weights(theirs.state_dict(), classes=[f"class {k}" for k in range(NUM_CLASSES)])
    ours = imported.module
    assert isinstance(ours, OneStageDetector)
    assert imported.dialect.name == MODELS[name][1]
    images, targets = batch()
    with torch.no_grad():
        features = list(theirs.backbone(images.pixels).values())
        outputs = theirs.head(features)
        listed = ImageList(images.pixels, [tuple(size) for size in images.sizes.tolist()])
        anchors = theirs.anchor_generator(listed, features)
        wanted = [{"boxes": each.boxes, "labels": each.labels} for each in targets]
        cells = [x.shape[2] * x.shape[3] for x in features]
        per_cell = outputs["cls_logits"].shape[1] // sum(cells)
        counts = [each * per_cell for each in cells]
        more = (counts,) if name == "fcos" else ()
        losses = theirs.compute_loss(wanted, outputs, anchors, *more)
        split = {key: list(value.split(counts, dim=1)) for key, value in outputs.items()}
        found = theirs.postprocess_detections(split, [list(a.split(counts)) for a in anchors], listed.image_sizes)

        raw = ours.dense_part(images.pixels)
        mine = ours.head.losses(raw, images, targets)
        detections = ours.detect(images)
    for term, value in mine.terms.items():
        assert float(value) == pytest.approx(float(losses[TERMS[term]]), rel=1e-4), term
    for got, expected in zip(detections, found, strict=True):
        assert len(got) == len(expected["scores"]) > 10
        rows, others = (
            torch.cat([boxes, labels[:, None].float(), scores[:, None] * 10], dim=1)
            for boxes, labels, scores in (
                (got.boxes, got.labels, got.scores),
                (expected["boxes"], expected["labels"], expected["scores"]),
            )
        )
        assert unmatched(others, rows, 1e-3) == 0
