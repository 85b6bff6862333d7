from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from fpn.ops import matching
from fpn.ops.matching import Match, match, sample
from ops.given_boxes import QUICK, box_tables

RULES = {"positive_iou": 0.7, "negative_iou": 0.3, "keep_best": False}


def _squares(*left: float, side: float = 10.0) -> Tensor:
    """Squares in a row, by their left rims."""
    return torch.tensor([[x, 0.0, x + side, side] for x in left]).reshape(-1, 4)


def _match(boxes: Tensor, gt_boxes: Tensor, ignore: list[bool] | None = None, **changes: object) -> Match:
    flags = torch.tensor(ignore if ignore is not None else [False] * len(gt_boxes), dtype=torch.bool)
    return match(boxes, gt_boxes, flags, **{**RULES, **changes})


def test_thresholds_make_positive_negative_and_neither() -> None:
    # Shifted by s of 10, squares have an IoU of (10 - s) / (10 + s): 1, 0.82, 0.54, 0.25, 0.
    found = _match(_squares(0, 1, 3, 6, 20), _squares(0))
    assert found.kind.tolist() == [1, 1, -1, 0, 0]
    assert found.gt_index.tolist() == [0] * 5


def test_an_iou_equal_to_a_threshold_is_above_it() -> None:
    half = torch.tensor([[0.0, 0.0, 10.0, 5.0]])  # IoU 0.5 with the square
    assert _match(half, _squares(0), positive_iou=0.5, negative_iou=0.5).kind.tolist() == [1]
    assert _match(half, _squares(0), positive_iou=0.6, negative_iou=0.5).kind.tolist() == [-1]


def test_the_object_with_the_highest_iou_is_taken() -> None:
    assert _match(_squares(0, 2, 9), _squares(-3, 1, 10)).gt_index.tolist() == [1, 1, 2]


def test_keep_best_makes_an_objects_best_reference_positive_with_its_ties() -> None:
    boxes, objects = _squares(0, 8, 40), _squares(4)  # both at distance 4: IoU 6 / 14, between the thresholds
    assert _match(boxes, objects).kind.tolist() == [-1, -1, 0]
    assert _match(boxes, objects, keep_best=True).kind.tolist() == [1, 1, 0]


def test_a_best_reference_keeps_the_object_it_overlaps_most() -> None:
    # The only reference is the best of both objects, but nearer to the second.
    found = _match(_squares(0), _squares(6, 4), keep_best=True)
    assert (found.kind.tolist(), found.gt_index.tolist()) == ([1], [1])


def test_an_object_out_of_reach_makes_nothing_positive() -> None:
    assert _match(_squares(0, 1), _squares(500), keep_best=True).kind.tolist() == [0, 0]


def test_without_objects_everything_is_negative() -> None:
    found = _match(_squares(0, 1), torch.zeros(0, 4), keep_best=True)
    assert (found.kind.tolist(), found.gt_index.tolist()) == ([0, 0], [0, 0])
    assert _match(torch.zeros(0, 4), _squares(0)).kind.shape == (0,)
    assert (found.kind.dtype, found.gt_index.dtype) == (torch.int8, torch.int64)


def test_negatives_half_inside_an_ignored_region_take_no_part() -> None:
    crowd = torch.tensor([[0.0, 0.0, 100.0, 10.0]])
    # Inside, half inside, a little less, outside; the IoU with the crowd is at most 0.1.
    found = _match(_squares(20, 95, 96, 200), crowd, [True], keep_best=True)
    assert found.kind.tolist() == [-1, -1, 0, 0]


def test_an_ignored_object_is_nobodys_object() -> None:
    found = _match(_squares(0, 50), _squares(0, 1), [True, False])
    assert found.kind.tolist() == [1, 0]
    assert found.gt_index[0] == 1  # though the ignored one fits exactly
    assert _match(_squares(0), _squares(0), [True], keep_best=True).kind.tolist() == [-1]


def test_legacy_iou_counts_the_last_pixel() -> None:
    # Shift 1 of sides 2 and 3: 2 / 6 without and 6 / 12 with the last pixel.
    boxes, objects = _squares(1, side=2.0), _squares(0, side=2.0)
    boxes[:, 1::2] = objects[:, 1::2]
    rules = {"positive_iou": 0.45, "negative_iou": 0.45}
    assert _match(boxes, objects, **rules).kind.tolist() == [0]
    assert _match(boxes, objects, **rules, legacy_plus_one=True).kind.tolist() == [1]


def test_boxes_without_area_and_nan_match_nothing() -> None:
    boxes = torch.cat([torch.full((1, 4), 5.0), torch.full((1, 4), torch.nan)])
    assert _match(boxes, torch.full((1, 4), 5.0), keep_best=True).kind.tolist() == [0, -1]


CASES = st.sampled_from([(0.7, 0.3, True), (0.5, 0.5, False), (0.5, 0.4, True)])


@QUICK
@given(box_tables(smallest=1.0, most=40), box_tables(smallest=1.0, most=6), CASES)
def test_matches_equal_torchvisions(boxes: Tensor, gt_boxes: Tensor, case: tuple[float, float, bool]) -> None:
    quality = box_iou(gt_boxes, boxes)
    reached = quality.amax(dim=1) > 0  # torchvision makes all references positive for an object out of reach
    gt_boxes, quality = gt_boxes[reached], quality[reached]
    found = _match(boxes, gt_boxes, positive_iou=case[0], negative_iou=case[1], keep_best=case[2])
    if len(gt_boxes) == 0:
        assert not found.kind.any()
        return
    theirs = Matcher(*case)(quality)
    assert torch.equal(found.kind.long(), torch.where(theirs >= 0, 1, torch.where(theirs == -1, 0, -1)))
    assert torch.equal(found.gt_index[theirs >= 0], theirs[theirs >= 0])


@pytest.mark.parametrize("ignore", [[False] * 5, [True, False] * 2 + [False]])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, ignore: list[bool]) -> None:
    random = torch.Generator().manual_seed(3)
    boxes, objects = (torch.rand(n, 2, generator=random).mul(80).repeat(1, 2) for n in (333, 5))
    boxes[:, 2:] += 20
    objects[:, 2:] += 25
    whole = _match(boxes, objects, ignore, keep_best=True)
    monkeypatch.setattr(matching, "_CHUNK_CPU", 50)  # ten references at a time
    parts = _match(boxes, objects, ignore, keep_best=True)
    assert torch.equal(whole.kind, parts.kind)
    assert torch.equal(whole.gt_index, parts.gt_index)
    assert set(whole.kind.tolist()) == {-1, 0, 1}


def test_all_chunks_work_in_the_same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_CHUNK_CPU", 6)  # three references at a time
    overlaps = matching._Overlaps(_squares(*range(8)), _squares(0, 3), None, False)
    seen = [(references, iou.shape, iou.data_ptr()) for references, iou in overlaps]
    assert [each[0] for each in seen] == [slice(0, 3), slice(3, 6), slice(6, 8)]
    assert [each[1] for each in seen] == [(2, 3), (2, 3), (2, 2)]
    assert len({each[2] for each in seen}) == 1


def test_sample_fills_up_with_negatives() -> None:
    kind = torch.tensor([1] * 3 + [0] * 50 + [-1] * 20)
    positive, negative = sample(kind, count=16, positive_fraction=0.5)
    assert (sorted(positive.tolist()), len(negative)) == ([0, 1, 2], 13)
    assert all(3 <= i < 53 for i in negative.tolist())


def test_sample_has_no_more_positives_than_its_fraction() -> None:
    positive, negative = sample(torch.tensor([1] * 50 + [0] * 50), count=11, positive_fraction=0.25)
    assert (len(positive), len(negative)) == (2, 9)  # 2.75 is rounded down


def test_sample_takes_what_there_is() -> None:
    assert [len(x) for x in sample(torch.tensor([1, 0, -1]), count=10, positive_fraction=0.5)] == [1, 1]
    assert [len(x) for x in sample(torch.tensor([-1, -1]), count=10, positive_fraction=0.5)] == [0, 0]
    assert [len(x) for x in sample(torch.zeros(0, dtype=torch.int8), count=10, positive_fraction=0.5)] == [0, 0]
    assert [len(x) for x in sample(torch.tensor([1, 0]), count=0, positive_fraction=0.5)] == [0, 0]


def test_sample_repeats_with_its_generator() -> None:
    kind = torch.tensor([1, 0] * 100)
    one, two, three = (
        sample(kind, count=20, positive_fraction=0.5, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert set(one[1].tolist()) != set(three[1].tolist())


def test_a_best_reference_can_be_taken_from_the_object_that_it_overlaps_more() -> None:
    # The only reference overlaps the first object wholly, and the second one by a third, which is its best.
    boxes, objects = _squares(0.0), _squares(0.0, 5.0)
    kept = _match(boxes, objects, keep_best=True)
    assert (kept.gt_index.tolist(), kept.kind.tolist()) == ([0], [1])
    taken = _match(boxes, objects, keep_best=True, best_owns=True)
    assert (taken.gt_index.tolist(), taken.kind.tolist()) == ([1], [1])
    # Too little for an object that asks for at least half.
    left = _match(boxes, objects, keep_best=True, best_owns=True, best_iou=0.5)
    assert (left.gt_index.tolist(), left.kind.tolist()) == ([0], [1])


def test_every_reference_is_drawn_equally_often() -> None:
    kind = torch.tensor([1] * 10 + [0] * 30 + [-1])
    random = torch.Generator().manual_seed(0)
    drawn = [torch.cat(sample(kind, count=8, positive_fraction=0.5, generator=random)) for _ in range(3000)]
    counts = torch.cat(drawn).bincount(minlength=41)
    # 4 of 10 positives are 1200 times each, 4 of 30 negatives 400 times; five standard deviations are 134 and 93.
    assert (counts[:10] - 1200).abs().max() < 134
    assert (counts[10:40] - 400).abs().max() < 93
    assert counts[40] == 0


@QUICK
@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=60), st.integers(0, 40), st.floats(0, 1))
def test_samples_are_distinct_and_of_their_kind(kinds: list[int], count: int, fraction: float) -> None:
    kind = torch.tensor(kinds, dtype=torch.int8)
    positive, negative = sample(kind, count=count, positive_fraction=fraction)
    assert len(set(positive.tolist())) == len(positive) == min(int(count * fraction), kinds.count(1))
    assert len(set(negative.tolist())) == len(negative) == min(count - len(positive), kinds.count(0))
    assert (kind[positive] == 1).all()
    assert (kind[negative] == 0).all()
