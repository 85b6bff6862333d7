from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from written_sets import Shot, Thing, write_voc

from fpn.data.checks import check
from fpn.detectors.dialects import PAPER
from fpn.studies.reach import Boxes, Reach, fit_anchors, reach, stride_of

# Squares of 16 pixels every 8, and of 32 every 16, with centres at 0, 8, 16, ...; pictures are not scaled.
TWO_LEVELS = replace(
    PAPER,
    short_side=128,
    long_side=None,
    anchor_sizes=((16.0,), (32.0,)),
    anchor_ratios=(1.0,),
    anchor_strides=(8, 16),
    anchor_offset=0.0,
    anchor_positive_iou=0.7,
    anchor_negative_iou=0.3,
)


def around(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def reached(root: Path, *boxes: tuple[float, float, float, float], ignore: bool = False) -> Reach:
    things = tuple(Thing("nut", box, ignore) for box in boxes)
    return reach(check(write_voc(root, (Shot("a.png", 128, 128, things),))).inspected, TWO_LEVELS)


@pytest.mark.parametrize(
    ("box", "iou", "level"),
    [
        (around(48, 48, 16, 16), 1.0, 0),  # an anchor itself
        (around(44, 48, 16, 16), 192 / 320, 0),  # half a stride away
        (around(48, 48, 32, 32), 1.0, 1),
        (around(56, 48, 32, 32), 768 / 1280, 1),
        (around(48, 48, 8, 8), 64 / 256, 0),  # too small for the finest
        (around(64, 64, 64, 64), 1024 / 4096, 1),  # too large for the coarsest
        (around(48, 48, 8, 32), 128 / 384, 0),  # tall: 8 x 16 shared
        (around(120, 120, 16, 16), 1.0, 0),  # the last cell of the picture, 15 * 8
    ],
)
def test_the_best_anchor_of_an_object_and_its_level(
    box: tuple[float, float, float, float], iou: float, level: int
) -> None:
    fit = fit_anchors(Boxes(np.array([box]), np.array([[128, 128]])), TWO_LEVELS)
    assert fit.iou[0] == pytest.approx(iou)
    assert fit.level[0] == level


def test_no_anchor_stands_beyond_the_last_cell() -> None:
    # 128 pixels have 16 cells of 8, centres 0 to 120: an object around 128 shares 8 x 16 with the last anchor.
    fit = fit_anchors(Boxes(np.array([around(128, 48, 16, 16)]), np.array([[128, 128]])), TWO_LEVELS)
    assert fit.iou[0] == pytest.approx(8 * 16 / (2 * 256 - 8 * 16))


def test_objects_are_judged_at_the_size_that_the_network_sees() -> None:
    # 64 high, 128 wide: twice as large by the short side, but 200 / 128 by the limit of the long one.
    objects = Boxes(np.array([[0.0, 0, 16, 32]]), np.array([[64, 128]]))
    assert fit_anchors(objects, TWO_LEVELS).sides.tolist() == [[32, 64]]
    assert fit_anchors(objects, replace(TWO_LEVELS, long_side=200)).sides.tolist() == [[25, 50]]


def test_strides_are_those_of_the_levels_unless_the_dialect_says_others() -> None:
    assert [stride_of(level, PAPER) for level in range(5)] == [4, 8, 16, 32, 64]
    assert stride_of(1, TWO_LEVELS) == 16


def test_each_level_counts_its_objects_and_the_unreached_are_named(tmp_path: Path) -> None:
    found = reached(
        tmp_path,
        around(48, 48, 16, 16),
        around(92, 48, 16, 16),
        around(24, 96, 8, 8),
        around(64, 64, 64, 64),
        around(96, 96, 32, 32),
    )
    counts = [[row[key] for key in ("objects", "well", "fairly", "not")] for row in found.levels]
    assert counts == [[3, 1, 1, 1], [2, 1, 0, 1]]
    assert (found.objects, found.unreached) == (5, 2)
    assert [finding.file for finding in found.findings] == ["JPEGImages/a.png"] * 2
    small, large = (finding.message for finding in found.findings)
    assert "is 8 x 8 in the network, the best anchor (IoU 0.25) is on p2" in small
    assert "is 64 x 64 in the network, the best anchor (IoU 0.25) is on p3" in large


def test_smaller_anchors_are_suggested_for_small_objects(tmp_path: Path) -> None:
    found = reached(tmp_path, *(around(8 * k, 48, 8, 8) for k in range(2, 12)))
    assert found.unreached == 10
    assert found.suggestion is not None
    # 0.71 of 16 and 32: 64 / 121 of the smallest is shared, which suffices, and pictures may stay as they are.
    assert found.suggestion["anchor_sizes"] == [[11.0], [23.0]]
    assert found.suggestion["anchor_ratios"] == [1.0]
    assert found.suggestion["short_side"] == 128
    assert found.suggestion["unreached"] == 0


def test_the_datas_own_ratios_are_suggested_for_tall_objects(tmp_path: Path) -> None:
    found = reached(tmp_path, *(around(8 * k, 48, 8, 64) for k in range(2, 12)))
    # 128 of 640 pixels are shared with the smaller square, 256 of 1280 with the larger.
    assert found.unreached == 10
    assert found.suggestion is not None
    assert found.suggestion["anchor_ratios"] == [8.0]
    assert found.suggestion["anchor_sizes"] == [[16.0], [32.0]]
    assert found.suggestion["unreached"] == 0


def test_nothing_is_suggested_where_nothing_helps_or_nothing_is_wrong(tmp_path: Path) -> None:
    # One pixel, two at twice the size: 4 of 16 pixels of the smallest anchor that is tried.
    hopeless = reached(tmp_path / "dot", around(48, 48, 1, 1), around(80, 48, 16, 16))
    assert (hopeless.unreached, hopeless.suggestion) == (1, None)
    fine = reached(tmp_path / "fine", around(48, 48, 16, 16))
    assert (fine.unreached, fine.suggestion) == (0, None)


def test_ignored_objects_need_no_anchor(tmp_path: Path) -> None:
    found = reached(tmp_path, around(48, 48, 8, 8), ignore=True)
    assert (found.objects, found.unreached) == (0, 0)


def test_a_hundred_objects_agree_with_anchors_drawn_one_by_one() -> None:
    random = np.random.default_rng(0)
    corners = random.uniform(0, 90, (100, 2))
    boxes = np.concatenate((corners, corners + random.uniform(2, 38, (100, 2))), axis=1)
    best = np.zeros(100)
    for side, stride in ((16, 8), (32, 16)):
        for y in range(0, 128, stride):
            for x in range(0, 128, stride):
                low = np.maximum(boxes[:, :2], [x - side / 2, y - side / 2])
                high = np.minimum(boxes[:, 2:], [x + side / 2, y + side / 2])
                shared = np.clip(high - low, 0, None).prod(axis=1)
                areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + side**2
                best = np.maximum(best, shared / (areas - shared))
    fit = fit_anchors(Boxes(boxes, np.full((100, 2), 128)), TWO_LEVELS)
    np.testing.assert_allclose(fit.iou, best)
