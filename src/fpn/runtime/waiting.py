"""How OpenMP's threads wait for one another: spinning while the machine is theirs, asleep while others need it.

Torch cuts each operation into as many parts as it has threads, and the threads wait for the last one. GNU OpenMP, which
torch comes with on Linux, has them spin for about 3 ms before they sleep: nothing is faster as long as every thread has
a core of its own. With other work on the machine the last thread waits for a core on which another one spins, hundreds
of times in a training step, which then takes several times as long as its share of the machine would allow.

So while other processes take cores that our threads need, two things change. Threads that wait sleep at once. And all
of them stay on the cores that others leave: a thread alone on a core with a process that never pauses waits for that
one's turn to end, milliseconds at each operation, while the others wait for it; together with another thread of ours it
goes on when that one sleeps.

The number of threads stays, hence the parts of each operation and the order of every sum: **results are the same to
the bit**, whatever the machine does meanwhile. Fewer threads would be as fast, with other results.

Other OpenMP libraries (LLVM's, Intel's) give way while they spin; nothing is done about these.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Protocol, runtime_checkable

import torch

from fpn.runtime.load import Reading, Usage, read_load
from fpn.runtime.openmp import Corner, SecondTeam, loaded_libgomps

# Between two looks at the machine: 50 ticks of the kernel's clock a core, by which it counts.
_SECONDS = 0.5
# Cores that others take of those that our threads need. To sleep and to be woken costs up to a third of a step on an
# idle machine, to spin beside one busy process 80 % and more; at 0.2 cores the two are about equal (2 cores, AMD EPYC).
_MUCH, _LITTLE = 0.2, 0.1
# Looks in a row at a machine with little other work before threads spin again.
_CALM_LOOKS = 3
# Whoever set one of these has decided how threads wait or where they are.
_DECIDED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY")


class Judge:
    """Whether others need our cores: yes at once, no after a while.

    Args:
        threads: that we have.
        cores: that we may use; at least as many.
    """

    def __init__(self, *, threads: int, cores: int) -> None:
        self._threads, self._cores = threads, cores
        self._others = 0.0
        self._calm_looks = 0
        self.crowded = False

    def hear(self, others: float) -> bool:
        """Cores that other processes used lately -> whether the machine is crowded."""
        missing = others - (self._cores - self._threads)
        self._calm_looks = self._calm_looks + 1 if missing < _LITTLE else 0
        if missing > _MUCH:
            self.crowded = True
        elif self._calm_looks >= _CALM_LOOKS:
            self.crowded = False
        self._others = others
        return self.crowded

    @property
    def width(self) -> int:
        """Cores to stay on: as few as those that others leave allow without our threads taking longer.

        On three free cores four threads take two turns, as on two.
        """
        free = min(max(math.floor(self._cores - self._others + 0.5), 1), self._threads)
        turns = math.ceil(self._threads / free)
        return self._cores if turns == 1 else math.ceil(self._threads / turns)


@runtime_checkable
class Lever(Protocol):
    """What is done about a crowded machine.

    Attributes:
        cores: where our threads are now.
    """

    @property
    def cores(self) -> frozenset[int]: ...  # noqa: D102

    def give_way(self, width: int, others: Mapping[int, float]) -> None:
        """Sleep while waiting, and stay on `width` cores; `others`: the use of each core by other processes, 0..1."""

    def spread(self) -> None:
        """Spin while waiting, on all cores."""

    def after_fork(self) -> None:
        """A forked process is on its own."""


class Threads:
    """OpenMP's threads, as a lever.

    Args:
        team: makes waiting threads sleep.
        corner: where all threads stay.
    """

    def __init__(self, team: SecondTeam, corner: Corner) -> None:
        self._team, self._corner = team, corner

    @property
    def cores(self) -> frozenset[int]:
        """See `Lever`."""
        return self._corner.taken

    def give_way(self, width: int, others: Mapping[int, float]) -> None:
        """See `Lever.give_way`."""
        self._team.start()
        self._corner.take(width, others)

    def spread(self) -> None:
        """See `Lever.spread`."""
        self._corner.leave()
        self._team.stop()

    def after_fork(self) -> None:
        """See `Lever.after_fork`."""
        self._corner.leave_in_child()


class Attendant:
    """Looks at the machine while somebody computes, and moves the lever.

    Args:
        judge: whether the machine is crowded.
        lever: what to do about it.
        read: the machine's work until now; None: not known.
        clock: seconds, as those of `read`.
        seconds: between looks.
    """

    def __init__(
        self,
        *,
        judge: Judge,
        lever: Lever,
        read: Callable[[], Reading | None],
        clock: Callable[[], float] = time.monotonic,
        seconds: float = _SECONDS,
    ) -> None:
        self.lever = lever
        self._judge, self._read, self._clock, self._seconds = judge, read, clock, seconds
        self._last = read()
        self._listeners: list[Callable[[str], None]] = []
        self._users = 0
        self._lock = threading.Lock()
        self._end = threading.Event()

    @contextmanager
    def at_work(self, say: Callable[[str], None] | None = None) -> Iterator[None]:
        """Inside the `with` the machine is watched, by one thread for all that compute; see `considerate`."""
        listeners = [] if say is None else [say]
        self._begin(listeners)
        try:
            yield
        finally:
            self._finish(listeners)

    def _begin(self, listeners: list[Callable[[str], None]]) -> None:
        with self._lock:
            self._listeners += listeners
            self._users += 1
            self._look()  # one prediction after another is too short for a look of its own
            if self._users == 1:
                self._end = threading.Event()
                threading.Thread(target=self._watch, args=(self._end,), name="fpn-waiting", daemon=True).start()

    def _finish(self, listeners: list[Callable[[str], None]]) -> None:
        with self._lock:
            for each in listeners:
                if each in self._listeners:
                    self._listeners.remove(each)
            self._users -= 1
            if self._users == 0:
                self._end.set()
                self.lever.spread()  # what else this process does is not ours to judge

    def _watch(self, end: threading.Event) -> None:
        while not end.wait(self._seconds):
            with self._lock:
                if end.is_set():
                    return
                self._look()

    def _look(self) -> None:
        last = self._last
        others: dict[int, float] = {}
        if last is None or self._clock() - last.clock >= self._seconds:
            self._last = self._read()
            if last is not None and self._last is not None:
                usage = Usage.between(last, self._last)
                others = self._others_by_core(usage)
                if self._judge.hear(usage.others):
                    self._tell(usage.others)
        if self._judge.crowded:
            self.lever.give_way(self._judge.width, others)
        else:
            self.lever.spread()

    def _others_by_core(self, usage: Usage) -> dict[int, float]:
        """All that we did, we did on the cores we stay on."""
        share = usage.own / len(self.lever.cores)
        return {core: busy - share * (core in self.lever.cores) for core, busy in usage.busy.items()}

    def _tell(self, others: float) -> None:
        """Once to each who listens."""
        while self._listeners:
            self._listeners.pop()(
                f"other processes use {others:.1f} cores of this machine: work keeps to those that are left until they "
                "need less, and takes longer; results stay the same"
            )


@contextmanager
def considerate(say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Inside the `with`, OpenMP's threads give way to other processes whenever these need the cores.

    Results do not change. Nothing happens where torch uses one thread, less than half of the cores or another OpenMP,
    where the system does not tell how busy it is, and where the environment says how threads wait or where they are
    (OMP_WAIT_POLICY, GOMP_SPINCOUNT, OMP_PROC_BIND, OMP_PLACES, GOMP_CPU_AFFINITY). Processes that are started inside
    may inherit the cores that this one stays on; forked ones do not.

    Args:
        say: told once, when it first happens.
    """
    attendant = _the_attendant()
    if attendant is None:
        yield
        return
    with attendant.at_work(say):
        yield


_lock = threading.Lock()
_attendants: dict[int, Attendant | None] = {}


def _the_attendant() -> Attendant | None:
    """The process's attendant for as many threads as torch has now; None where there is nothing to do."""
    threads = torch.get_num_threads()
    with _lock:
        if threads not in _attendants:
            _attendants[threads] = _make_attendant(threads)
        return _attendants[threads]


def _make_attendant(threads: int) -> Attendant | None:
    libraries = loaded_libgomps()
    if threads == 1 or not libraries or any(name in os.environ for name in _DECIDED):
        return None
    cores = frozenset(os.sched_getaffinity(0))
    # More threads than cores sleep at once anyway; where half of the cores are free, others have room.
    if not threads <= len(cores) <= 2 * threads or read_load(cores) is None:
        return None
    return Attendant(
        judge=Judge(threads=threads, cores=len(cores)),
        lever=Threads(SecondTeam(libraries, len(cores) - threads + 2), Corner(cores)),
        read=partial(read_load, cores),
    )


def _after_fork() -> None:
    """A forked process has neither the attendants' threads nor whoever held a lock."""
    global _lock
    _lock = threading.Lock()
    attendants = [each for each in _attendants.values() if each is not None]
    _attendants.clear()
    for each in attendants:
        each.lever.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
