"""How OpenMP's threads wait for one another: spinning while the machine is theirs, asleep while others need it.

Torch cuts each operation into as many parts as it has threads, and the threads wait for the last one. GNU OpenMP, which
torch comes with on Linux, has them spin for about 3 ms before they sleep: nothing is faster as long as every thread has
a core of its own. With other work on the machine the last thread waits for a core on which another one spins, hundreds
of times in a training step, which then takes several times as long as its share of the machine would allow.

So while other processes take the cores that our threads need, threads sleep at once. Their number stays, hence the
parts and the order of every sum: **results are the same to the bit**, whatever the machine does meanwhile.

libgomp reads its spin count when it is loaded, but it spins only 100 times "if there are more OpenMP threads than
available CPUs" (its manual, GOMP_SPINCOUNT). A second team of threads that sleep all the time makes it so, and ends it.
Other OpenMP libraries (LLVM's, Intel's) give way while they spin; nothing is done about these.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

# Between two looks at the machine: 50 ticks of the kernel's clock a core, by which it counts.
_SECONDS = 0.5
# Cores that others take of those that our threads need. To sleep and to be woken costs a third of a step on an idle
# machine, to spin beside one busy process 80 %; at 0.2 cores the two are equal (two cores, AMD EPYC).
_MUCH, _LITTLE = 0.2, 0.1
# Looks in a row at a machine with little other work before threads spin again.
_CALM_LOOKS = 3
# Whoever set one of these has decided.
_DECIDED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@dataclass(frozen=True, slots=True)
class Reading:
    """The work of a machine until a moment.

    Attributes:
        clock: the moment, seconds.
        busy: seconds that the cores we may use were busy, all together.
        own: seconds of them that were ours.
    """

    clock: float
    busy: float
    own: float

    def others(self, later: Reading) -> float:
        """Cores that other processes used on average until `later`."""
        used = (later.busy - self.busy) - (later.own - self.own)
        return max(used, 0.0) / (later.clock - self.clock)


class Judge:
    """Whether others need our cores: yes at once, no after a while.

    Args:
        spare: cores that our threads leave.
    """

    def __init__(self, spare: int) -> None:
        self.spare = spare
        self.crowded = False
        self._calm_looks = 0

    def hear(self, others: float) -> bool:
        """Cores that other processes used lately -> whether the machine is crowded."""
        missing = others - self.spare
        self._calm_looks = self._calm_looks + 1 if missing < _LITTLE else 0
        if missing > _MUCH:
            self.crowded = True
        elif self._calm_looks >= _CALM_LOOKS:
            self.crowded = False
        return self.crowded


@runtime_checkable
class Lever(Protocol):
    """What makes waiting threads sleep at once, or spin again."""

    def sleep(self) -> None: ...  # noqa: D102

    def spin(self) -> None: ...  # noqa: D102


class SecondTeam:
    """OpenMP threads that do nothing, so that there are more of them than cores.

    Args:
        libraries: every libgomp of this process.
        size: threads of the team, the one that starts it included.
    """

    def __init__(self, libraries: Sequence[ctypes.CDLL], size: int) -> None:
        self._libraries, self._size = libraries, size
        self._end = threading.Event()
        self._leader: threading.Thread | None = None

    def sleep(self) -> None:
        """Threads that wait sleep at once."""
        if self._leader is None:
            self._end.clear()
            self._leader = threading.Thread(target=self._lead, name="fpn-second-team", daemon=True)
            self._leader.start()

    def spin(self) -> None:
        """Threads that wait spin again."""
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


class Attendant:
    """Looks at the machine while somebody computes, and moves the lever.

    Args:
        judge: whether the machine is crowded.
        lever: what to do about it.
        read: the machine's work until now; None: not known.
        seconds: between looks.
    """

    def __init__(
        self, *, judge: Judge, lever: Lever, read: Callable[[], Reading | None], seconds: float = _SECONDS
    ) -> None:
        self._judge, self._lever, self._read, self._seconds = judge, lever, read, seconds
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
            self._judge_now()  # one prediction after another is too short for a look of its own
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
                self._lever.spin()  # what else this process does is not ours to judge

    def _watch(self, end: threading.Event) -> None:
        while not end.wait(self._seconds):
            with self._lock:
                if end.is_set():
                    return
                self._judge_now()

    def _judge_now(self) -> None:
        reading, last = self._read(), self._last
        if reading is None or last is None:
            self._last = reading
            return
        if reading.clock - last.clock >= self._seconds:
            self._last = reading
            if self._judge.hear(last.others(reading)):
                self._tell(last.others(reading))
        if self._judge.crowded:
            self._lever.sleep()
        else:
            self._lever.spin()

    def _tell(self, others: float) -> None:
        """Once to each who listens."""
        while self._listeners:
            self._listeners.pop()(
                f"other processes use {others:.1f} cores: threads now sleep while they wait for one another, until the "
                "machine is theirs again; results stay the same"
            )


@contextmanager
def considerate(say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Inside the `with`, OpenMP's threads sleep while they wait for one another whenever others need the cores.

    Results do not change. Nothing happens where torch uses one thread, less than half of the cores or another OpenMP,
    where the system does not tell how busy it is, and where OMP_WAIT_POLICY or GOMP_SPINCOUNT are set.

    Args:
        say: told once, when it first happens.
    """
    attendant = _the_attendant()
    if attendant is None:
        yield
        return
    with attendant.at_work(say):
        yield


def read_machine() -> Reading | None:
    """What Linux counts for the cores that this process may use; None elsewhere.

    Processes that gave way to others (`nice`) are not counted unless this one did as well.
    """
    try:
        text = Path("/proc/stat").read_text()
        cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        gave_way = os.getpriority(os.PRIO_PROCESS, 0) > 0
    except (OSError, AttributeError):
        return None
    ticks = count_ticks(text, cores, gave_way=gave_way)
    return Reading(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time())


def count_ticks(stat: str, cores: Collection[str], *, gave_way: bool) -> int:
    """Ticks that some cores were busy, `nice` ones only if `gave_way`, from the text of /proc/stat (proc_stat(5))."""
    ticks = 0
    for name, *columns in (line.split() for line in stat.splitlines()):
        if name in cores:
            user, nice, system, _idle, _disk, hard, soft, steal, *_ = map(int, columns)
            ticks += user + system + hard + soft + steal + (nice if gave_way else 0)
    return ticks


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
    libraries = _libgomps()
    if threads == 1 or not libraries or any(name in os.environ for name in _DECIDED):
        return None
    cores = max(library.omp_get_num_procs() for library in libraries)

    # More threads than cores sleep at once anyway; where half of the cores are free, others have room.
    if not threads <= cores <= 2 * threads or read_machine() is None:
        return None
    return Attendant(judge=Judge(cores - threads), lever=SecondTeam(libraries, cores - threads + 2), read=read_machine)


def _libgomps() -> list[ctypes.CDLL]:
    """GNU OpenMP as this process has loaded it, as often as it has."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    paths = sorted({line.split()[-1] for line in lines if Path(line.split()[-1]).name.startswith("libgomp")})
    libraries = []
    for path in paths:
        try:
            libraries.append(ctypes.CDLL(path))
        except OSError:  # replaced on disk since it was loaded
            return []
    return libraries


def _forget() -> None:
    """A forked process has neither the attendants' threads nor whoever held the lock."""
    global _lock
    _lock = threading.Lock()
    _attendants.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
