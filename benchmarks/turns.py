"""Where results are kept, and what is said beside them; how sides take turns is the package's."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fpn
from fpn.studies.benchmark.machine import describe_machine
from fpn.studies.benchmark.turns import Side, in_turns

__all__ = ["RESULTS", "Side", "about", "in_turns", "keep", "short_training"]

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


def short_training(steps: int) -> fpn.TrainConfig:
    """How a light detector learns from drawn scenes: four at a time, on the CPU, without validation."""
    return fpn.TrainConfig(
        steps=steps,
        batch_size=4,
        learning_rate=5e-4,
        optimizer="adamw",
        ema_decay=0.99,
        validate_every=0,
        workers=0,
        device="cpu",
    )
