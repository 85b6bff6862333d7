from __future__ import annotations

import json

import pytest
from shell import Shell

from fpn.runtime import health
from fpn.runtime.health import Fact


def test_all_that_a_report_needs_is_told_as_text_and_as_json(fpn: Shell) -> None:
    ended = fpn("doctor")
    assert (ended.status, ended.err) == (0, "")
    told = json.loads(fpn("doctor", "--json").out)
    assert list(told)[:6] == ["program", "packages", "extras", "devices", "threads", "memory"]
    for group in ("program", "devices"):
        assert all(value in ended.out for name, value in told[group].items() if name != "default")
    assert told["packages"].keys() >= {"torch", "timm", "numpy"}
    assert told["extras"].keys() >= {"offline", "heif"}


def test_what_is_wrong_stands_below_and_is_no_failure(fpn: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = [Fact("packages", "torch", "2.1", "2.1 is too old"), Fact("packages", "timm", "1.0.20")]
    monkeypatch.setattr(health, "examine", lambda folders: facts)
    ended = fpn("doctor")
    assert ended.status == 0
    assert ended.out.splitlines() == [
        "packages",
        "  torch  2.1",
        "  timm   1.0.20",
        "",
        "what is wrong",
        "  torch: 2.1 is too old",
    ]
