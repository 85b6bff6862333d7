from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import checked_types
import pytest
from hypothesis import settings

checked_types.install()

if TYPE_CHECKING:
    from fpn.detectors import TwoStageDetector

# The default of OpenMP, said aloud: then nothing is done and told about other work on the machine, which would stand
# between the lines that tests compare.
os.environ.setdefault("OMP_PROC_BIND", "false")
# Tests that run side by side have one core each; two teams of threads on the same cores would wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in every run, so that a change alone can turn a test red.
settings.register_profile("fixed", derandomize=True, database=None)
settings.load_profile("fixed")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _shared(relative: str) -> Path:
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"needs ../shared/{relative}, which is not in this checkout")
    return path


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture
def bccd_root() -> Path:
    return _shared("data/bccd")


@pytest.fixture
def coco128_root() -> Path:
    return _shared("data/coco128")


def build_small(backbone: str = "tf_efficientnet_lite0") -> TwoStageDetector:
    """A detector with random weights that runs in milliseconds and finds something everywhere."""
    # Here, not above: where no test needs it, torch is not waited for.
    import torch

    import fpn

    torch.manual_seed(0)
    detector = fpn.faster_rcnn(
        backbone=backbone,
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
        detector.roi_heads.box.scores.weight.normal_(0, 1.0)
        detector.rpn.objectness.weight.normal_(0, 1.0)
        detector.rpn.deltas.weight.normal_(0, 0.1)
    return detector.eval()


@pytest.fixture(scope="session")
def small() -> TwoStageDetector:
    """One for all tests, which is as the last test has left it."""
    return build_small()


@pytest.fixture(scope="session")
def lean() -> TwoStageDetector:
    """Another one with a backbone of few layers: these are what an export's time goes with."""
    return build_small("test_efficientnet")


@pytest.fixture(scope="session")
def untouched() -> TwoStageDetector:
    """Another one like `small`, for tests whose numbers depend on its weights, and which change nothing in it."""
    return build_small()
