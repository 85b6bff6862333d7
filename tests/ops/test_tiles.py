from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from fpn.ops.tiles import Tile, cut_sides, tile_pairs, tile_places
from fpn.shapes import Size


def test_an_image_no_larger_than_a_tile_is_one_tile() -> None:
    assert tile_places(Size(300, 400), 400, 0.2) == [Tile(0, 0, 300, 400)]


def test_tiles_are_as_few_as_the_overlap_allows_and_spread_evenly() -> None:
    # 900 - 400 = 500 pixels are left, at most 320 a step: two steps of 250.
    assert [tile.left for tile in tile_places(Size(400, 900), 400, 0.2)] == [0, 250, 500]
    # One pixel more than two tiles with an overlap of a half.
    assert [tile.top for tile in tile_places(Size(601, 100), 400, 0.5)] == [0, 100, 201]


@pytest.mark.parametrize(("height", "width"), [(401, 1999), (1024, 1025), (3, 5000), (777, 777)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.75])
def test_tiles_cover_every_pixel_and_share_at_least_the_overlap(height: int, width: int, overlap: float) -> None:
    tiles = tile_places(Size(height, width), 400, overlap)
    covered = torch.zeros(height, width, dtype=torch.bool)
    for tile in tiles:
        covered[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] = True
        assert (tile.height, tile.width) == (min(400, height), min(400, width))
    assert covered.all()
    lefts = sorted({tile.left for tile in tiles})
    assert all(400 - (after - before) >= 400 * overlap - 1 for before, after in pairwise(lefts))


def test_a_side_is_cut_where_the_tile_ends_but_not_where_the_image_does() -> None:
    boxes = torch.tensor([[0.0, 5.0, 99.0, 50.0], [100.0, 0.0, 150.0, 100.0], [20.0, 20.0, 40.0, 40.0]])
    # The tile reaches from 0 to 100 in both directions; the image goes on to the right of it only.
    cut = cut_sides(boxes, (0, 0, 100, 100), Size(100, 300), 2.0)
    assert cut.tolist() == [[False, False, True, False], [False, False, False, False], [False, False, False, False]]


def test_pairs_are_of_one_class_and_say_how_much_they_share() -> None:
    # Two tiles, 0 to 100 and 60 to 160, share x = 60 to 100.
    boxes = torch.tensor([[50.0, 0.0, 100.0, 10.0], [60.0, 0.0, 110.0, 10.0], [60.0, 0.0, 110.0, 10.0]])
    pairs = tile_pairs(boxes, torch.tensor([0, 0, 1]), torch.tensor([0]), torch.tensor([1, 2]), (60, 0, 100, 100))
    assert pairs.first.tolist() == [0]
    assert pairs.second.tolist() == [1]
    assert pairs.iou.item() == pytest.approx(40 / 60)
    assert pairs.first_covered.item() == pytest.approx(0.8)
    assert pairs.second_covered.item() == pytest.approx(0.8)
    assert pairs.shared_iou.item() == pytest.approx(1.0)
