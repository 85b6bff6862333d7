"""Detections of a moving square and a standing one, followed from frame to frame."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from fpn.errors import MissingExtraError
from fpn.inference.tracking import BoxTracker
from fpn.structures import Detections

pytest.importorskip("trackers", reason="needs the extra track")


def seen(number: int, *, score: float = 0.9, order: tuple[int, ...] = (0, 1)) -> tuple[Detections, Tensor]:
    """One goes to the right by 3 pixels a frame, the other stands still."""
    left = 10.0 + 3 * number
    boxes = torch.tensor([[left, 10, left + 30, 40], [100, 60, 130, 90]])[list(order)]
    scores = torch.tensor([score, 0.8])[list(order)]
    found = Detections(boxes, scores, torch.tensor([0, 1])[list(order)])
    return found, found.scores >= 0.5


def test_ids_begin_with_the_second_frame_and_stay_also_where_the_order_changes() -> None:
    tracker = BoxTracker(10.0)
    ids = []
    for number in range(8):
        found, sure = seen(number, order=(1, 0) if number % 2 else (0, 1))
        ids.append(tracker.follow(found, sure, number / 10))
    assert ids[0] == (None, None)
    assert {frozenset(each) for each in ids[1:]} == {frozenset((1, 2))}
    moving = [each[1] if number % 2 else each[0] for number, each in enumerate(ids)][1:]
    assert len(set(moving)) == 1


def test_an_object_goes_on_where_it_is_unsure_and_begins_only_where_it_is_sure() -> None:
    tracker = BoxTracker(10.0)
    for number in range(3):
        tracker.follow(*seen(number), number / 10)
    found, sure = seen(3, score=0.3)
    assert sure.tolist() == [False, True]
    assert tracker.follow(found, sure, 0.3) == (1, 2)
    found, _ = seen(4, score=0.05)  # below what anything is followed by
    assert tracker.follow(found, found.scores >= 0.5, 0.4) == (None, 2)
    fresh = BoxTracker(10.0)
    nothing_sure = torch.zeros(2, dtype=torch.bool)
    assert [fresh.follow(seen(k, score=0.3)[0], nothing_sure, k / 10) for k in range(3)] == [(None, None)] * 3


def test_a_frame_without_detections_has_no_ids_and_the_object_comes_back_with_its_own() -> None:
    tracker = BoxTracker(10.0)
    first = [tracker.follow(*seen(number), number / 10) for number in range(4)][-1]
    found, sure = seen(4)
    assert tracker.follow(found[:0], sure[:0], 0.4) == ()
    assert tracker.follow(*seen(5), 0.5) == first
    assert BoxTracker(10.0).follow(found[:0], sure[:0], 0.0) == ()


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fpn\[track\]' brings it"):
        BoxTracker(10.0)
