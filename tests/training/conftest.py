from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from fpn.training import callbacks


@pytest.fixture
def aps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The APs that the next validations find, first one first."""
    coming: list[float] = []

    def measure(*_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(**{**dict.fromkeys(callbacks.MEASURES, 0.0), "ap": coming.pop(0)})

    monkeypatch.setattr(callbacks, "measure", measure)
    yield coming
    assert coming == [], "not every validation took place"
