"""Two or more ways to do the same, timed in turns; and where results are kept."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import machine

RESULTS = Path(__file__).parent / "results"


@dataclass
class Side:
    """One way: what it returned last, and for each turn the wall time and this process's processor time in seconds."""

    outcome: Any = None
    wall: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return statistics.median(self.wall)

    @property
    def busy_seconds(self) -> float:
        return statistics.median(self.busy)


def in_turns(works: Mapping[str, Callable[[], Any]], *, repeats: int, warm: bool = True) -> dict[str, Side]:
    """Run each way `repeats` times, one after the other in each turn, and once before if `warm`."""
    sides = {name: Side() for name in works}
    for turn in range(repeats + warm):
        for name, work in works.items():
            wall, busy = time.perf_counter(), time.process_time()
            sides[name].outcome = work()
            wall, busy = time.perf_counter() - wall, time.process_time() - busy
            if turn >= warm:
                sides[name].wall.append(wall)
                sides[name].busy.append(busy)
    return sides


def keep(name: str, result: Mapping[str, Any]) -> None:
    """Write a result with its date, hardware and command to `results/NAME.json`."""
    # Where the data lies is this machine's affair.
    command = " ".join(Path(word).name if word.startswith("/") else word for word in machine.command().split())
    text = json.dumps({**machine.describe(), "command": command, **result}, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
