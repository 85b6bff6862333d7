"""Points of two levels with strides 8 and 16, whose ranges are 0 to 64 and 64 to 1000 pixels."""

from __future__ import annotations

import pytest
import torch

from fpn.ops.matching import Match
from fpn.ops.point_matching import match_points

POINTS = torch.tensor([[20.0, 20.0], [20.0, 20.0], [36.0, 20.0], [100.0, 100.0], [100.0, 100.0]])
STRIDES = torch.tensor([8.0, 16.0, 8.0, 8.0, 16.0])
RANGES = torch.tensor([[0.0, 64.0], [64.0, 1000.0], [0.0, 64.0], [0.0, 64.0], [64.0, 1000.0]])
SMALL, LARGE = [12.0, 12.0, 28.0, 28.0], [4.0, 4.0, 196.0, 196.0]


def matched(*boxes: list[float], ignore: tuple[bool, ...] = (), radius: float | None = None, closed=False) -> Match:
    given = torch.tensor(boxes).reshape(-1, 4)
    skipped = torch.tensor(ignore or [False] * len(boxes), dtype=torch.bool)
    return match_points(POINTS, STRIDES, RANGES, given, skipped, radius=radius, closed=closed)


def test_a_point_becomes_the_smallest_object_around_it_whose_farthest_side_is_in_its_range() -> None:
    # From (20, 20) the small object's sides are 8 away at most: the fine level. The large one's is 176: the coarse one.
    found = matched(SMALL, LARGE)
    assert found.kind.tolist() == [1, 1, 0, 0, 1]
    assert found.gt_index[found.kind == 1].tolist() == [0, 1, 1]


def test_with_a_radius_only_points_near_the_centre_learn() -> None:
    # The large object's centre is (100, 100): 1.5 strides of 16 are 24 pixels, and (20, 20) is 80 away.
    assert matched(LARGE, radius=1.5).kind.tolist() == [0, 0, 0, 0, 1]


def test_without_objects_all_is_background() -> None:
    assert matched().kind.tolist() == [0] * 5


def test_a_point_in_an_ignored_region_takes_no_part_unless_it_is_an_objects() -> None:
    assert matched(SMALL, [0.0, 0.0, 50.0, 50.0], ignore=(False, True)).kind.tolist() == [1, -1, -1, 0, 0]


@pytest.mark.parametrize(("closed", "kind"), [(False, 0), (True, 1)])
def test_the_ends_of_a_range_count_only_where_it_is_closed(closed: bool, kind: int) -> None:
    # From (36, 20) the right side is exactly 64 away.
    found = matched([30.0, 10.0, 100.0, 30.0], closed=closed)
    assert int(found.kind[2]) == kind


def test_a_hundred_objects_give_what_they_give_one_after_the_other() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(100, 2, generator=generator) * 80
    boxes = torch.cat([corners, corners + 5 + torch.rand(100, 2, generator=generator) * 60], dim=1)
    found = match_points(POINTS, STRIDES, RANGES, boxes, torch.zeros(100, dtype=torch.bool), radius=None, closed=False)
    for number, (point, low_high) in enumerate(zip(POINTS, RANGES, strict=True)):
        sides = torch.cat([point - boxes[:, :2], boxes[:, 2:] - point], dim=1)
        suits = (sides.amin(1) > 0) & (sides.amax(1) > low_high[0]) & (sides.amax(1) < low_high[1])
        areas = torch.where(suits, (boxes[:, 2:] - boxes[:, :2]).prod(1), torch.inf)
        assert bool(found.kind[number] == 1) == bool(suits.any())
        if suits.any():
            assert int(found.gt_index[number]) == int(areas.argmin())
