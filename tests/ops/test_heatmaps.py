"""Keypoints as cells of a heatmap and back, with numbers that can be checked by hand."""

import math

import pytest
import torch

from fpn.ops.heatmaps import cells_of_keypoints, keypoints_of_heatmaps


def test_a_keypoint_lies_in_the_cell_of_its_place_in_the_box():
    # A box of 20 x 40 pixels on 4 x 4 cells: a cell is 5 wide and 10 high.
    boxes = torch.tensor([[10.0, 100.0, 30.0, 140.0]])
    keypoints = torch.tensor([[[10.0, 100.0, 2.0], [14.9, 109.9, 1.0], [15.0, 100.0, 2.0], [29.0, 131.0, 2.0]]])
    cells, inside = cells_of_keypoints(keypoints, boxes, size=4)
    assert cells.tolist() == [[0, 0, 1, 3 * 4 + 3]]
    assert inside.all()


def test_a_keypoint_on_the_right_or_lower_edge_lies_in_the_last_cell():
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    cells, inside = cells_of_keypoints(
        torch.tensor([[[8.0, 3.0, 2.0], [3.0, 8.0, 2.0], [8.0, 8.0, 2.0]]]), boxes, size=4
    )
    assert cells.tolist() == [[1 * 4 + 3, 3 * 4 + 1, 15]]
    assert inside.all()


def test_what_is_not_labelled_or_outside_of_its_box_has_no_cell():
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    keypoints = torch.tensor([[[3.0, 3.0, 0.0], [-0.1, 3.0, 2.0], [8.1, 3.0, 2.0], [3.0, 9.0, 1.0]]])
    cells, inside = cells_of_keypoints(keypoints, boxes, size=4)
    assert not inside.any()
    assert cells.tolist() == [[0, 0, 0, 0]]


def test_no_boxes_have_no_cells():
    cells, inside = cells_of_keypoints(torch.zeros(0, 3, 3), torch.zeros(0, 4), size=4)
    assert cells.shape == inside.shape == (0, 3)
    assert keypoints_of_heatmaps(torch.zeros(0, 3, 4, 4), torch.zeros(0, 4)).shape == (0, 3, 3)


def test_the_largest_cell_of_a_map_as_large_as_its_box_is_the_keypoint():
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 0, 1, 2], maps[0, 1, 3, 0] = 5.0, 7.0
    points = keypoints_of_heatmaps(maps, torch.tensor([[10.0, 20.0, 14.0, 24.0]]), score="logit")
    # A pixel's centre counts: column 2 of a box from 10 on is at 12.5.
    assert points.tolist() == [[[12.5, 21.5, 5.0], [10.5, 23.5, 7.0]]]


def test_the_score_is_the_softmax_of_the_place_among_the_cells():
    maps = torch.zeros(1, 1, 2, 2)
    maps[0, 0, 0, 0] = math.log(3.0)
    points = keypoints_of_heatmaps(maps, torch.tensor([[0.0, 0.0, 2.0, 2.0]]))
    assert float(points[0, 0, 2]) == pytest.approx(3 / (3 + 1 + 1 + 1))


def test_boxes_narrower_than_a_pixel_count_as_one():
    points = keypoints_of_heatmaps(torch.zeros(1, 1, 4, 4), torch.tensor([[3.0, 5.0, 3.2, 5.0]]), score="logit")
    assert points[0, 0].tolist() == [3.5, 5.5, 0.0]


def test_a_keypoint_goes_to_its_cell_and_back_within_a_cell():
    random = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[5.0, 9.0, 61.0, 121.0]]).repeat(8, 1)
    places = torch.rand(8, 3, 2, generator=random) * torch.tensor([56.0, 112.0]) + torch.tensor([5.0, 9.0])
    cells, _ = cells_of_keypoints(torch.cat([places, torch.full((8, 3, 1), 2.0)], dim=2), boxes, size=28)
    maps = torch.nn.functional.one_hot(cells, 28 * 28).float().view(8, 3, 28, 28) * 9
    found = keypoints_of_heatmaps(maps, boxes)[..., :2]
    assert ((found - places).abs() <= torch.tensor([2.0, 4.0])).all()  # a cell is 2 wide and 4 high
