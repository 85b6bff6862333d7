from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import nms as torchvision_nms

from fpn.ops import nms as nms_module
from fpn.ops.boxes import pairwise_iou
from fpn.ops.nms import nms, soft_nms, top_k
from ops.given_boxes import QUICK, box_tables


def _squares(*left: float) -> Tensor:
    """10 x 10 squares in a row, by their left rims; shifted by s their IoU is (10 - s) / (10 + s)."""
    return torch.tensor([[x, 0.0, x + 10.0, 10.0] for x in left]).reshape(-1, 4)


def test_a_box_falls_to_a_better_one_that_is_kept() -> None:
    # 1 falls to 0 (IoU 0.54) and so does not take 2 (0.54 with 1, 0.25 with 0) with it.
    assert nms(_squares(0, 3, 6), torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]
    assert nms(_squares(0, 3, 6), torch.tensor([0.7, 0.9, 0.8]), 0.5).tolist() == [1]


def test_kept_boxes_come_best_first() -> None:
    assert nms(_squares(0, 20, 40), torch.tensor([0.1, 0.9, 0.5]), 0.5).tolist() == [1, 2, 0]


def test_an_iou_equal_to_the_threshold_is_kept() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0]])
    assert nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist() == [0, 1]
    assert nms(boxes, torch.tensor([0.9, 0.8]), 0.49).tolist() == [0]


def test_of_equal_scores_the_earlier_wins() -> None:
    scores = torch.full((40,), 0.5)
    assert nms(_squares(*[0.0] * 40), scores, 0.5).tolist() == [0]
    assert nms(_squares(*[20.0 * i for i in range(40)]), scores, 0.5).tolist() == list(range(40))
    groups = torch.arange(40) % 3
    assert nms(_squares(*[20.0 * i for i in range(40)]), scores, 0.5, groups=groups).tolist() == list(range(40))


def test_groups_do_not_touch_each_other() -> None:
    boxes, scores = _squares(0, 0, 0, 0), torch.tensor([0.6, 0.9, 0.8, 0.7])
    assert nms(boxes, scores, 0.5).tolist() == [1]
    assert nms(boxes, scores, 0.5, groups=torch.tensor([7, 7, 2, 2])).tolist() == [1, 2]


def test_groups_far_apart_keep_the_precision_of_their_boxes() -> None:
    # An IoU of 0.7002 stays above 0.7 in class 1000, where an offset in float32 would round corners to 1/16 pixel.
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 7.002], [0.0, 0.0, 1333.0, 1333.0]])
    groups = torch.tensor([1000, 1000, 0])
    for strategy in (nms_module._one_by_one, nms_module._side_by_side):
        assert strategy(boxes, torch.tensor([0.9, 0.8, 0.1]), 0.7, groups).tolist() == [0, 2]
        assert strategy(boxes, torch.tensor([0.9, 0.8, 0.1]), 0.7004, groups).tolist() == [0, 1, 2]


def test_limit_keeps_the_best() -> None:
    boxes, scores = _squares(0, 20, 40, 60), torch.tensor([0.1, 0.9, 0.5, 0.7])
    assert nms(boxes, scores, 0.5, limit=2).tolist() == [1, 3]
    assert nms(boxes, scores, 0.5, limit=2, groups=torch.tensor([0, 1, 0, 1])).tolist() == [1, 3]
    assert nms(boxes, scores, 0.5, limit=0).tolist() == []


def test_a_limit_is_filled_though_the_best_boxes_are_copies() -> None:
    boxes = _squares(*[0.0] * 30, 20, 40)
    assert nms(boxes, torch.linspace(1, 0, 32), 0.5, limit=2).tolist() == [0, 30]


def test_legacy_iou_counts_the_last_pixel() -> None:
    # Columns 0..9 and 10..19 touch; with the last pixel 11 of 231 are shared.
    boxes, scores = _squares(0, 10), torch.tensor([0.9, 0.8])
    assert nms(boxes, scores, 0.01).tolist() == [0, 1]
    assert nms(boxes, scores, 0.01, legacy_plus_one=True).tolist() == [0]


def test_nothing_in_gives_nothing_out() -> None:
    none = torch.zeros(0, 4)
    assert nms(none, torch.zeros(0), 0.5).shape == (0,)
    assert nms(none, torch.zeros(0), 0.5, groups=torch.zeros(0, dtype=torch.int64), limit=5).shape == (0,)


def test_boxes_without_area_are_kept() -> None:
    assert nms(torch.zeros(3, 4), torch.tensor([0.1, 0.2, 0.3]), 0.5).tolist() == [2, 1, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    boxes = torch.tensor([[0.0, 0.0, 600.0, 600.0], [0.0, 0.0, 600.0, 600.0]], dtype=dtype)  # area beyond float16
    assert nms(boxes, torch.tensor([0.5, 0.75], dtype=dtype), 0.5).tolist() == [1]


def test_top_k_is_sorted_and_takes_what_there_is() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.7, 0.2, 0.3]])
    values, index = top_k(scores, 2)
    assert index.tolist() == [[1, 2], [0, 2]]
    torch.testing.assert_close(values, torch.tensor([[0.9, 0.5], [0.7, 0.3]]))
    assert top_k(scores, 10)[1].tolist() == [[1, 2, 0], [0, 2, 1]]
    assert top_k(scores[:, :0], 10)[0].shape == (2, 0)


@QUICK
@given(st.lists(st.sampled_from([-2.0, -0.5, -0.0, 0.0, 0.25, 3.0, float("-inf")]), max_size=60), st.integers(0, 40))
def test_of_equal_scores_top_k_takes_the_earlier(numbers: list[float], count: int) -> None:
    scores = torch.tensor(numbers).reshape(-1)
    order = scores.sort(descending=True, stable=True).indices[:count]
    values, index = top_k(scores, count)
    assert index.tolist() == order.tolist()
    assert values.tolist() == scores[order].tolist()


@st.composite
def scored(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes close together, scores with ties, and groups."""
    boxes = draw(box_tables(most=30)) / 20
    n = len(boxes)
    scores = draw(st.lists(st.integers(0, 20), min_size=n, max_size=n))
    groups = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    return boxes, torch.tensor(scores) / 20, torch.tensor(groups)


THRESHOLDS = st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.95])


@QUICK
@given(scored(), THRESHOLDS)
def test_no_kept_pair_of_a_group_overlaps_more_and_every_dropped_box_has_its_reason(
    given_: tuple[Tensor, Tensor, Tensor], threshold: float
) -> None:
    boxes, scores, groups = given_
    kept = nms(boxes, scores, threshold, groups=groups)
    iou = pairwise_iou(boxes, boxes) * (groups[:, None] == groups)
    among = iou[kept][:, kept].fill_diagonal_(0)
    assert (among <= threshold + 1e-5).all()
    assert (scores[kept].diff() <= 0).all()
    for lost in set(range(len(boxes))) - set(kept.tolist()):
        better = kept[scores[kept] >= scores[lost]]
        assert iou[lost, better].max() > threshold - 1e-5


@QUICK
@given(scored(), THRESHOLDS, st.integers(0, 8))
def test_a_limit_only_cuts_the_end_off(given_: tuple[Tensor, Tensor, Tensor], threshold: float, limit: int) -> None:
    boxes, scores, groups = given_
    whole = nms(boxes, scores, threshold, groups=groups)
    assert torch.equal(nms(boxes, scores, threshold, groups=groups, limit=limit), whole[:limit])


@QUICK
@given(scored(), THRESHOLDS)
def test_a_group_is_suppressed_as_if_it_were_alone(given_: tuple[Tensor, Tensor, Tensor], threshold: float) -> None:
    boxes, scores, groups = given_
    kept = nms(boxes, scores, threshold, groups=groups)
    for group in groups.unique():
        alone = (groups == group).nonzero().squeeze(1)
        expected = alone[torchvision_nms(boxes[alone], scores[alone], threshold)]
        assert torch.equal(kept[groups[kept] == group], expected)


def test_both_ways_with_groups_keep_the_same() -> None:
    random = torch.Generator().manual_seed(5)
    low = torch.rand(400, 2, generator=random) * 60
    boxes = torch.cat([low, low + 10 + torch.rand(400, 2, generator=random) * 20], dim=1)
    scores, groups = torch.linspace(1, 0, 400), torch.randint(7, (400,), generator=random)
    one = nms_module._one_by_one(boxes, scores, 0.5, groups)
    assert torch.equal(one, nms_module._side_by_side(boxes, scores, 0.5, groups))
    assert 100 < len(one) < 390


# Overlaps with the first: 1/3 (half of it beside), and none.
THREE = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0], [50.0, 0.0, 60.0, 10.0]])
SCORES = torch.tensor([0.9, 0.8, 0.3])


def test_soft_nms_lowers_what_overlaps_a_better_box() -> None:
    kept, scores = soft_nms(THREE, SCORES, decay="linear", threshold=0.3)
    assert kept.tolist() == [0, 1, 2]
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.8 * 2 / 3, 0.3]))
    kept, scores = soft_nms(THREE, SCORES, decay="gaussian", sigma=0.5)
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.8 * math.exp(-2 / 9), 0.3]))


def test_soft_nms_leaves_alone_below_the_threshold_and_in_other_groups() -> None:
    _, scores = soft_nms(THREE, SCORES, decay="linear", threshold=0.4)
    assert scores.tolist() == SCORES.tolist()
    _, scores = soft_nms(THREE, SCORES, decay="gaussian", groups=torch.tensor([0, 1, 0]))
    assert scores.tolist() == SCORES.tolist()


def test_soft_nms_drops_what_has_fallen_too_low_and_stops_at_its_limit() -> None:
    kept, _ = soft_nms(THREE, SCORES, decay="linear", threshold=0.3, lowest=0.54)
    assert kept.tolist() == [0]
    kept, scores = soft_nms(THREE, SCORES, decay="linear", threshold=0.3, limit=2)
    assert (kept.tolist(), len(scores)) == ([0, 1], 2)
    assert soft_nms(THREE[:0], SCORES[:0], decay="linear")[0].tolist() == []
