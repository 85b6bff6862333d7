from __future__ import annotations

import os
from pathlib import Path

import pytest

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
