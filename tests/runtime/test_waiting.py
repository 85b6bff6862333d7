from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from fpn.runtime import waiting
from fpn.runtime.waiting import Attendant, Judge, Reading, SecondTeam, count_ticks

WINDOW = 60.0  # seconds between looks: longer than any test takes, so that only fake clocks count


class Switch:
    """A lever that only remembers."""

    def __init__(self) -> None:
        self.asleep, self.moved = False, threading.Event()

    def sleep(self) -> None:
        self.asleep = True
        self.moved.set()

    def spin(self) -> None:
        self.asleep = False


class Machine:
    """Two cores, on which others use so many in one window after another; the last number stays."""

    def __init__(self, *others: float) -> None:
        self.others, self.now = list(others), Reading(0.0, 0.0, 0.0)

    def read(self) -> Reading:
        before = self.now
        others = self.others.pop(0) if len(self.others) > 1 else self.others[0]
        self.now = Reading(before.clock + WINDOW, before.busy + (1.5 + others) * WINDOW, before.own + 1.5 * WINDOW)
        return before


def watch(*others: float, spare: int = 0) -> tuple[Attendant, Switch]:
    lever = Switch()
    return Attendant(judge=Judge(spare), lever=lever, read=Machine(*others).read, seconds=WINDOW), lever


def test_what_others_use_is_what_the_cores_did_less_what_we_did():
    before, later = Reading(clock=100.0, busy=50.0, own=20.0), Reading(clock=102.0, busy=53.5, own=22.5)
    assert before.others(later) == 0.5  # 3.5 seconds of work in 2 seconds, 2.5 of them ours


def test_a_clock_that_ticks_too_late_makes_no_negative_share():
    assert Reading(0.0, 50.0, 20.0).others(Reading(1.0, 50.9, 21.0)) == 0


@pytest.mark.parametrize(
    ("spare", "others", "crowded"),
    [(0, 0.15, False), (0, 0.25, True), (8, 8.15, False), (8, 8.25, True), (8, 1.0, False)],
)
def test_a_machine_is_crowded_when_others_need_what_our_threads_do_not_leave(spare, others, crowded):
    assert Judge(spare).hear(others) is crowded


def test_crowded_at_once_and_calm_after_three_looks():
    judge = Judge(0)
    heard = [judge.hear(others) for others in (0.0, 1.0, 0.05, 0.05, 1.0, 0.05, 0.15, 0.05, 0.05, 0.05, 0.0)]
    #                   a busy moment in between, and then some work, begin the three anew
    assert heard == [False, True, True, True, True, True, True, True, True, False, False]


def test_threads_sleep_while_the_machine_is_crowded_and_spin_when_the_work_is_done():
    attendant, lever = watch(1.0)
    assert not lever.asleep
    with attendant.at_work():
        assert lever.asleep
    assert not lever.asleep


def test_threads_spin_on_a_machine_of_their_own():
    attendant, lever = watch(0.05)
    with attendant.at_work():
        assert not lever.asleep


def test_one_call_after_another_is_judged_by_what_happened_since_the_one_before():
    attendant, lever = watch(0.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    asleep = []
    for _ in range(5):
        with attendant.at_work():
            asleep.append(lever.asleep)
    assert asleep == [False, True, True, True, False]


def test_of_several_calls_at_once_the_last_one_ends_it():
    attendant, lever = watch(1.0)
    with attendant.at_work():
        with attendant.at_work():
            assert lever.asleep
        assert lever.asleep
    assert not lever.asleep


def test_an_error_inside_ends_it_too():
    attendant, lever = watch(1.0)
    with pytest.raises(KeyError), attendant.at_work():
        raise KeyError
    assert not lever.asleep


def test_each_who_listens_is_told_once():
    attendant, _ = watch(1.25)
    one, two = [], []
    with attendant.at_work(one.append), attendant.at_work(), attendant.at_work(two.append), attendant.at_work():
        pass
    assert len(one) == len(two) == 1
    assert one[0].startswith("other processes use 1.2 cores: threads now sleep")
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
        now = time.monotonic() - begin
        return Reading(now, busy=2 * now, own=0.0)  # others use both cores

    with Attendant(judge=Judge(0), lever=lever, read=read, seconds=0.001).at_work():
        lever.asleep = False
        lever.moved.clear()
        assert lever.moved.wait(30)


def test_a_machine_that_tells_nothing_is_left_alone():
    lever = Switch()
    attendant = Attendant(judge=Judge(0), lever=lever, read=lambda: None, seconds=0.0)
    with attendant.at_work(), attendant.at_work():
        assert not lever.asleep


STAT = """\
cpu  300 30 60 5000 70 5 6 7 0 0
cpu0 100 10 20 2000 30 1 2 3 0 0
cpu1 200 20 40 3000 40 4 4 4 0 0
intr 1 2 3
"""


@pytest.mark.parametrize(
    ("cores", "gave_way", "ticks"),
    [({"cpu0"}, False, 126), ({"cpu0", "cpu1"}, False, 378), ({"cpu0"}, True, 136), (set(), False, 0)],
)
def test_ticks_are_those_of_our_cores_without_idle_ones_and_those_who_gave_way(cores, gave_way, ticks):
    assert count_ticks(STAT, cores, gave_way=gave_way) == ticks


linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@linux
def test_this_machine_was_at_least_as_busy_as_this_process():
    reading = waiting.read_machine()
    assert reading is not None
    assert reading.busy >= reading.own > 0


@pytest.fixture
def libraries() -> list:
    found = waiting._libgomps()
    if not found:
        pytest.skip("this torch comes with another OpenMP than GNU's")
    return found


def thread_count() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def settle(count: int) -> int:
    """The number of threads when it has become `count`, or after 30 seconds."""
    end = time.monotonic() + 30
    while thread_count() != count and time.monotonic() < end:
        time.sleep(0.01)
    return thread_count()


@linux
def test_the_second_team_lives_from_sleep_to_spin(libraries):
    team, before = SecondTeam(libraries[:1], 3), thread_count()
    for _ in range(2):
        team.sleep()
        team.sleep()
        assert settle(before + 3) == before + 3
        team.spin()
        team.spin()
        assert settle(before) == before


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@linux
def test_results_are_the_same_to_the_bit(libraries, two_threads):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2))
    images = torch.randn(4, 3, 64, 64)

    def gradients() -> list[torch.Tensor]:
        return list(torch.autograd.grad(net(images).square().mean(), list(net.parameters())))

    team, spinning = SecondTeam(libraries, 3), gradients()
    team.sleep()
    asleep = gradients()
    team.spin()
    assert all(torch.equal(one, other) for one, other in zip(spinning, asleep, strict=True))


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
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


def _attendants_of_child() -> int:
    torch.set_num_threads(1)
    return len(waiting._attendants)


@linux
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_begins_without_attendants(monkeypatch, two_threads):
    monkeypatch.setattr(waiting, "_attendants", {})
    with waiting.considerate():
        assert list(waiting._attendants) == [2]
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as processes:
            assert processes.submit(_attendants_of_child).result(timeout=60) == 0
