from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from shell import Shell
from written_sets import write_coco

from fpn.cli import rate_test
from fpn.errors import ConfigError


@pytest.fixture
def words(tmp_path: Path, settings: Path) -> list[object]:
    return ["train", write_coco(tmp_path / "set"), "--config", settings, "--find-lr"]


def test_a_range_test_tells_its_time_and_leaves_figures_and_a_chart_beside_the_run(
    fpn: Shell, tmp_path: Path, words: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_test, "_STEPS", 30)
    ended = fpn(*words, "--output", tmp_path / "run")
    assert ended.status == 0, ended.err
    lines = ended.out.splitlines()
    assert any(line.startswith("range test: 30 steps at rising rates, about ") for line in lines)
    assert sum(line.endswith("  lowest") for line in lines) == 1
    assert not (tmp_path / "run").exists()
    found = json.loads((tmp_path / "run-find-lr.json").read_text())
    assert len(found["rates"]) == len(found["losses"]) == len(found["smoothed"]) >= 10
    assert found["rates"][0] == 1e-6
    assert "learning rate" in list(ET.fromstring((tmp_path / "run-find-lr.svg").read_text()).itertext())
    if found["suggestion"] is None:
        assert any(line.startswith("no suggestion: ") for line in lines)
    else:
        assert any(line.startswith(f"suggestion: --learning-rate {found['suggestion']:g} ") for line in lines)


def test_files_of_somebody_else_and_a_plan_beside_it_are_refused(
    fpn: Shell, tmp_path: Path, words: list[object]
) -> None:
    (tmp_path / "run-find-lr.svg").write_text("mine")
    assert "no earlier `fpn train --find-lr` wrote it" in fpn.fails(*words, "--output", tmp_path / "run")
    assert (tmp_path / "run-find-lr.svg").read_text() == "mine"
    assert "each stops before the other. Choose one" in fpn(*words, "--plan").err


def test_a_test_that_would_be_cut_off_is_refused_with_the_time_that_it_needs() -> None:
    rate_test._refuse_slow(900.0, 600.0)
    with pytest.raises(ConfigError, match=r"takes about 24 minutes here, and has 10 minutes. .* --time-budget 24m, or"):
        rate_test._refuse_slow(1440.0, 600.0)
