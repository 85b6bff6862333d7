from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fpn.errors import OutputError
from fpn.shapes import Size
from fpn.structures import Detections
from fpn.studies.suggesting.evidence import Draft, Evidence, is_draft


def line(score: float) -> Evidence:
    found = Detections(torch.tensor([[0.1, 2.0, 3.3, 4.0]]), torch.tensor([score]), torch.tensor([2]))
    return Evidence(found, Size(30, 40), np.array([0.1, -2.5], dtype=np.float16))


def filled(path: Path, *, key: str = "k", count: int = 5) -> None:
    draft = Draft(path, key, window=2)
    draft.open()
    for start in range(0, count, 2):
        draft.add([line(0.1 * number) for number in range(start, min(start + 2, count))])


def reopened(path: Path, *, key: str = "k", window: int = 2) -> list[Evidence]:
    draft = Draft(path, key, window)
    draft.open()
    return draft.lines


def test_every_number_comes_back_as_it_was() -> None:
    again = Evidence.from_json(line(0.3).to_json())
    assert torch.equal(again.found.boxes, line(0.3).found.boxes)
    assert torch.equal(again.found.scores, line(0.3).found.scores)
    assert again.found.labels.tolist() == [2]
    assert again.size == Size(30, 40)
    assert again.descriptor.tolist() == line(0.3).descriptor.tolist()
    assert Evidence.from_json(Evidence.unreadable("text.jpg: no image").to_json()).problem == "text.jpg: no image"


def test_whole_windows_come_back(tmp_path: Path) -> None:
    filled(tmp_path / "d.jsonl", count=5)
    # Of 5 lines 2 + 2 are whole windows; the fifth belongs to one that a kill may have cut short.
    assert [round(float(each.found.scores[0]), 2) for each in reopened(tmp_path / "d.jsonl")] == [0.0, 0.1, 0.2, 0.3]


def test_a_line_that_was_cut_short_is_dropped_with_its_window(tmp_path: Path) -> None:
    filled(tmp_path / "d.jsonl", count=4)
    whole = (tmp_path / "d.jsonl").read_text()
    (tmp_path / "d.jsonl").write_text(whole[:-30])
    assert len(reopened(tmp_path / "d.jsonl")) == 2


@pytest.mark.parametrize("spoilt", ["", "no json\n", "[]\n", '{"key": 3}\n'])
def test_what_is_no_draft_of_these_images_is_not_used(tmp_path: Path, spoilt: str) -> None:
    (tmp_path / "d.jsonl").write_text(spoilt)
    assert reopened(tmp_path / "d.jsonl") == []
    filled(tmp_path / "d.jsonl", key="other")
    assert reopened(tmp_path / "d.jsonl") == []


def test_a_draft_is_known_by_its_first_line(tmp_path: Path) -> None:
    filled(tmp_path / "d.jsonl")
    (tmp_path / "mine.jsonl").write_text('{"label": 1}\n')
    assert is_draft(tmp_path / "d.jsonl")
    assert not is_draft(tmp_path / "mine.jsonl")
    assert not is_draft(tmp_path / "none.jsonl")


def test_a_draft_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Choose another --output"):
        Draft(tmp_path / "file" / "d.jsonl", "k", 2).open()
