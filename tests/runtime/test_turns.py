from __future__ import annotations

import threading
from collections.abc import Callable

from fpn.runtime.turns import Turns


def started(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_many_are_inside_together() -> None:
    turns, meeting = Turns(), threading.Barrier(3)

    def meet() -> None:
        with turns.together():
            meeting.wait(10)  # breaks unless all three are inside

    threads = [started(meet) for _ in range(3)]
    for thread in threads:
        thread.join(10)
    assert not meeting.broken


def test_who_is_alone_waits_for_those_inside_and_nobody_comes_in_meanwhile() -> None:
    turns, order = Turns(), []
    inside, leave, wants = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with turns.together():
            inside.set()
            leave.wait(10)
            with turns.together():  # once more, though somebody waits to be alone
                order.append("first")

    def alone() -> None:
        wants.set()
        with turns.alone():
            order.append("alone")
            with turns.alone(), turns.together():
                order.append("still alone")

    def second() -> None:
        with turns.together():
            order.append("second")

    one = started(first)
    inside.wait(10)
    two = started(alone)
    wants.wait(10)
    while turns._alone is None:
        pass
    three = started(second)
    assert order == []
    leave.set()
    for thread in (one, two, three):
        thread.join(10)
    assert order == ["first", "alone", "still alone", "second"]


def test_an_error_inside_lets_the_others_go_on() -> None:
    turns = Turns()
    for way in (turns.together, turns.alone):
        try:
            with way():
                raise ValueError
        except ValueError:
            pass
    thread = started(lambda: turns.alone().__enter__())
    thread.join(10)
    assert not thread.is_alive()
