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


FLAGS = "flags\t\t: fpu avx2 avx512f avx512_vnni\nflags\t\t: fpu avx2 avx512f avx512_vnni\n"


@pytest.mark.parametrize(
    ("cpuinfo", "told"),
    [
        (FLAGS, {"AVX2": "yes", "AVX-512": "yes", "VNNI": "yes", "AMX": "no"}),
        ("flags : avx2 avx_vnni\n", {"AVX2": "yes", "AVX-512": "no", "VNNI": "yes", "AMX": "no"}),
        ("Features : asimddp i8mm\n", {}),  # ARM
        ("", {}),  # no such file
    ],
)
def test_instructions_are_told_where_the_system_lists_them(
    monkeypatch: pytest.MonkeyPatch, cpuinfo: str, told: dict[str, str]
) -> None:
    monkeypatch.setattr(health, "_read", lambda path: cpuinfo)
    found = {fact.name: fact.value for fact in health.examine({}) if fact.group == "devices"}
    names = {"AVX2", "AVX-512", "VNNI", "AMX"}
    assert {name: value for name, value in found.items() if name in names} == told


def test_an_extra_is_one_line_that_names_what_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = [("numpy", "1", "ray"), ("no-such-package", "2", "ray"), ("no-such-package", "2", "video")]
    monkeypatch.setattr(health, "_requirements", lambda: needed)
    found = {fact.name: fact.value for fact in health.examine({}) if fact.group == "extras"}
    brings = "brings no-such-package 2 or later"
    assert found["ray"].startswith("incomplete, numpy ")
    assert found["ray"].endswith(f" alone; pip install 'fpn[ray]' {brings}")
    assert found["video"] == f"not installed; pip install 'fpn[video]' {brings}"
