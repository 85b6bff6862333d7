from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou

from fpn.ops import boxes as box_ops
from ops.given_boxes import QUICK, box_tables

SQUARE = torch.tensor([[0.0, 0.0, 10.0, 10.0]])


def test_area_is_width_times_height() -> None:
    boxes = torch.tensor([[1.0, 2.0, 4.0, 7.0], [3.0, 3.0, 3.0, 9.0], [5.0, 5.0, 1.0, 1.0]])
    assert box_ops.area(boxes).tolist() == [15.0, 0.0, 0.0]  # the last has its corners swapped
    assert box_ops.area(boxes, legacy_plus_one=True).tolist() == [24.0, 7.0, 0.0]


def test_half_of_a_box_shared_with_one_as_large_is_an_iou_of_a_third() -> None:
    others = torch.tensor([[5.0, 0.0, 15.0, 10.0], [10.0, 0.0, 20.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
    iou = box_ops.pairwise_iou(SQUARE, others)
    torch.testing.assert_close(iou, torch.tensor([[50 / 150, 0.0, 1.0]]))
    torch.testing.assert_close(box_ops.paired_iou(SQUARE.expand(3, 4), others), iou[0])


def test_legacy_iou_counts_the_last_pixel() -> None:
    # Sides 11; columns 10..10 are shared: 1 * 11 of 2 * 121 - 11.
    other = torch.tensor([[10.0, 0.0, 20.0, 10.0]])
    torch.testing.assert_close(
        box_ops.pairwise_iou(SQUARE, other, legacy_plus_one=True), torch.tensor([[11 / (242 - 11)]])
    )
    torch.testing.assert_close(box_ops.paired_iou(SQUARE, other, legacy_plus_one=True), torch.tensor([11 / 231]))


def test_coverage_divides_by_the_boxes_own_area() -> None:
    crowd = torch.tensor([[0.0, 0.0, 100.0, 5.0]])
    assert box_ops.pairwise_coverage(SQUARE, crowd).tolist() == [[0.5]]
    assert box_ops.pairwise_coverage(crowd, SQUARE).item() == pytest.approx(0.1)
    assert box_ops.pairwise_coverage(SQUARE[:, [0, 0, 0, 0]], crowd).tolist() == [[0.0]]  # no area, no coverage


def test_giou_of_boxes_apart_is_minus_the_empty_part_of_their_hull() -> None:
    # Hull 30 x 10; 20 columns are covered, 10 are not.
    apart = torch.tensor([[20.0, 0.0, 30.0, 10.0]])
    torch.testing.assert_close(box_ops.paired_giou(SQUARE, apart), torch.tensor([-1 / 3]))
    torch.testing.assert_close(box_ops.paired_giou(SQUARE, SQUARE), torch.tensor([1.0]))


def test_clip_cuts_at_the_rim_and_one_pixel_earlier_in_legacy() -> None:
    box = torch.tensor([[-3.0, -4.0, 50.0, 60.0]])
    assert box_ops.clip(box, 30, 20).tolist() == [[0.0, 0.0, 20.0, 30.0]]
    assert box_ops.clip(box, 30, 20, legacy_plus_one=True).tolist() == [[0.0, 0.0, 19.0, 29.0]]


def test_clip_takes_a_size_a_image() -> None:
    boxes = torch.tensor([0.0, 0.0, 99.0, 99.0]).expand(2, 3, 4)
    sizes = torch.tensor([[10, 20], [30, 40]])
    clipped = box_ops.clip(boxes, sizes[:, 0, None], sizes[:, 1, None])
    assert clipped[0, 2].tolist() == [0.0, 0.0, 20.0, 10.0]
    assert clipped[1, 0].tolist() == [0.0, 0.0, 40.0, 30.0]


def test_clip_brings_infinity_to_the_rim() -> None:
    box = torch.tensor([[-math.inf, -math.inf, math.inf, math.inf]])
    assert box_ops.clip(box, 30, 20).tolist() == [[0.0, 0.0, 20.0, 30.0]]


def test_formats_say_the_same_box() -> None:
    box = torch.tensor([[1.0, 2.0, 5.0, 8.0]])
    assert box_ops.xyxy_to_xywh(box).tolist() == [[1.0, 2.0, 4.0, 6.0]]
    assert box_ops.xywh_to_xyxy(torch.tensor([[1.0, 2.0, 4.0, 6.0]])).tolist() == box.tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_half_precision_is_widened_before_sides_are_multiplied(dtype: torch.dtype) -> None:
    box = torch.tensor([[0, 0, 512, 512]], dtype=dtype)  # its area, 262144, is beyond float16
    assert box_ops.area(box).tolist() == [262144.0]
    assert box_ops.pairwise_iou(box, box).tolist() == [[1.0]]
    assert box_ops.pairwise_iou(box, box).dtype == torch.float32


def test_boxes_without_area_overlap_nothing_and_have_finite_gradients() -> None:
    point = torch.tensor([[5.0, 5.0, 5.0, 5.0]], requires_grad=True)
    line = torch.tensor([[5.0, 5.0, 9.0, 5.0]])
    for measure in (box_ops.paired_iou, box_ops.paired_giou):
        for other in (point.detach(), line, SQUARE):
            value = measure(point, other)
            assert value.isfinite().all()
            (gradient,) = torch.autograd.grad(value.sum(), point)
            assert gradient.isfinite().all()
    assert box_ops.pairwise_iou(point, torch.cat([line, SQUARE, point])).tolist() == [[0.0, 0.0, 0.0]]


def test_no_boxes_give_empty_tables() -> None:
    none = torch.zeros(0, 4)
    assert box_ops.pairwise_iou(none, SQUARE).shape == (0, 1)
    assert box_ops.pairwise_iou(SQUARE, none).shape == (1, 0)
    assert box_ops.pairwise_coverage(none, none).shape == (0, 0)
    assert box_ops.paired_giou(none, none).shape == (0,)
    assert box_ops.clip(none, 3, 4).shape == (0, 4)


@QUICK
@given(box_tables(), box_tables())
def test_iou_is_symmetric_and_between_0_and_1(one: Tensor, two: Tensor) -> None:
    iou = box_ops.pairwise_iou(one, two)
    assert torch.equal(iou, box_ops.pairwise_iou(two, one).T)
    assert ((iou >= 0) & (iou <= 1 + 1e-5)).all()
    own, area = box_ops.pairwise_iou(one, one).diagonal(), box_ops.area(one)
    assert ((own - 1).abs() < 1e-5)[area >= box_ops.SMALLEST_AREA].all()
    assert (own[area == 0] == 0).all()


@QUICK
@given(box_tables(smallest=0.5), box_tables(smallest=0.5))
def test_overlaps_equal_torchvisions(one: Tensor, two: Tensor) -> None:
    torch.testing.assert_close(box_ops.pairwise_iou(one, two), box_iou(one, two), rtol=0, atol=1e-6)
    n = min(len(one), len(two))
    expected = generalized_box_iou(one, two).diagonal()
    torch.testing.assert_close(box_ops.paired_giou(one[:n], two[:n]), expected, rtol=0, atol=1e-5)


@QUICK
@given(box_tables(), st.integers(1, 300), st.integers(1, 300))
def test_clipped_boxes_lie_inside_and_clipping_twice_changes_nothing(boxes: Tensor, height: int, width: int) -> None:
    clipped = box_ops.clip(boxes, height, width)
    assert (clipped >= 0).all()
    assert (clipped[:, 0::2] <= width).all()
    assert (clipped[:, 1::2] <= height).all()
    assert torch.equal(box_ops.clip(clipped, height, width), clipped)
