from __future__ import annotations

import os

import pytest

from fpn.errors import OutputError
from fpn.files import atomic_path, refuse_unwritable, remove_abandoned, write_text


def test_a_file_appears_whole_under_its_name(tmp_path) -> None:
    write_text(tmp_path / "deep" / "a.txt", "hello")
    assert (tmp_path / "deep" / "a.txt").read_text() == "hello"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]


def _fail_half_way(target) -> None:
    with atomic_path(target) as path:
        path.write_text("half")
        raise ZeroDivisionError


def test_what_was_there_stays_when_writing_fails(tmp_path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError):
        _fail_half_way(target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_place_that_cannot_be_written_to_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"file/a\.txt: can't write there"):
        write_text(tmp_path / "file" / "a.txt", "hello")


def test_what_a_killed_process_left_is_removed_once_it_is_old(tmp_path) -> None:
    left = [
        tmp_path / name for name in (".street-a1b2c3_4.jsonl", ".street-zzzzzzzz.mp4", ".street-zzzzzzzz-silent.mp4")
    ]
    kept = [tmp_path / name for name in (".street-a1b2c3_4.txt", ".streets-a1b2c3_4.mp4", "street-a1b2c3_4.mp4")]
    for path in (*left, *kept):
        path.write_bytes(b"1")
        os.utime(path, (0, 0))
    os.utime(left[0])  # somebody may still write
    remove_abandoned(tmp_path / "street.mp4", (".mp4", ".jsonl"))
    assert len(list(tmp_path.iterdir())) == 6
    os.utime(left[0], (0, 0))
    remove_abandoned(tmp_path / "street.mp4", (".mp4", ".jsonl"))
    assert set(tmp_path.iterdir()) == set(kept)


def test_a_full_disk_leaves_nothing_behind(tmp_path) -> None:
    with pytest.raises(OutputError, match="No space left"), atomic_path(tmp_path / "a.bin"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_what_helps_depends_on_what_went_wrong(tmp_path) -> None:
    with pytest.raises(OutputError, match=r"Is a directory\)\. Name a file, not a folder\."):
        write_text(tmp_path, "hello")
    with pytest.raises(OutputError, match="Free some space"), atomic_path(tmp_path / "a.bin"):
        raise OSError(28, "No space left on device")
    with pytest.raises(OutputError, match=r"denied\)\. Choose another --output\.$"), atomic_path(tmp_path / "a.bin"):
        raise PermissionError(13, "Permission denied")


def test_a_place_that_takes_no_file_is_refused_before_any_work(tmp_path) -> None:
    (tmp_path / "file").write_text("mine")
    refuse_unwritable(tmp_path)
    refuse_unwritable(tmp_path / "new" / "deep" / "figures.json")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]  # nothing is left behind
    with pytest.raises(OutputError, match=r"file/below.json: can't write there \(.*\). Choose another --output."):
        refuse_unwritable(tmp_path / "file" / "below.json")
