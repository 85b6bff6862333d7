"""What can be changed about OpenMP's threads while they work: how they wait, and on which cores."""

from __future__ import annotations

import ctypes
import os
import random
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

# A core of ours that is busier with others than the remaining ones, by so much of its time, was badly chosen.
_UNFAIR = 0.3


class SecondTeam:
    """OpenMP threads that do nothing, so that there are more of them than cores.

    libgomp reads its spin count when it is loaded, but it spins only 100 times "if there are more OpenMP threads than
    available CPUs" (its manual, GOMP_SPINCOUNT). This team makes it so, and ends it.

    Args:
        libraries: every libgomp of this process.
        size: threads of the team, the one that starts it included.
    """

    def __init__(self, libraries: Sequence[ctypes.CDLL], size: int) -> None:
        self._libraries, self._size = libraries, size
        self._end = threading.Event()
        self._leader: threading.Thread | None = None

    def start(self) -> None:
        """From now on threads that wait sleep at once."""
        if self._leader is None:
            self._end.clear()
            self._leader = threading.Thread(target=self._lead, name="fpn-second-team", daemon=True)
            self._leader.start()

    def stop(self) -> None:
        """From now on threads that wait spin again."""
        if self._leader is not None:
            self._end.set()
            self._leader.join()
            self._leader = None

    def _lead(self) -> None:
        for library in self._libraries:
            # What a compiler makes of `#pragma omp parallel num_threads(size)` around a function without effects.
            nothing = ctypes.cast(library.omp_get_thread_num, ctypes.c_void_p)
            library.GOMP_parallel(nothing, None, ctypes.c_uint(self._size), ctypes.c_uint(0))
        self._end.wait()  # the team lives as long as this thread


class Corner:
    """Some of the machine's cores, on which all threads of this process stay.

    Which ones is drawn: two processes that always took the first core would leave the second one empty.

    Args:
        cores: all that the process may use.
        chance: a source of its own; training seeds Python's.
    """

    def __init__(self, cores: Collection[int], chance: random.Random | None = None) -> None:
        self.all = frozenset(cores)
        self.taken = self.all
        self._chance = chance or random.Random()

    def take(self, width: int, others: Mapping[int, float] | None = None) -> None:
        """Stay on `width` cores: on those taken before, unless that many others are less busy.

        Args:
            width: cores; all of them or more: no limit.
            others: the part of its time that each core spent on other processes lately, if known.
        """
        if width >= len(self.all):
            self.leave()
        elif len(self.taken) != width or self._unfair(others or {}):
            self._move(frozenset(self._chance.sample(sorted(self.all), width)))

    def leave(self) -> None:
        """Let all threads go where they like."""
        self._move(self.all)

    def leave_in_child(self) -> None:
        """A forked process begins where its parent's thread was; it has work of its own."""
        if self.taken != self.all:
            os.sched_setaffinity(0, self.all)

    def _unfair(self, others: Mapping[int, float]) -> bool:
        rest = self.all - self.taken
        ours, theirs = (sum(others.get(core, 0.0) for core in part) / len(part) for part in (self.taken, rest))
        return ours > theirs + _UNFAIR

    def _move(self, cores: frozenset[int]) -> None:
        """Only threads that are where we left them: what somebody else has placed stays there."""
        if cores == self.taken:
            return
        for task in Path("/proc/self/task").iterdir():
            with suppress(OSError):  # ended meanwhile
                if os.sched_getaffinity(int(task.name)) == self.taken:
                    os.sched_setaffinity(int(task.name), cores)
        self.taken = cores


def loaded_libgomps() -> list[ctypes.CDLL]:
    """GNU OpenMP as this process has loaded it, as often as it has."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    paths = sorted({line.split()[-1] for line in lines if Path(line.split()[-1]).name.startswith("libgomp")})
    try:
        return [ctypes.CDLL(path) for path in paths]
    except OSError:  # replaced on disk since it was loaded
        return []
