from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from fpn.runtime import waiting
from fpn.runtime.load import Reading
from fpn.runtime.openmp import Corner, SecondTeam
from fpn.runtime.waiting import Attendant, Judge, Threads

WINDOW = 60.0  # seconds between looks: longer than any test takes, so that only fake clocks count


class Switch:
    """A lever that only remembers. Our threads are on core 0 while others need the rest."""

    def __init__(self) -> None:
        self.width: int | None = None  # None: all spin on all cores
        self.others: Mapping[int, float] = {}
        self.moved = threading.Event()

    @property
    def cores(self) -> frozenset[int]:
        return frozenset({0, 1} if self.width is None else {0})

    def give_way(self, width: int, others: Mapping[int, float]) -> None:
        self.width, self.others = width, others
        self.moved.set()

    def spread(self) -> None:
        self.width = None

    def after_fork(self) -> None:
        self.width = None


class Machine:
    """Two cores, of which others use so much in one window after another; the last number stays.

    We use half of core 0; what others use is on core 1 as far as it has room.
    """

    def __init__(self, *others: float) -> None:
        self.others, self.now = list(others), Reading(0.0, {0: 0.0, 1: 0.0}, 0.0)

    def read(self) -> Reading:
        before = self.now
        others = self.others.pop(0) if len(self.others) > 1 else self.others[0]
        first, second = before.busy[0] + (0.5 + max(others - 1, 0)) * WINDOW, before.busy[1] + min(others, 1) * WINDOW
        self.now = Reading(before.clock + WINDOW, {0: first, 1: second}, before.own + 0.5 * WINDOW)
        return before

    def clock(self) -> float:
        return self.now.clock


def watch(*others: float) -> tuple[Attendant, Switch]:
    lever, machine = Switch(), Machine(*others)
    judge = Judge(threads=2, cores=2)
    return Attendant(judge=judge, lever=lever, read=machine.read, clock=machine.clock, seconds=WINDOW), lever


@pytest.mark.parametrize(
    ("threads", "cores", "others", "crowded"),
    [(2, 2, 0.15, False), (2, 2, 0.25, True), (8, 16, 8.15, False), (8, 16, 8.25, True), (8, 16, 1.0, False)],
)
def test_a_machine_is_crowded_when_others_need_what_our_threads_do_not_leave(threads, cores, others, crowded):
    assert Judge(threads=threads, cores=cores).hear(others) is crowded


@pytest.mark.parametrize(
    ("threads", "cores", "others", "width"),
    [
        (2, 2, 0.3, 2),  # too little for a core
        (2, 2, 0.6, 1),
        (2, 2, 5.0, 1),
        (4, 4, 1.0, 2),  # 3 are free: two turns, as on 2
        (8, 8, 2.0, 4),  # 6 are free: two turns, as on 4
        (8, 8, 5.0, 3),  # 3 are free: three turns
        (8, 16, 8.3, 16),  # a core for each of ours
        (8, 16, 11.0, 4),
    ],
)
def test_our_threads_stay_on_as_few_cores_as_take_no_more_turns(threads, cores, others, width):
    judge = Judge(threads=threads, cores=cores)
    judge.hear(others)
    assert judge.width == width


def test_crowded_at_once_and_calm_after_three_looks():
    judge = Judge(threads=2, cores=2)
    heard = [judge.hear(others) for others in (0.0, 1.0, 0.05, 0.05, 1.0, 0.05, 0.15, 0.05, 0.05, 0.05, 0.0)]
    #                   a busy moment in between, and then some work, begin the three anew
    assert heard == [False, True, True, True, True, True, True, True, True, False, False]


def test_threads_give_way_while_the_machine_is_crowded_and_spread_when_the_work_is_done():
    attendant, lever = watch(1.0)
    assert lever.width is None
    with attendant.at_work():
        assert lever.width == 1
    assert lever.width is None


def test_threads_spread_on_a_machine_of_their_own():
    attendant, lever = watch(0.05)
    with attendant.at_work():
        assert lever.width is None


def test_what_others_use_of_each_core_is_known_as_far_as_we_are_on_one():
    attendant, lever = watch(1.25)
    with attendant.at_work():
        assert lever.others == {0: 0.5, 1: 0.75}  # we may have been on both: half of our 0.5 on each
        with attendant.at_work():
            assert lever.others == {0: 0.25, 1: 1.0}  # we were on core 0


def test_one_call_after_another_is_judged_by_what_happened_since_the_one_before():
    attendant, lever = watch(0.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    widths = []
    for _ in range(5):
        with attendant.at_work():
            widths.append(lever.width)
    assert widths == [None, 1, 2, 2, None]


def test_a_call_right_after_another_goes_by_the_same_look():
    lever, machine = Switch(), Machine(1.0)
    judge, moment = Judge(threads=2, cores=2), [0.0]
    attendant = Attendant(judge=judge, lever=lever, read=machine.read, clock=lambda: moment[0], seconds=WINDOW)
    for moment[0], width, now in ((WINDOW - 1, None, 1), (WINDOW, 1, 2), (WINDOW + 1, 1, 2)):
        with attendant.at_work():
            assert (lever.width, machine.now.clock) == (width, now * WINDOW)


def test_of_several_calls_at_once_the_last_one_ends_it():
    attendant, lever = watch(1.0)
    with attendant.at_work():
        with attendant.at_work():
            assert lever.width == 1
        assert lever.width == 1
    assert lever.width is None


def test_an_error_inside_ends_it_too():
    attendant, lever = watch(1.0)
    with pytest.raises(KeyError), attendant.at_work():
        raise KeyError
    assert lever.width is None


def test_each_who_listens_is_told_once():
    attendant, _ = watch(1.25)
    one, two = [], []
    with attendant.at_work(one.append), attendant.at_work(), attendant.at_work(two.append), attendant.at_work():
        pass
    assert len(one) == len(two) == 1
    assert one[0].startswith("other processes use 1.2 cores of this machine: work keeps to those that are left")
    with attendant.at_work():
        assert len(one) == 1


def test_nobody_is_told_on_a_calm_machine():
    attendant, _ = watch(0.0)
    told: list[str] = []
    with attendant.at_work(told.append), attendant.at_work(told.append):
        assert told == []


def test_a_long_call_is_watched_meanwhile():
    lever, begin = Switch(), time.monotonic()

    def read() -> Reading:
        now = time.monotonic()
        return Reading(now, {0: now - begin, 1: now - begin}, own=0.0)  # others use both cores

    with Attendant(judge=Judge(threads=2, cores=2), lever=lever, read=read, seconds=0.001).at_work():
        lever.moved.clear()
        assert lever.moved.wait(30)


def test_a_machine_that_tells_nothing_is_left_alone():
    lever = Switch()
    attendant = Attendant(judge=Judge(threads=2, cores=2), lever=lever, read=lambda: None, seconds=0.0)
    with attendant.at_work(), attendant.at_work():
        assert lever.width is None


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_PROC_BIND"])
def test_whoever_decided_how_threads_wait_is_obeyed(monkeypatch, name):
    monkeypatch.setenv(name, "1000")
    assert waiting._make_attendant(2) is None


@pytest.mark.parametrize("threads", [1, 100_000])
def test_one_thread_waits_for_nobody_and_too_many_sleep_anyway(threads):
    assert waiting._make_attendant(threads) is None


def test_inside_and_outside_of_the_context_torch_computes(monkeypatch, two_threads):
    monkeypatch.setattr(waiting, "_attendants", {})
    with waiting.considerate(), waiting.considerate():
        inside = torch.ones(1000, 1000).sum()
    assert inside == 1_000_000


def _begin_of_child() -> tuple[int, set[int]]:
    torch.set_num_threads(1)
    return len(waiting._attendants), os.sched_getaffinity(0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux places threads")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_begins_without_attendants_and_on_all_cores(monkeypatch):
    cores, corner = os.sched_getaffinity(0), Corner(os.sched_getaffinity(0))
    threads = Threads(SecondTeam([], 2), corner)
    attendant = Attendant(judge=Judge(threads=2, cores=2), lever=threads, read=lambda: None)
    monkeypatch.setattr(waiting, "_attendants", {2: attendant, 1: None})
    corner.take(1)
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as processes:
            assert processes.submit(_begin_of_child).result(timeout=60) == (0, cores)
    finally:
        corner.leave()
