from __future__ import annotations

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpn.ops.polygons import (
    Polygons,
    boxes_of_polygons,
    clip_polygons,
    rasterised_in_boxes,
    rectangles,
    runs_of_polygons,
)
from fpn.ops.run_lengths import columns_of_runs
from fpn.shapes import Size

# pycocotools hands NumPy an object of before NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# Tenths and thirds of pixels, and corners beyond the image: what decides ties.
COORDINATE = st.integers(-60, 300).map(lambda n: n / 10) | st.integers(-20, 90).map(lambda n: n / 3)
POLYGON = st.lists(st.tuples(COORDINATE, COORDINATE), min_size=3, max_size=7).map(np.array)
OBJECTS = st.lists(st.lists(POLYGON, min_size=1, max_size=3), max_size=3)


def filled(objects: list[list[np.ndarray]], height: int, width: int) -> np.ndarray:
    runs = runs_of_polygons(Polygons.of(objects), Size(height, width))
    return np.stack([columns_of_runs(runs.one(k), height, (0, 0, width, height)).T for k in range(len(objects))])


def of_pycocotools(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    codes = pycocotools.mask.frPyObjects([part.ravel().tolist() for part in polygons], height, width)
    return pycocotools.mask.decode(pycocotools.mask.merge(codes)).astype(bool)


@settings(deadline=None, max_examples=200)
@given(OBJECTS, st.integers(1, 25), st.integers(1, 25))
def test_every_pixel_is_filled_as_pycocotools_fills_it(
    objects: list[list[np.ndarray]], height: int, width: int
) -> None:
    if objects:
        expected = np.stack([of_pycocotools(polygons, height, width) for polygons in objects])
        assert np.array_equal(filled(objects, height, width), expected)


def test_the_polygons_of_an_object_are_united() -> None:
    square, bar = np.array([[0, 0], [2, 0], [2, 2], [0, 2.0]]), np.array([[1, 1], [5, 1], [5, 2], [1, 2.0]])
    [mask] = filled([[square, bar]], 3, 6)
    assert mask.astype(int).tolist() == [[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]]


def test_objects_without_polygons_are_empty_and_keep_their_place() -> None:
    masks = filled([[], [np.array([[0, 0], [2, 0], [2, 2], [0, 2.0]])], []], 4, 4)
    assert masks.sum(axis=(1, 2)).tolist() == [0, 4, 0]


def test_a_triangle_is_cut_at_the_rim_and_what_lies_outside_is_left_out() -> None:
    triangle = np.array([[-2, 1], [2, 1], [2, 5.0]])
    outside = np.array([[9, 9], [12, 9], [12, 12.0]])
    clipped = clip_polygons(Polygons.of([[triangle], [outside, triangle]]), Size(4, 4))
    assert clipped.starts.tolist() == [0, 1, 2]
    # Left rim at y = 3, lower rim at x = 1.
    corners = {tuple(point) for point in clipped.one(0)[0].tolist()}
    assert corners == {(0.0, 1.0), (2.0, 1.0), (2.0, 4.0), (1.0, 4.0), (0.0, 3.0)}
    assert boxes_of_polygons(clipped).tolist() == [[0, 1, 2, 4], [0, 1, 2, 4]]


@settings(deadline=None, max_examples=50)
@given(OBJECTS, st.integers(1, 25), st.integers(1, 25))
def test_clipping_leaves_the_pixels_as_they_were(objects: list[list[np.ndarray]], height: int, width: int) -> None:
    whole = Polygons.of(objects)
    clipped = clip_polygons(whole, Size(height, width))
    assert (clipped.points >= 0).all()
    assert (clipped.points <= [width, height]).all()
    before, after = (runs_of_polygons(each, Size(height, width)) for each in (whole, clipped))
    # A new corner on the rim is rounded to a fifth of a pixel, which may turn single pixels of a slanted edge.
    for number, polygons in enumerate(objects):
        pixels = [columns_of_runs(each.one(number), height, (0, 0, width, height)) for each in (before, after)]
        assert (pixels[0] != pixels[1]).sum() <= sum(map(len, polygons)) * 4


def test_a_polygon_inside_is_not_touched_by_clipping() -> None:
    polygons = Polygons.of([[np.array([[0, 0], [4, 0], [4, 4.0]])]])
    assert clip_polygons(polygons, Size(4, 4)) is polygons


def test_boxes_become_rectangles() -> None:
    polygons = rectangles(np.array([[1, 2, 4, 3], [0, 0, 2, 2]], dtype=np.float32))
    assert polygons.one(0)[0].tolist() == [[1, 2], [4, 2], [4, 3], [1, 3]]
    assert boxes_of_polygons(polygons).tolist() == [[1, 2, 4, 3], [0, 0, 2, 2]]


def test_a_polygon_is_filled_on_the_grid_of_its_box() -> None:
    # The left half of the box 10..18 x 20..24: two of four cells across.
    polygons = Polygons.of([[np.array([[10, 20], [14, 20], [14, 24], [10, 24.0]])]])
    cells = rasterised_in_boxes(polygons, np.array([[10, 20, 18, 24]], dtype=np.float32), 4)
    assert cells.tolist() == [[[1, 1, 0, 0]] * 4]


@pytest.mark.parametrize("cells", [7, 28])
def test_cells_in_a_box_are_pycocotools_pixels_of_the_moved_polygon(cells: int) -> None:
    random = np.random.default_rng(7)
    objects = [
        [random.random((random.integers(3, 12), 2)) * 40 for _ in range(random.integers(1, 3))] for _ in range(60)
    ]
    corners = np.sort(random.random((60, 2, 2)) * 40, axis=1)
    boxes = corners.reshape(60, 4).astype(np.float32)
    crops = rasterised_in_boxes(Polygons.of(objects), boxes, cells)
    for polygons, box, crop in zip(objects, boxes, crops, strict=True):
        sides = np.maximum(box[2:] - box[:2], np.float32(0.1)).astype(np.float64)
        moved = [(part - box[:2]) * (cells / sides) for part in polygons]
        assert np.array_equal(crop, of_pycocotools(moved, cells, cells))
