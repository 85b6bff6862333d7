"""Windows on two maps of a 64 x 64 image: cells of 4 pixels for objects of 32, cells of 8 for objects of 64."""

from __future__ import annotations

import torch
from torch.nn import functional

from fpn.ops.matching import Match
from fpn.ops.windows import Grid, cut_windows, locate_windows, match_windows, nearest_scale, window_centres

FINE, COARSE = Grid(16, 16, 4, 32.0), Grid(8, 8, 8, 64.0)
GRIDS = (FINE, COARSE)


def matched(*boxes: list[float], ignore: tuple[bool, ...] = (), reach: float = 1.0) -> Match:
    given = torch.tensor(boxes).reshape(-1, 4)
    skipped = torch.tensor(ignore or [False] * len(boxes), dtype=torch.bool)
    return match_windows(GRIDS, given, skipped, reach=reach)


def cells(found: Match, kind: int = 1) -> dict[int, set[tuple[int, int]]]:
    """Grid -> (x, y) of its windows of a kind."""
    grid, y, x = locate_windows(GRIDS, (found.kind == kind).nonzero().squeeze(1))
    told: dict[int, set[tuple[int, int]]] = {}
    for number, column, row in zip(grid.tolist(), x.tolist(), y.tolist(), strict=True):
        told.setdefault(number, set()).add((column, row))
    return told


def square(middle: float, side: float) -> list[float]:
    return [middle - side / 2, middle - side / 2, middle + side / 2, middle + side / 2]


def block(*sides: int) -> set[tuple[int, int]]:
    return {(x, y) for x in sides for y in sides}


def test_an_object_goes_to_the_scale_that_is_nearest_in_octaves() -> None:
    # Between 32, 45.25 and 64 a quarter of an octave is the border: 38.05 and 53.82.
    sides = torch.tensor([3.0, 32.0, 38.0, 38.1, 45.0, 53.8, 53.9, 64.0, 900.0])
    assert nearest_scale(sides, [32.0, 45.2548, 64.0]).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_windows_stand_in_the_middle_of_their_cells_row_by_row() -> None:
    found = window_centres([Grid(2, 3, 4, 32.0), Grid(1, 1, 8, 64.0)], torch.device("cpu"))
    assert found.tolist() == [[2, 2], [6, 2], [10, 2], [2, 6], [6, 6], [10, 6], [4, 4]]


def test_windows_within_a_cell_of_the_centre_learn_an_object_of_their_scale() -> None:
    # 22 pixels are the middle of cell 5 of 4 pixels.
    assert cells(matched(square(22, 30))) == {0: block(4, 5, 6)}
    # 24 lie between cells 5 and 6: 4.5 to 6.5 are within reach.
    assert cells(matched(square(24, 30))) == {0: block(5, 6)}
    # The same place, but an object of 64 pixels: 24 pixels lie between cells 2 and 3 of 8.
    assert cells(matched(square(24, 64))) == {1: block(2, 3)}
    # The longer side counts: 20 x 60 is nearest to 64.
    assert cells(matched([14.0, -6.0, 34.0, 54.0])) == {1: block(2, 3)}


def test_reach_counts_in_cells_and_ends_at_the_rim() -> None:
    assert cells(matched(square(22, 30), reach=0.4)) == {0: block(5)}
    assert cells(matched(square(22, 30), reach=2.0)) == {0: block(3, 4, 5, 6, 7)}
    assert cells(matched(square(2, 30))) == {0: block(0, 1)}


def test_of_two_objects_in_reach_the_nearer_is_learned_and_of_equally_near_ones_the_first() -> None:
    # In cells their centres are 5 and 6.5 in x, and 5 in y.
    first, second = [7.0, 7.0, 37.0, 37.0], [13.0, 7.0, 43.0, 37.0]
    found = matched(first, second)
    row = [int(found.gt_index[5 * 16 + x]) if found.kind[5 * 16 + x] == 1 else None for x in range(3, 9)]
    assert row == [None, 0, 0, 1, 1, None]  # 6 is 1 from the first and 0.5 from the second
    twice = matched(first, first)
    assert twice.gt_index[twice.kind == 1].tolist() == [0] * 9


def test_without_objects_all_is_background() -> None:
    assert matched().kind.tolist() == [0] * (256 + 64)


def test_windows_that_stand_in_an_ignored_box_take_no_part_unless_they_learn_an_object() -> None:
    found = matched(square(22, 30), [0.0, 0.0, 24.0, 24.0], ignore=(False, True))
    assert cells(found) == {0: block(4, 5, 6)}
    # Cells 0 to 5 of 4 pixels have their middles within 24, and cells 0 to 2 of 8.
    assert cells(found, kind=-1) == {0: block(0, 1, 2, 3, 4, 5) - block(4, 5, 6), 1: block(0, 1, 2)}


def test_a_number_leads_to_its_window() -> None:
    grid, y, x = locate_windows(GRIDS, torch.tensor([0, 255, 256, 266]))
    assert grid.tolist() == [0, 0, 1, 1]
    assert y.tolist() == [0, 15, 0, 1]
    assert x.tolist() == [0, 15, 0, 2]


def test_a_window_at_the_rim_sees_zeros_beyond_it() -> None:
    maps = torch.arange(9.0).reshape(1, 1, 3, 3)
    (found,) = cut_windows(maps, torch.tensor([0]), torch.tensor([0]), torch.tensor([0]), 3)
    assert found.tolist() == [[[0, 0, 0], [0, 0, 1], [0, 3, 4]]]


def test_a_layer_gives_of_cut_windows_what_it_gives_of_whole_maps_and_the_same_gradients() -> None:
    maps = torch.randn(2, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    image, y, x = torch.tensor([0, 1, 1]), torch.tensor([0, 3, 5]), torch.tensor([6, 2, 6])
    whole = functional.conv2d(maps, weight, padding=2)[image, :, y, x]
    cut = functional.conv2d(cut_windows(maps, image, y, x, 5), weight).flatten(1)
    torch.testing.assert_close(cut, whole)
    wanted, found = (torch.autograd.grad(each.square().sum(), maps)[0] for each in (whole, cut))
    torch.testing.assert_close(found, wanted)
