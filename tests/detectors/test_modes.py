from __future__ import annotations

from threading import Barrier, Thread

import pytest
import torch
from torch import nn

from fpn.detectors.modes import evaluating


def _mixed() -> nn.Sequential:
    """In training, but for its last part."""
    module = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout())
    module[1].eval()
    return module


def _modes(module: nn.Module) -> list[bool]:
    return [part.training for part in module.modules()]


def test_modes_are_put_back() -> None:
    module = _mixed()
    with evaluating(module):
        assert _modes(module) == [False, False, False]
    assert _modes(module) == [True, True, False]


def test_modes_are_put_back_after_an_error() -> None:
    module = _mixed()
    with pytest.raises(KeyError), evaluating(module):
        raise KeyError
    assert _modes(module) == [True, True, False]


def test_who_leaves_last_puts_the_modes_back() -> None:
    module = _mixed()
    first, second = evaluating(module), evaluating(module)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert _modes(module) == [False, False, False]
    second.__exit__(None, None, None)
    assert _modes(module) == [True, True, False]


def test_a_part_held_longer_than_the_whole_stays_in_evaluation() -> None:
    module = _mixed()
    whole, part = evaluating(module), evaluating(module[0])
    whole.__enter__()
    part.__enter__()
    whole.__exit__(None, None, None)
    assert _modes(module) == [True, False, False]
    part.__exit__(None, None, None)
    assert _modes(module) == [True, True, False]


def test_many_threads_see_evaluation_and_leave_the_modes_as_they_were() -> None:
    module, barrier, seen = _mixed(), Barrier(4), []

    def work() -> None:
        barrier.wait()
        for _ in range(200):
            with evaluating(module):
                seen.append(module(torch.ones(1, 1, 1, 2))[0, 0, 0, 0].item())

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # In training, the norm would make 0 of equal numbers and learn from them; fresh, it divides by sqrt(1 + 1e-5).
    assert len(seen) == 800
    assert [*set(seen)] == [pytest.approx(0.999995, abs=1e-6)]
    assert module[0].running_mean.item() == 0.0
    assert _modes(module) == [True, True, False]
