from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from fpn.ops.anchors import anchor_grid, cell_anchors, level_anchors
from fpn.ops.boxes import area
from ops.given_boxes import QUICK

RATIOS = (0.5, 1.0, 2.0)


def _count(height: int, width: int, *, strides: dict[int, tuple[float, ...]]) -> int:
    """Anchors of an image with three ratios; `strides` says which sizes stand on which stride."""
    return sum(
        len(level_anchors(math.ceil(height / stride), math.ceil(width / stride), (stride, stride), sizes, RATIOS))
        for stride, sizes in strides.items()
    )


def test_the_papers_counts_at_800_by_1000() -> None:
    five = (32.0, 64.0, 128.0, 256.0, 512.0)
    assert _count(800, 1000, strides={16: five}) == 47_250
    assert _count(800, 1000, strides={32: five}) == 12_000
    assert _count(800, 1000, strides={4: five}) == 750_000
    one_a_level = {4: (32.0,), 8: (64.0,), 16: (128.0,), 32: (256.0,), 64: (512.0,)}
    assert _count(800, 1000, strides=one_a_level) == 199_974


def test_a_half_is_wide_as_height_by_width_and_tall_as_width_by_height() -> None:
    # Area 32 ** 2 with sides 2 : 1 is 45.25 x 22.63.
    wide = cell_anchors((32.0,), (0.5,))
    torch.testing.assert_close(wide, torch.tensor([[-22.6274, -11.3137, 22.6274, 11.3137]]))
    tall = cell_anchors((32.0,), (0.5,), ratio="width/height")
    torch.testing.assert_close(tall, wide[:, [1, 0, 3, 2]])


def test_rounding_is_of_corners_and_half_to_even() -> None:
    assert cell_anchors((32.0,), (0.5,), rounded=True).tolist() == [[-23.0, -11.0, 23.0, 11.0]]
    assert cell_anchors((33.0, 35.0), (1.0,), rounded=True)[:, 2].tolist() == [16.0, 18.0]  # of 16.5 and 17.5


def test_order_of_a_cells_anchors() -> None:
    by_size = cell_anchors((8.0, 16.0), (1.0, 4.0), order="size_major")
    assert by_size[:, 2:].tolist() == [[4.0, 4.0], [2.0, 8.0], [8.0, 8.0], [4.0, 16.0]]
    by_ratio = cell_anchors((8.0, 16.0), (1.0, 4.0), order="ratio_major")
    assert by_ratio[:, 2:].tolist() == [[4.0, 4.0], [8.0, 8.0], [2.0, 8.0], [4.0, 16.0]]


def test_grid_runs_over_anchor_then_x_then_y() -> None:
    cell = torch.tensor([[-1.0, -1.0, 1.0, 1.0], [-2.0, -2.0, 2.0, 2.0]])
    grid = anchor_grid(2, 2, stride=(10, 4), cell=cell)
    centres = ((grid[:, :2] + grid[:, 2:]) / 2).tolist()
    assert centres == [[0, 0], [0, 0], [4, 0], [4, 0], [0, 10], [0, 10], [4, 10], [4, 10]]
    assert (grid[:, 2] - grid[:, 0]).tolist() == [2, 4] * 4


def test_offset_moves_by_part_of_a_stride() -> None:
    grid = level_anchors(1, 1, (10, 4), (2.0,), (1.0,), offset=0.5)
    assert grid.tolist() == [[1.0, 4.0, 3.0, 6.0]]


def test_each_option_of_a_level_reaches_its_anchors() -> None:
    plain = {"sizes": (8.0, 16.0), "ratios": (0.5, 1.0)}
    grids = [
        level_anchors(2, 3, (4, 4), **plain, **changed)
        for changed in (
            {},
            {"ratio": "width/height"},
            {"rounded": True},
            {"order": "ratio_major"},
            {"offset": 0.25},
        )
    ]
    assert all(not torch.equal(a, b) for i, a in enumerate(grids) for b in grids[:i])
    assert not torch.equal(level_anchors(2, 3, (4, 8), **plain), grids[0])


def test_a_level_is_drawn_once_for_each_shape() -> None:
    first = level_anchors(5, 7, (4, 4), (32.0,), RATIOS)
    assert level_anchors(5, 7, (4, 4), (32.0,), RATIOS) is first
    assert len(level_anchors(5, 8, (4, 4), (32.0,), RATIOS)) == 5 * 8 * 3


def test_anchors_remembered_from_inference_take_part_in_training() -> None:
    with torch.inference_mode():
        anchors = level_anchors(3, 11, (4, 4), (32.0,), RATIOS)
    weight = torch.ones(4, requires_grad=True)
    (weight * anchors).sum().backward()  # an inference tensor could not be saved for this
    assert weight.grad is not None


def test_a_map_without_cells_has_no_anchors() -> None:
    assert level_anchors(0, 7, (4, 4), (32.0,), RATIOS).shape == (0, 4)
    assert cell_anchors((), RATIOS).shape == (0, 4)


@pytest.mark.parametrize("size", [(203, 317), (64, 64), (1, 1)])
def test_grids_equal_torchvisions(size: tuple[int, int]) -> None:
    sizes = (32.0, 64.0, 128.0)
    maps = [torch.zeros(1, 1, math.ceil(size[0] / s), math.ceil(size[1] / s)) for s in (4, 8, 16)]
    theirs = AnchorGenerator(tuple((s,) for s in sizes), (RATIOS,) * 3)(
        ImageList(torch.zeros(1, 3, *size), [size]), maps
    )
    ours = [
        level_anchors(h, w, (size[0] // h, size[1] // w), (side,), RATIOS, rounded=True, order="ratio_major")
        for (h, w), side in zip([tuple(m.shape[2:]) for m in maps], sizes, strict=True)
    ]
    assert torch.equal(torch.cat(ours), theirs[0])


@QUICK
@given(
    st.lists(st.floats(1, 600), min_size=1, max_size=3),
    st.lists(st.floats(0.1, 10), min_size=1, max_size=3),
    st.sampled_from(["height/width", "width/height"]),
)
def test_anchors_have_the_area_and_the_ratio_that_is_asked_for(
    sizes: list[float], ratios: list[float], ratio: str
) -> None:
    cell = cell_anchors(sizes, ratios, ratio=ratio)
    expected = torch.tensor([s * s for s in sizes for _ in ratios])
    torch.testing.assert_close(area(cell), expected, rtol=1e-5, atol=1e-4)
    width, height = (cell[:, 2:] - cell[:, :2]).unbind(1)
    measured = height / width if ratio == "height/width" else width / height
    torch.testing.assert_close(measured, torch.tensor(ratios * len(sizes)), rtol=1e-5, atol=1e-5)
    assert torch.equal(cell[:, :2], -cell[:, 2:])
