"""Where results are kept; how sides take turns is the package's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import machine

from fpn.studies.benchmark.turns import Side, in_turns

__all__ = ["RESULTS", "Side", "in_turns", "keep"]

RESULTS = Path(__file__).parent / "results"


def keep(name: str, result: Mapping[str, Any]) -> None:
    """Write a result with its date, hardware and command to `results/NAME.json`."""
    # Where the data lies is this machine's affair.
    command = " ".join(Path(word).name if word.startswith("/") else word for word in machine.command().split())
    text = json.dumps({**machine.describe_machine(), "command": command, **result}, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
