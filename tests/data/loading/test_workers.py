from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator

import pytest

from fpn.data.loading.workers import make_data_loader, start_workers


class Numbers:
    def __getitem__(self, number: int) -> int:
        return number


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="a system without alarms")
def test_a_worker_goes_on_after_a_signal_to_all_of_a_job() -> None:
    before = set(multiprocessing.active_children())
    loader = make_data_loader(Numbers(), num_workers=1, sampler=range(6), prefetch_factor=1)
    numbers: Iterator[int] = start_workers(loader)
    assert next(numbers) == 0
    (worker,) = set(multiprocessing.active_children()) - before
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker.pid or 0, number)
    assert list(numbers) == [1, 2, 3, 4, 5]
