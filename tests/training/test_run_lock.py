from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from fpn.errors import OutputError
from fpn.training.run_lock import hold

pytest.importorskip("fcntl", reason="this system can't lock a folder")


def test_a_folder_is_held_by_one_at_a_time_and_nothing_stays_in_it(tmp_path: Path) -> None:
    with hold(tmp_path), pytest.raises(OutputError, match="another training is at work there"), hold(tmp_path):
        pass
    with hold(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_copied_process_that_lives_on_does_not_keep_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begins, ends = context.Event(), context.Event()

    def live() -> None:
        begins.set()
        ends.wait()

    with hold(tmp_path):
        reader = context.Process(target=live)
        reader.start()
        begins.wait()
        with pytest.raises(OutputError), hold(tmp_path):
            pass
    try:
        with hold(tmp_path):
            assert reader.is_alive()
    finally:
        ends.set()
        reader.join()
