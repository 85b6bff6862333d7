from __future__ import annotations

from pathlib import Path

import pytest
from shell import Shell
from written_sets import write_text

# Of a detector that trains in no time.
SMALL = """
recipe: small-data
backbone: test_efficientnet
weights: none
short-side: 32
long-side: 64
head-width: 16
channels: 16
batch-size: 2
workers: 0
precision: float32
device: cpu
"""


@pytest.fixture
def fpn(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    return write_text(tmp_path / "small.yaml", SMALL)
