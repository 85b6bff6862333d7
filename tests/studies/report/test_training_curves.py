from __future__ import annotations

import json
from pathlib import Path

from fpn.studies.report.training_curves import read_curves


def test_steps_and_epochs_are_read_and_broken_lines_counted(tmp_path: Path) -> None:
    lines = [
        json.dumps({"kind": "step", "step": 20, "loss": 2.0, "learning_rate": 0.1, "note": "x"}),
        json.dumps({"kind": "epoch", "epoch": 1, "ap": 0.25, "ap75": 0.1}),
        json.dumps({"kind": "epoch", "epoch": 2}),
        '{"kind": "step", "step": 4',
        '{"kind": "step", "step": 40, "loss": NaN}',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    found = read_curves(tmp_path)
    assert found["steps"] == [{"step": 20, "loss": 2.0, "learning_rate": 0.1}, {"step": 40}]
    assert found["epochs"] == [{"epoch": 1, "ap": 0.25}]
    assert found["damaged_lines"] == 1


def test_without_a_log_it_says_why(tmp_path: Path) -> None:
    assert read_curves(tmp_path)["why"] == "no metrics.jsonl lies beside the model"
    assert read_curves(None)["why"] == "its folder was not named"


def test_long_logs_are_thinned_to_200_points(tmp_path: Path) -> None:
    lines = (json.dumps({"kind": "step", "step": step, "loss": 1.0}) for step in range(1, 1001))
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert len(read_curves(tmp_path)["steps"]) == 200
