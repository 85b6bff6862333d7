from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from fpn.evaluation.tasks import TASKS
from fpn.training import validation

Found = float | dict[str, float]


@pytest.fixture
def aps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Found]]:
    """What the next validations find, first one first: an AP, or values by metric."""
    coming: list[Found] = []

    def measure(*_: object, **__: object) -> SimpleNamespace:
        found = coming.pop(0)
        found = found if isinstance(found, dict) else {"ap": found}
        metrics = {**dict.fromkeys(TASKS["boxes"].metrics, 0.0), **found}
        return SimpleNamespace(metrics=metrics, unreadable={}, limit=None)

    monkeypatch.setattr(validation, "measure", measure)
    yield coming
    assert coming == [], "not every validation took place"
