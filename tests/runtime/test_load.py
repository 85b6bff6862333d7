from __future__ import annotations

import os
import sys

import pytest

from fpn.runtime.load import Reading, Usage, count_ticks, read_load


def test_what_others_use_is_what_the_cores_did_less_what_we_did():
    before = Reading(clock=100.0, busy={0: 50.0, 3: 20.0}, own=20.0)
    later = Reading(clock=102.0, busy={0: 52.0, 3: 21.5}, own=22.5)
    assert Usage.between(before, later) == Usage(others=0.5, busy={0: 1.0, 3: 0.75}, own=1.25)


def test_a_clock_that_ticks_too_late_makes_no_negative_share():
    before, later = Reading(0.0, {0: 50.0}, 20.0), Reading(1.0, {0: 50.5}, 21.0)
    assert Usage.between(before, later).others == 0


STAT = """\
cpu  300 30 60 5000 70 5 6 7 0 0
cpu0 100 10 20 2000 30 1 2 3 0 0
cpu11 200 20 40 3000 40 4 4 4 0 0
intr 1 2 3
"""


@pytest.mark.parametrize(("gave_way", "ticks"), [(False, {0: 126, 11: 252}), (True, {0: 136, 11: 272})])
def test_ticks_are_those_of_each_core_but_for_idle_ones_and_those_who_gave_way(gave_way, ticks):
    assert count_ticks(STAT, gave_way=gave_way) == ticks


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_this_machine_was_at_least_as_busy_as_this_process():
    cores = os.sched_getaffinity(0)
    reading = read_load(cores)
    assert reading is not None
    assert reading.busy.keys() == cores
    assert sum(reading.busy.values()) >= reading.own > 0


def test_a_system_without_proc_tells_nothing(monkeypatch):
    def missing(self: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr("fpn.runtime.load.Path.read_text", missing)
    assert read_load({0}) is None
