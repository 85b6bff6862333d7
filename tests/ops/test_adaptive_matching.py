from __future__ import annotations

import torch

from fpn.ops.adaptive_matching import match_adaptively
from fpn.ops.anchors import level_anchors

LEVELS = [
    level_anchors(8, 8, (8, 8), sizes=(32,), ratios=(1.0,)),
    level_anchors(4, 4, (16, 16), sizes=(64,), ratios=(1.0,)),
]


def kinds(boxes: torch.Tensor, ignore: torch.Tensor | None = None, **options: object) -> tuple[list[int], torch.Tensor]:
    ignore = torch.zeros(len(boxes), dtype=torch.bool) if ignore is None else ignore
    found = match_adaptively(LEVELS, boxes, ignore, **options)
    return found.kind.tolist(), found.gt_index


def test_an_objects_threshold_is_the_mean_and_deviation_of_its_candidates() -> None:
    # An object of 32 pixels on the fine anchor at (32, 32). Candidates of the fine level are the nine within a stride,
    # with IoU 1, four of 24 / 40 = 0.6 and four of 576 / 1472 = 0.391; of the coarse level nine with 1 / 4.
    # Their mean is 0.401 and their deviation 0.206: the anchor that fits alone reaches 0.607.
    kind, gt_index = kinds(torch.tensor([[16.0, 16.0, 48.0, 48.0]]))
    assert [number for number, value in enumerate(kind) if value == 1] == [4 * 8 + 4]
    assert int(gt_index[36]) == 0


def test_without_objects_all_is_background() -> None:
    assert set(kinds(torch.zeros(0, 4))[0]) == {0}


def test_crowds_have_no_anchor_and_what_lies_within_takes_no_part() -> None:
    kind, _ = kinds(torch.tensor([[0.0, 0.0, 200.0, 200.0]]), torch.tensor([True]))
    assert 1 not in kind
    assert kind[36] == -1  # 16..48 lies within it wholly


def test_an_anchor_that_two_objects_want_becomes_the_one_it_overlaps_more() -> None:
    one, other = [16.0, 16.0, 48.0, 50.0], [16.0, 16.0, 48.0, 48.0]
    kind, gt_index = kinds(torch.tensor([one, other]))
    assert kind[36] == 1
    assert int(gt_index[36]) == 1


def test_references_that_are_not_usable_are_neither_candidates_nor_background() -> None:
    usable = torch.ones(80, dtype=torch.bool)
    usable[36] = False
    kind, _ = kinds(torch.tensor([[16.0, 16.0, 48.0, 48.0]]), usable=usable)
    assert kind[36] == -1
    assert 1 in kind  # the next best ones learn it
