from __future__ import annotations

import errno
import multiprocessing
import os
import sys
from pathlib import Path

import pytest

from fpn.errors import OutputError
from fpn.training.run_lock import LOCK_FILE, _hold_file, hold

UNIX = pytest.mark.skipif(sys.platform == "win32", reason="this system can't lock a folder")


@UNIX
def test_a_folder_is_held_by_one_at_a_time_and_nothing_stays_in_it(tmp_path: Path) -> None:
    with hold(tmp_path), pytest.raises(OutputError, match="another training is at work there"), hold(tmp_path):
        pass
    with hold(tmp_path):
        assert list(tmp_path.iterdir()) == []


@UNIX
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


class Windows:
    """Locks a file's first byte, as its C library does, until the file is closed."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        self.held: set[tuple[int, int]] = set()
        self.says = errno.EACCES

    def locking(self, file: int, mode: int, count: int) -> None:
        assert (mode, count) == (self.LK_NBLCK, 1)
        if self.is_held():
            raise OSError(self.says, "Permission denied")
        self.held.add((file, os.fstat(file).st_ino))

    def is_held(self) -> bool:
        return any(_is_open(*each) for each in self.held)


def _is_open(file: int, place: int) -> bool:
    try:
        return os.fstat(file).st_ino == place
    except OSError:
        return False


def test_windows_locks_a_file_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows, unlink = Windows(), Path.unlink

    def remove(path: Path) -> None:
        if windows.is_held():
            raise PermissionError("open elsewhere")
        unlink(path)

    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    monkeypatch.setattr(Path, "unlink", remove)
    (tmp_path / LOCK_FILE).touch()  # as a killed training leaves it
    with _hold_file(tmp_path):
        with pytest.raises(OutputError, match="another training is at work there"), _hold_file(tmp_path):
            pass
        assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]
        windows.says = errno.EINVAL  # of a file system that knows no locks
        with _hold_file(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []
