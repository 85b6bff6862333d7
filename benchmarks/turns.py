"""Where results are kept, and what is said beside them; how sides take turns is the package's."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpn.studies.benchmark.machine import describe_machine
from fpn.studies.benchmark.turns import Side, in_turns

__all__ = ["RESULTS", "Side", "about", "in_turns", "keep"]

RESULTS = Path(__file__).parent / "results"


def about() -> dict[str, object]:
    """Date, hardware, and how this process was called, without the machine's paths."""
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])
    return {**describe_machine(), "command": command}


def keep(name: str, result: Mapping[str, Any]) -> None:
    """Write a result with its date, hardware and command to `results/NAME.json`."""
    text = json.dumps({**about(), **result}, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
