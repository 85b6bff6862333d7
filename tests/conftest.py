from __future__ import annotations

import os
from collections.abc import Iterator
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

# Parts of names of the tests that take longest, in the order in which they begin: the last of all tests are short ones
# then, and no process waits at the end for another's long one.
LONGEST = (
    "test_an_onnx_file_is_proven",
    "training/test_distributed.py",
    "journeys/test_kill.py",
    "contracts/test_training_runs.py",
    "test_the_smallest_demo_runs_from_the_wheel",
    "shows[docs/guides/small-data.md]",
    "serving/test_process.py",
    "parity/golden",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need the same fixtures stay together: the rest keeps its order."""

    def turn(item: pytest.Item) -> int:
        return next((place for place, part in enumerate(LONGEST) if part in item.nodeid), len(LONGEST))

    items.sort(key=turn)


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


def build_small(backbone: str = "tf_efficientnet_lite0", **options: object) -> TwoStageDetector:
    """A detector with random weights that runs in milliseconds and finds something everywhere; `options`: of it."""
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
        **options,
    )
    with torch.no_grad():
        detector.roi_heads.box.scores.weight.normal_(0, 1.0)
        detector.rpn.objectness.weight.normal_(0, 1.0)
        detector.rpn.deltas.weight.normal_(0, 0.1)
    return detector.eval()


@pytest.fixture(scope="session")
def small() -> TwoStageDetector:
    """One for all tests, none of which changes it; see `_shared_detectors_stay`."""
    return build_small()


@pytest.fixture(scope="session")
def lean() -> TwoStageDetector:
    """Another one of few layers and levels: an export takes 15 s with these three, and 26 s with five.

    Two levels are merged and one stands above them; all three propose, and boxes are looked at on either of the two.
    """
    levels = {"neck_finest_level": 4, "anchors_sizes": ((8.0,), (16.0,), (32.0,)), "roi_canonical_size": 6.0}
    return build_small("test_efficientnet", **levels)


@pytest.fixture(autouse=True)
def _shared_detectors_stay(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that changed one of them would decide what those after it find."""
    shared = [name for name in ("small", "lean") if name in request.fixturenames]
    before = {name: _state(request.getfixturevalue(name)) for name in shared}
    yield
    for name in shared:
        assert _state(request.getfixturevalue(name)) == before[name], f"{request.node.nodeid} has changed `{name}`"


def _state(detector: TwoStageDetector) -> dict[str, object]:
    """Of weights how often they were written to, so that none has to be read."""
    tensors = {name: (each._version, id(each)) for name, each in detector.state_dict(keep_vars=True).items()}
    modes = {name: part.training for name, part in detector.named_modules()}
    about = (detector.recipe, detector.thresholds, dict(detector.training_record), detector.device)
    return {"weights": tensors, "modes": modes, "about": about}
