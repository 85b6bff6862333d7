"""How busy the machine is with other work than ours."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Reading:
    """The work of a machine until a moment.

    Attributes:
        clock: the moment, seconds.
        busy: seconds that each core was busy, by its number.
        own: seconds of them all that were ours.
    """

    clock: float
    busy: Mapping[int, float]
    own: float


@dataclass(frozen=True, slots=True)
class Usage:
    """What happened between two readings.

    Attributes:
        others: cores that other processes used on average.
        busy: the part of the time that each core was busy, by its number.
        own: cores that we used.
    """

    others: float
    busy: Mapping[int, float]
    own: float

    @classmethod
    def between(cls, before: Reading, later: Reading) -> Usage:
        """Of two readings at different moments."""
        seconds = later.clock - before.clock
        busy = {core: (later.busy[core] - before.busy[core]) / seconds for core in before.busy}
        own = (later.own - before.own) / seconds
        return cls(max(sum(busy.values()) - own, 0.0), busy, own)


def read_load(cores: Collection[int]) -> Reading | None:
    """What Linux counts for some cores; None elsewhere.

    Processes that gave way to others (`nice`) are not counted unless this one did as well.
    """
    try:
        text = Path("/proc/stat").read_text()
        ticks_a_second = os.sysconf("SC_CLK_TCK")
        gave_way = os.getpriority(os.PRIO_PROCESS, 0) > 0
    except (OSError, AttributeError, ValueError):
        return None
    ticks = count_ticks(text, gave_way=gave_way)
    busy = {core: ticks.get(core, 0) / ticks_a_second for core in cores}
    return Reading(time.monotonic(), busy, time.process_time())


def count_ticks(stat: str, *, gave_way: bool) -> dict[int, int]:
    """Ticks that each core was busy, `nice` ones only if `gave_way`, from the text of /proc/stat.

    Source: proc_stat(5).
    """
    ticks = {}
    for name, *columns in (line.split() for line in stat.splitlines()):
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, _idle, _disk, hard, soft, steal, *_ = map(int, columns)
            ticks[int(name[3:])] = user + system + hard + soft + steal + (nice if gave_way else 0)
    return ticks
