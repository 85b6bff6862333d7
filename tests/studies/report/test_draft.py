from __future__ import annotations

from pathlib import Path

import pytest

from fpn.errors import OutputError
from fpn.studies.report.draft import Draft


def never() -> int:
    raise AssertionError("this was done before")


def test_what_was_done_before_a_stop_is_not_done_again(tmp_path: Path) -> None:
    first = Draft.begin(tmp_path / "out", {"model": 1})
    assert first.step("a", lambda: {"n": 7}) == {"n": 7}
    second = Draft.begin(tmp_path / "out", {"model": 1})
    assert second.taken_up
    assert second.step("a", never) == {"n": 7}
    assert second.step("b", lambda: 8) == 8


def test_another_model_begins_anew(tmp_path: Path) -> None:
    Draft.begin(tmp_path / "out", {"model": 1}).step("a", lambda: 7)
    other = Draft.begin(tmp_path / "out", {"model": 2})
    assert not other.taken_up
    assert other.step("a", lambda: 9) == 9


def test_work_that_ends_before_anything_is_done_leaves_nothing(tmp_path: Path) -> None:
    draft = Draft.begin(tmp_path / "out", {})
    draft.leave()
    assert list(tmp_path.iterdir()) == []
    draft = Draft.begin(tmp_path / "out", {})
    draft.step("a", lambda: 7)
    draft.leave()
    assert draft.folder.is_dir()


def test_a_finished_report_is_in_its_place_without_notes_of_its_making(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    draft = Draft.begin(tmp_path / "out", {})
    draft.step("a", lambda: 7)
    (draft.folder / "report.html").write_text("page")
    assert draft.finish() == tmp_path / "out"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="is already there"):
        Draft.begin(tmp_path / "out", {})


def test_what_came_into_the_place_meanwhile_stays_and_the_report_is_not_lost(tmp_path: Path) -> None:
    draft = Draft.begin(tmp_path / "out", {})
    (draft.folder / "report.html").write_text("page")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="The report is complete in"):
        draft.finish()
    assert (draft.folder / "report.html").read_text() == "page"
    assert (tmp_path / "out/mine.txt").read_text() == "mine"
