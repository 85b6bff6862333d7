from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from fpn.runtime.openmp import Corner, SecondTeam, loaded_libgomps

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="GNU OpenMP and /proc are Linux's")


@pytest.fixture
def libraries() -> list:
    found = loaded_libgomps()
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


def test_the_second_team_lives_from_start_to_stop(libraries):
    team, before = SecondTeam(libraries[:1], 3), thread_count()
    for _ in range(2):
        team.start()
        team.start()
        assert settle(before + 3) == before + 3
        team.stop()
        team.stop()
        assert settle(before) == before


class Moves:
    """The system's calls for a process of three threads on cores 0 to 3, of which one was placed by somebody else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.places: dict[int, set[int]] = {100: {0, 1, 2, 3}, 101: {0, 1, 2, 3}, 102: {3}}
        monkeypatch.setattr(
            "fpn.runtime.openmp.Path.iterdir", lambda _: [Path(str(task)) for task in [*self.places, 7]]
        )
        monkeypatch.setattr(os, "sched_getaffinity", self.get)
        monkeypatch.setattr(os, "sched_setaffinity", self.set)

    def get(self, task: int) -> set[int]:
        if task not in self.places:
            raise ProcessLookupError(task)  # 7: ended meanwhile
        return self.places[task]

    def set(self, task: int, cores: frozenset[int]) -> None:
        self.places[task] = set(cores)


def corner() -> Corner:
    return Corner(range(4), random.Random(0))


def test_all_threads_stay_on_some_cores_but_those_that_somebody_placed(monkeypatch):
    moves, place = Moves(monkeypatch), corner()
    place.take(2)
    assert moves.places == {100: set(place.taken), 101: set(place.taken), 102: {3}}
    assert len(place.taken) == 2
    place.leave()
    assert moves.places == {100: {0, 1, 2, 3}, 101: {0, 1, 2, 3}, 102: {3}}


def test_the_same_cores_are_kept_while_they_are_fair(monkeypatch):
    Moves(monkeypatch)
    place = corner()
    place.take(2)
    first = place.taken
    for _ in range(20):
        place.take(2, {core: 0.4 if core in first else 0.15 for core in range(4)})
    assert place.taken == first


def test_cores_that_others_use_more_are_given_up(monkeypatch):
    Moves(monkeypatch)
    place, seen = corner(), set()
    place.take(1)
    for _ in range(50):
        seen.add(place.taken)
        place.take(1, {core: 0.8 if core in place.taken else 0.4 for core in range(4)})
    assert seen == {frozenset({core}) for core in range(4)}


def test_as_many_cores_as_there_are_is_no_limit(monkeypatch):
    moves, place = Moves(monkeypatch), corner()
    place.take(1)
    place.take(4)
    assert moves.places[100] == {0, 1, 2, 3}


def test_another_width_is_another_choice(monkeypatch):
    Moves(monkeypatch)
    place = corner()
    place.take(1)
    place.take(3)
    assert len(place.taken) == 3


def test_pythons_own_chance_is_left_alone(monkeypatch):
    Moves(monkeypatch)
    random.seed(0)
    before = random.getstate()
    Corner(range(4)).take(2)
    assert random.getstate() == before


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_are_the_same_to_the_bit(libraries, two_threads):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2))
    images = torch.randn(4, 3, 64, 64)

    def gradients() -> list[torch.Tensor]:
        return list(torch.autograd.grad(net(images).square().mean(), list(net.parameters())))

    team, corner, spinning = SecondTeam(libraries, 3), Corner(os.sched_getaffinity(0)), gradients()
    team.start()
    corner.take(1)
    asleep = gradients()
    corner.leave()
    team.stop()
    assert all(torch.equal(one, other) for one, other in zip(spinning, asleep, strict=True))


def test_threads_of_this_process_move_and_come_back():
    cores = os.sched_getaffinity(0)
    if len(cores) == 1:
        pytest.skip("needs two cores")
    place = Corner(cores)
    place.take(1)
    try:
        assert os.sched_getaffinity(0) == place.taken
    finally:
        place.leave()
    assert os.sched_getaffinity(0) == cores
