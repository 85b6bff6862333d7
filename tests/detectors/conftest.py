from __future__ import annotations

import pytest
import torch

import fpn
from fpn.detectors import FasterRCNN


@pytest.fixture(scope="session")
def small() -> FasterRCNN:
    """A detector with random weights that runs in milliseconds and finds something everywhere."""
    torch.manual_seed(0)
    detector = fpn.faster_rcnn(
        backbone="tf_efficientnet_lite0",
        weights=None,
        classes=fpn.Classes(("cell", "platelet"), (7, 3)),
        short_side=64,
        neck_channels=8,
        neck_output_channels=8,
        head_width=16,
        box_score_limit=0.2,
        box_limit=10,
    )
    with torch.no_grad():
        detector.box.scores.weight.normal_(0, 1.0)
        detector.rpn.objectness.weight.normal_(0, 1.0)
        detector.rpn.deltas.weight.normal_(0, 0.1)
    return detector.eval()
