"""The answers to the exercises of docs/learn, each a test."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from fpn.ops.anchors import cell_anchors
from fpn.ops.box_coding import encode
from fpn.ops.boxes import pairwise_iou
from fpn.ops.roi_align.levels import choose_levels
from fpn.ops.roi_align.samplers import Span, align


def levels(*sizes: tuple[float, float], rule: str = "floor_log2", canonical_size: float = 224.0) -> list[int]:
    boxes = torch.tensor([(0.0, 0.0, width, height) for width, height in sizes])
    return choose_levels(boxes, finest=2, coarsest=5, rule=rule, canonical_size=canonical_size).tolist()  # type: ignore[arg-type]


# --- the pyramid ------------------------------------------------------------------------------------------------------


def test_p3_of_1333_by_800_pixels_has_168_by_100_cells_and_50400_anchors() -> None:
    # 1333 is padded to 1344, the next multiple of 32, and P3 has a cell for 8 pixels.
    width, height = math.ceil(1333 / 32) * 32 // 8, 800 // 8
    assert (width, height) == (168, 100)
    assert width * height * 3 == 50_400


def test_three_quarters_of_the_anchors_lie_on_p2_since_each_level_has_a_quarter_of_the_one_below() -> None:
    assert pytest.approx(0.751, abs=0.001) == 163_200 / 217_413
    assert 1 / sum(0.25**level for level in range(5)) == pytest.approx(0.751, abs=0.001)


def test_p6_takes_every_second_cell_of_25_beginning_with_the_first_which_are_13() -> None:
    assert len(range(0, 25, 2)) == 13
    assert len(range(0, 34, 2)) == 17


# --- equation 1 -------------------------------------------------------------------------------------------------------


def test_a_long_box_goes_where_a_square_one_of_its_area_does() -> None:
    # sqrt(448 * 112) = 224; sqrt(32 * 800) = 160.
    assert levels((448, 112), (224, 224)) == [4, 4]
    assert levels((32, 800), (160, 160)) == [3, 3]


def test_images_of_256_instead_of_800_pixels_want_72_in_place_of_224() -> None:
    assert pytest.approx(71.7, abs=0.05) == 224 * 256 / 800
    small = [(side * 256 / 800, side * 256 / 800) for side in (100, 150, 300, 500)]
    assert levels(*small, canonical_size=224 * 256 / 800) == [2, 3, 4, 5]
    assert levels(*small) == [2, 2, 2, 3]


def test_floor_and_round_disagree_from_158_4_to_224() -> None:
    edge = 224 / math.sqrt(2)
    assert edge == pytest.approx(158.4, abs=0.05)
    sides = [(side, side) for side in (edge - 0.1, edge + 0.1, 223.9, 224.1)]
    assert levels(*sides) == [3, 3, 3, 4]
    assert levels(*sides, rule="round_log2") == [3, 4, 4, 4]


# --- the RPN ----------------------------------------------------------------------------------------------------------


def test_20_by_20_in_32_by_32_overlaps_by_0_39_which_is_neither_example_nor_ground() -> None:
    [[overlap]] = pairwise_iou(torch.tensor([[6.0, 6, 26, 26]]), torch.tensor([[0.0, 0, 32, 32]])).tolist()
    assert overlap == pytest.approx(400 / 1024)
    assert 0.3 < overlap < 0.7


def test_a_box_twice_as_large_in_the_same_corner_moves_and_grows_alike_on_both_axes() -> None:
    deltas = encode(torch.tensor([[0.0, 0, 64, 64]]), torch.tensor([[0.0, 0, 32, 32]]))[0].tolist()
    assert deltas == pytest.approx([0.5, 0.5, math.log(2), math.log(2)])


def test_an_object_of_height_32_may_be_16_wide_and_not_less() -> None:
    anchors = cell_anchors([32], [0.5, 1, 2])

    def best(width: float) -> float:
        return float(pairwise_iou(torch.tensor([[-width / 2, -16, width / 2, 16]]), anchors).max())

    # The tall anchor is 22.6 x 45.3: an object inside of it has IoU width * 32 / 1024; below 16 that is less than half.
    assert best(16) == pytest.approx(0.5)
    assert best(15.9) < 0.5 < best(16.1)


# --- RoIAlign ---------------------------------------------------------------------------------------------------------


def test_a_box_from_0_5_reads_between_four_cells_2_5() -> None:
    cells = torch.arange(16.0).reshape(4, 4)
    taps = align(Span(torch.tensor([0.5]), torch.tensor([2.5]), torch.tensor([4])), 2, ratio=1, aligned=True)
    # The first bin's point is 1.0, midway between the middles of cells 0 and 1.
    cell, weight = taps.cell[0, 0], taps.weight[0, 0]
    read = sum(
        float(weight[i] * weight[j] * cells[cell[i], cell[j]]) for i in range(len(cell)) for j in range(len(cell))
    )
    assert read == pytest.approx((0 + 1 + 4 + 5) / 4)


def test_points_of_a_box_of_14_cells_are_one_cell_apart() -> None:
    assert 14 / 7 / 2 == 1.0


def test_on_p2_a_bin_of_1000_pixels_is_36_cells_wide_so_equation_1_reads_it_from_p5() -> None:
    # Two points of 36 cells miss nearly all of them; on P5, of stride 32, a bin has 4.5.
    assert pytest.approx(35.7, abs=0.05) == 1000 / 4 / 7
    assert levels((1000, 1000)) == [5]
    assert pytest.approx(4.5, abs=0.05) == 1000 / 32 / 7


# --- the tables -------------------------------------------------------------------------------------------------------


def test_an_fpn_of_the_image_pyramids_cost_has_images_1_35_times_as_large() -> None:
    assert math.sqrt(172 / 95) == pytest.approx(1.35, abs=0.005)


def test_a_mean_of_two_points_with_a_spread_of_one_gets_no_star() -> None:
    differences = [-1.0, -3.0, -2.0]
    assert statistics.mean(differences) == -2.0
    assert statistics.stdev(differences) == 1.0
    assert not abs(statistics.mean(differences)) > 2 * statistics.stdev(differences)
