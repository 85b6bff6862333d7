"""What a run wrote of itself while it trained: `metrics.jsonl` and `run.json` beside a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpn.training.run_record import METRICS, RUN

# Points of a curve that are kept.
_POINTS = 200
# Of an epoch's line, what is drawn.
_MEASURED = ("ap", "ap50", "mask_ap", "keypoint_ap")


def read_curves(run: Path | None) -> dict[str, Any]:
    """The course of a training.

    Args:
        run: a run's folder; None: there is none.

    Returns:
        "found": whether there is one, else "why" not. "steps": step, learning rate and losses of each log line,
        thinned. "epochs": epoch and what was measured after it.
    """
    path = None if run is None else run / METRICS
    if path is None or not path.is_file():
        where = "its folder was not named" if run is None else f"no {METRICS} lies beside the model"
        return {"found": False, "why": where, "steps": [], "epochs": []}
    steps, epochs, damaged = [], [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        entry = _parse(line)
        if entry is None:
            damaged += 1
        elif entry.get("kind") == "step" and _is_number(entry.get("step")):
            steps.append(_numbers_of(entry))
        elif entry.get("kind") == "epoch" and _is_number(entry.get("epoch")):
            epochs.append({key: entry[key] for key in ("epoch", *_MEASURED) if _is_number(entry.get(key))})
    every = -(-len(steps) // _POINTS) or 1
    return {
        "found": True,
        "why": "",
        "damaged_lines": damaged,
        "steps": steps[::every],
        "epochs": [each for each in epochs if len(each) > 1],
        "record": _record(run),
    }


def _record(run: Path | None) -> dict[str, Any] | None:
    """What `run.json` says of the data and the settings, without paths of the machine."""
    if run is None:
        return None
    try:
        record = json.loads((run / RUN).read_text(encoding="utf-8"))
        return {key: record[key] for key in ("fpn", "config", "data", "environment") if key in record}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _parse(line: str) -> Mapping[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _numbers_of(entry: Mapping[str, Any]) -> dict[str, float | int]:
    return {str(key): value for key, value in entry.items() if _is_number(value)}


def _is_number(value: object) -> bool:
    """Finite, and no switch."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
