"""A saved file of each of torchvision's detectors with a pyramid, through `fpn import`, beside the original, live."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import detection

from fpn.detectors.recipe import DenseRecipe
from fpn.interop import import_weights
from fpn.interop.findings import needed
from fpn.interop.importing import require_detector
from fpn.interop.proof import compare_torchvision
from fpn.interop.weight_names import NAMES

# Those that nothing else in the suite compares; FPN_ALL_TORCHVISION=1 has all of them, in a minute.
FEW = ("fasterrcnn_mobilenet_v3_large_fpn", "retinanet_resnet50_fpn")
KINDS = {
    "fasterrcnn_resnet50_fpn": "faster_rcnn",
    "fasterrcnn_resnet50_fpn_v2": "faster_rcnn",
    "fasterrcnn_mobilenet_v3_large_fpn": "faster_rcnn",
    "fasterrcnn_mobilenet_v3_large_320_fpn": "faster_rcnn",
    "maskrcnn_resnet50_fpn": "mask_rcnn",
    "maskrcnn_resnet50_fpn_v2": "mask_rcnn",
    "keypointrcnn_resnet50_fpn": "keypoint_rcnn",
    "retinanet_resnet50_fpn": "retinanet",
    "retinanet_resnet50_fpn_v2": "retinanet",
    "fcos_resnet50_fpn": "fcos",
}
# torchvision's own, that no weight tells.
OWN = {"fasterrcnn_mobilenet_v3_large_320_fpn": {"rpn_before_nms": (2000, 150), "rpn_after_nms": (2000, 150)}}
NUM_CLASSES = 3


@torch.no_grad()
def decisive(name: str) -> nn.Module:
    """Random weights that find something: norms that keep maps in range, heads that tell places apart."""
    torch.manual_seed(0)
    dense = name.startswith(("retinanet", "fcos"))
    model = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=NUM_CLASSES + (not dense))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    for key, value in model.named_parameters():
        if key.startswith("backbone.body") and key.endswith("bn3.weight"):
            value.fill_(0.3)
        if key.endswith(("cls_logits.weight", "cls_score.weight")):
            value.normal_(0, 0.1)
        if key.endswith(("bbox_pred.weight", "bbox_reg.weight")):
            value.normal_(0, 0.01)
        if key.endswith("cls_logits.bias") and dense:
            value.fill_(-1.0)
    if dense:
        for head in (model.head.classification_head, model.head.regression_head):
            for module in head.conv.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight)
    return model


@pytest.mark.parametrize("name", NAMES if os.environ.get("FPN_ALL_TORCHVISION") else FEW)
def test_a_saved_file_detects_as_torchvision_does(name: str, tmp_path: Path) -> None:
    path = tmp_path / "epoch_25.pth"
    torch.save({"model": decisive(name).state_dict(), "epoch": 25}, path)
    imported = import_weights(path, **{"short_side": 96, "long_side": 160, **OWN.get(name, {})})
    detector = require_detector(imported, name)
    assert imported.toolkit == "torchvision"
    assert detector.recipe.kind == KINDS[name]
    assert needed(imported.leftover) == ()
    assert len(detector.classes) == NUM_CLASSES
    (proof,) = compare_torchvision(detector, path)
    print(f"{name}: {proof}")  # -rP shows it
    assert proof.theirs > (30 if isinstance(detector.recipe, DenseRecipe) else 10)
    assert proof.same == proof.theirs == proof.ours
    assert proof.box < 0.01
    assert proof.score < 1e-4
