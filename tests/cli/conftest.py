from __future__ import annotations

import pytest
from shell import Shell


@pytest.fixture
def fpn(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)
