"""Two or more ways to do the same, timed in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Side:
    """One way: what it returned last, and for each turn the wall time and this process's processor time in seconds."""

    outcome: Any = None
    wall: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Median wall time."""
        return statistics.median(self.wall)

    @property
    def busy_seconds(self) -> float:
        """Median processor time, which other programs on the machine disturb less."""
        return statistics.median(self.busy)


def in_turns(
    works: Mapping[str, Callable[[], Any]], *, repeats: int, warm: bool = True, device: torch.device | None = None
) -> dict[str, Side]:
    """Run each way `repeats` times, one after the other in each turn, and once before if `warm`.

    Args:
        works: the ways, by name.
        repeats: turns that count.
        warm: one turn before that does not count.
        device: where they work; a GPU is waited for.
    """
    sides = {name: Side() for name in works}
    for turn in range(repeats + warm):
        for name, work in works.items():
            synchronize(device)
            wall, busy = time.perf_counter(), time.process_time()
            sides[name].outcome = work()
            synchronize(device)
            wall, busy = time.perf_counter() - wall, time.process_time() - busy
            if turn >= warm:
                sides[name].wall.append(wall)
                sides[name].busy.append(busy)
    return sides


def synchronize(device: torch.device | None) -> None:
    """Wait until a GPU has done all that it was given."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
