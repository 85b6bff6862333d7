from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written_sets import Annotation, Shot, write_voc

from fpn.data.checks.inspection import check
from fpn.detectors.anchor_reach import Boxes, fit_anchors
from fpn.detectors.dialect import Dialect
from fpn.detectors.toolkits import PAPER
from fpn.studies.anchor_fit import fit_dataset

# Square anchors of 32 and 64 on grids of 4 and 8 pixels; images keep their size of 128 x 96.
SPOKEN = PAPER.changed(
    anchors_sizes=((32.0,), (64.0,)), anchors_ratios=(1.0,), pixels_short_side=96, pixels_long_side=None
)
IMAGE = (96, 128)


def fitted(*boxes: tuple[float, float, float, float], dialect: Dialect = SPOKEN, **changes: Any) -> Any:
    numbers = np.array(boxes, dtype=float).reshape(-1, 4)
    return fit_anchors(Boxes(numbers, np.tile([IMAGE], (len(numbers), 1))), dialect.changed(**changes))


def test_an_object_on_its_anchor_has_an_iou_of_1() -> None:
    # A centre of (40, 48) is a point of both grids: 10 x 4 and 12 x 4; 5 x 8 and 6 x 8.
    fit = fitted((24, 32, 56, 64), (8, 16, 72, 80))
    assert fit.iou.tolist() == [1, 1]
    assert fit.level.tolist() == [0, 1]
    assert fit.sides.tolist() == [[32, 32], [64, 64]]


def test_the_best_anchor_is_the_nearest_of_the_grid() -> None:
    # 2 pixels to the right of its anchor: (32 - 2) * 32 shared of 2 * 32 * 32 - (32 - 2) * 32.
    assert fitted((26, 32, 58, 64)).iou.tolist() == pytest.approx([30 / 34])
    # 3 pixels: the next anchor of 4 is 1 pixel away.
    assert fitted((27, 32, 59, 64)).iou.tolist() == pytest.approx([31 / 33])


def test_a_long_object_overlaps_a_square_anchor_by_its_smaller_part() -> None:
    # 64 x 16 with a square of 32: 32 * 16 shared of 1024 + 1024 - 512. With one of 64: 1024 of 4096.
    fit = fitted((8, 40, 72, 56))
    assert fit.iou.tolist() == pytest.approx([1 / 3])
    assert fit.level.tolist() == [0]
    # An anchor of ratio 1/4 and the same area is 64 x 16.
    assert fitted((8, 40, 72, 56), anchors_ratios=(0.25,)).iou.tolist() == [1]


def test_objects_are_scaled_as_the_network_sees_them() -> None:
    # Twice the side: 16 x 16 becomes 32 x 32.
    fit = fitted((32, 40, 48, 56), pixels_short_side=192)
    assert (fit.iou.tolist(), fit.sides.tolist()) == ([1], [[32, 32]])
    # The long side of 128 may grow to 160 only: 1.25 times.
    fit = fitted((32, 40, 48, 56), pixels_short_side=192, pixels_long_side=160)
    assert fit.sides.tolist() == [[20, 20]]
    assert fit.iou.tolist() == pytest.approx([400 / 1024])


def test_anchors_stand_only_where_the_image_has_cells() -> None:
    # Cells of level 1 in an image 128 x 96 have centres from 0 to 120 and 88, so that an object of 64 x 64 in the
    # right lower corner, with its centre at (96, 64), is met, and one that hangs out to the centre (128, 96) is not.
    assert fitted((64, 32, 128, 96)).iou.tolist() == [1]
    assert fitted((96, 64, 160, 128)).iou.tolist() == pytest.approx([56 * 56 / (2 * 64 * 64 - 56 * 56)])


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_it_agrees_with_the_grid_drawn_out(offset: float) -> None:
    from fpn.ops.anchors import anchor_grid, cell_anchors
    from fpn.ops.boxes import pairwise_iou

    torch = pytest.importorskip("torch")
    dialect = SPOKEN.changed(anchors_offset=offset, anchors_ratios=(0.5, 1.0, 2.0))
    rng = np.random.default_rng(3)
    corners = rng.uniform((0, 0), (100, 70), (50, 2))
    boxes = np.concatenate((corners, corners + rng.uniform(4, 28, (50, 2))), axis=1)
    grids = [
        anchor_grid(
            96 // stride,
            128 // stride,
            stride=(stride, stride),
            cell=cell_anchors(sizes, (0.5, 1.0, 2.0)),
            offset=offset,
        )
        for sizes, stride in zip(dialect.anchors.sizes, (4, 8), strict=True)
    ]
    drawn = pairwise_iou(torch.tensor(boxes, dtype=torch.float32), torch.cat(grids)).max(dim=1).values
    assert fitted(*boxes.tolist(), dialect=dialect).iou == pytest.approx(drawn.numpy(), abs=1e-5)


def small_set(root: Path) -> Path:
    annotations = (
        Annotation("nut", (24, 32, 56, 64)),  # the anchor itself
        Annotation("nut", (60, 10, 64, 14)),  # 4 x 4: 16 of 1024
        Annotation("bolt", (8, 40, 72, 56)),  # 1/3, see above
        Annotation("bolt", (0, 0, 5, 5), ignore=True),  # counts nowhere
    )
    return write_voc(root, (Shot("a.png", 128, 96, annotations),))


def test_levels_are_counted_and_unreached_objects_named(tmp_path: Path) -> None:
    fit = fit_dataset(check(small_set(tmp_path / "set")).inspected, SPOKEN)
    assert (fit.objects, fit.unreached) == (3, 1)
    assert list(fit.levels) == [
        {"level": "p2", "stride": 4, "sizes": [32.0], "objects": 3, "well": 1, "fairly": 1, "not": 1},
        {"level": "p3", "stride": 8, "sizes": [64.0], "objects": 0, "well": 0, "fairly": 0, "not": 0},
    ]
    (finding,) = fit.findings
    assert (finding.kind, finding.file) == ("anchor-unreached", "JPEGImages/a.png")
    assert finding.message == (
        "Annotations/a.xml: object 2 (nut) is 4 x 4 in the network, the best anchor (IoU 0.02) is on p2"
    )


def test_a_suggestion_reaches_what_the_anchors_do_not(tmp_path: Path) -> None:
    # 40 cells of 6 x 6: no anchor of 32 or 64 overlaps one with 0.3, one of 8 does with 36 / 64.
    cells = tuple(
        Annotation("cell", (8 * k % 120, 16 * (k // 15), 8 * k % 120 + 6, 16 * (k // 15) + 6)) for k in range(40)
    )
    root = write_voc(tmp_path / "set", (Shot("a.png", 128, 96, cells),))
    inspected = check(root).inspected
    fit = fit_dataset(inspected, SPOKEN)
    assert (fit.objects, fit.unreached) == (40, 40)
    better = fit.suggestion
    assert better is not None
    assert better["unreached"] == 0
    # What is suggested, tried: the same count.
    changed = SPOKEN.changed(
        anchors_sizes=tuple(map(tuple, better["anchor_sizes"])),
        anchors_ratios=tuple(better["anchor_ratios"]),
        pixels_short_side=better["short_side"],
        pixels_long_side=better["long_side"],
    )
    assert fit_dataset(inspected, changed).unreached == 0


def test_where_all_is_reached_nothing_is_suggested(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set", (Shot("a.png", 128, 96, (Annotation("nut", (24, 32, 56, 64)),)),))
    fit = fit_dataset(check(root).inspected, SPOKEN)
    assert (fit.unreached, fit.suggestion, list(fit.findings)) == (0, None, [])


def test_a_dataset_without_a_single_box(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set", (Shot("a.png", 128, 96, (Annotation("nut", (1, 1, 9, 9), ignore=True),)),))
    fit = fit_dataset(check(root).inspected, SPOKEN)
    assert (fit.objects, fit.unreached, fit.suggestion) == (0, 0, None)
    assert fit.to_dict()["levels"][0]["objects"] == 0


def test_coco128_has_53_objects_that_the_papers_anchors_miss(coco128_root: Path) -> None:
    fit = fit_dataset(check(coco128_root).inspected, PAPER)
    # 939 objects, 10 of them crowds.
    assert (fit.objects, fit.unreached) == (929, 53)
    assert fit.suggestion is not None
    assert fit.suggestion["unreached"] < 10
