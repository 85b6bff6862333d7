"""A detector as small as the presets make one, on disk, and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from shell import Shell
from written_sets import CLASSES

from fpn.detectors import faster_rcnn, save
from fpn.structures import Classes

SMALL = {"backbone": "tf_efficientnet_lite0", "short_side": 64, "long_side": 128, "head_width": 16, "channels": 16}


@pytest.fixture
def fpn(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained: it finds something of everything. Its category ids have gaps."""
    torch.manual_seed(0)
    detector = faster_rcnn(classes=Classes(CLASSES, (3, 7, 11)), weights=None, **SMALL)
    return save(detector, tmp_path_factory.mktemp("model") / "model.safetensors")
