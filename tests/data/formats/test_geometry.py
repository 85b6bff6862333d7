from __future__ import annotations

import math

import pytest

from fpn.data.formats.geometry import bounds_of, has_extent, turned_bounds


def test_a_rectangle_that_is_turned_by_a_right_angle_stands_on_its_centre() -> None:
    assert turned_bounds((0.0, 0.0, 4.0, 2.0), 90.0) == pytest.approx((1, -1, 3, 3))


@pytest.mark.parametrize("degrees", [math.inf, math.nan, math.degrees(1e308)])
def test_an_angle_that_is_not_finite_gives_no_bounds(degrees: float) -> None:
    assert not has_extent(turned_bounds((0.0, 0.0, 4.0, 2.0), degrees))


@pytest.mark.parametrize("place", range(6))
def test_a_corner_that_is_not_finite_gives_no_bounds_wherever_it_stands(place: int) -> None:
    corners = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert bounds_of([corners]) == (1.0, 2.0, 5.0, 6.0)
    corners[place] = math.nan
    assert not has_extent(bounds_of([corners]))
