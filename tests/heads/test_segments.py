"""A head on one level of 4 pixels a cell, whose windows of 5 cells are for objects of 32 pixels and show 40."""

from __future__ import annotations

import math

import pytest
import torch

from fpn.errors import ConfigError, DataError
from fpn.heads.segments import SegmentConfig, SegmentHead
from fpn.shapes import Size
from fpn.structures import ImageBatch, Level, Masks, Targets

P2, P3 = Level("p2", 3, 4, 2), Level("p3", 3, 8, 3)
# The middle of cell 5 is pixel 22: a window there shows 2 to 42, four cells of 10 pixels.
SQUARE = torch.tensor([[12.0, 12.0, 32.0, 32.0]])
INNER = torch.tensor([[-1.0] * 4, [-1, 1, 1, -1], [-1, 1, 1, -1], [-1.0] * 4])


def make_head(*levels: Level, **changes) -> SegmentHead:
    settings = {"windows": (5,), "width": 4, "mask_size": 4, **changes}
    return SegmentHead(levels=levels or (P2,), config=SegmentConfig(**settings))


def silent(head: SegmentHead, mask: torch.Tensor) -> SegmentHead:
    """Says 0 of each window's score, and the same of every mask."""
    with torch.no_grad():
        for window in head.windows:
            window.objectness.weight.zero_()
            window.mask.weight.zero_()
            window.mask.bias.copy_(mask.flatten())
    return head


def images(count: int = 1, side: int = 64) -> ImageBatch:
    return ImageBatch(torch.zeros(count, 3, 64, 64), torch.tensor([[side, side]] * count))


def features(count: int = 1) -> dict[str, torch.Tensor]:
    return {"p2": torch.rand(count, 3, 16, 16), "p3": torch.rand(count, 3, 8, 8)}


def square(masked: bool = True) -> Targets:
    return Targets(SQUARE, torch.tensor([0]), masks=Masks.of_boxes(SQUARE, Size(64, 64)) if masked else None)


def test_a_window_is_for_objects_in_proportion_to_its_side_at_half_octaves() -> None:
    config = SegmentConfig()
    assert config.scale(5) * 4 == 32  # on P2
    assert config.scale(5) * 64 == 512  # on P6
    assert config.scale(7) * 16 == pytest.approx(128 * math.sqrt(2))
    assert [config.scale(side) / 8 for side in (3, 9, 11)] == pytest.approx([0.5**0.5, 2.0, 2.0])


@pytest.mark.parametrize("windows", [(4,), (5, 5), ()])
def test_windows_have_different_odd_sides(windows: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="windows"):
        SegmentConfig(windows=windows)


def test_windows_show_a_quarter_more_than_their_objects_side() -> None:
    head = make_head(P2, P3, windows=(5, 7))
    grids = head.grids(features())
    assert [(grid.height, grid.stride, round(grid.scale, 1)) for grid in grids] == [
        (16, 4, 32.0),
        (16, 4, 45.3),
        (8, 8, 64.0),
        (8, 8, 90.5),
    ]
    regions = head.regions(grids, torch.device("cpu"))
    assert regions[0].tolist() == [-18, -18, 22, 22]  # 40 pixels around (2, 2)
    assert regions[2 * 256].tolist() == [-36, -36, 44, 44]  # 80 around (4, 4)
    side = regions[256, 2] - regions[256, 0]
    assert float(side) == pytest.approx(40 * math.sqrt(2), abs=1e-4)


def test_the_centred_window_learns_the_inner_cells() -> None:
    right = silent(make_head(reach=0.4), 50 * INNER).losses(features(), images(), [square()])
    assert right.samples == {"objectness": 128.0, "mask": 1.0}
    assert right.detach()["mask"] == pytest.approx(0, abs=1e-6)
    assert float(right.counts["mask_accuracy"]) == 1.0
    empty = silent(make_head(reach=0.4), torch.full((4, 4), -1.0)).losses(features(), images(), [square()])
    assert float(empty.counts["mask_accuracy"]) == 12 / 16


def test_losses_are_means_over_windows_and_the_masks_weighs_ten_times() -> None:
    found = silent(make_head(), torch.zeros(4, 4)).losses(features(2), images(2), [square(), Targets.empty()])
    assert found.samples == {"objectness": 256.0, "mask": 9.0}
    assert float(found.counts["positive_windows"]) == 4.5  # 3 x 3 in one of two images
    assert found.detach()["objectness"] == pytest.approx(math.log(2))
    assert found.detach()["mask"] == pytest.approx(10 * math.log(2))


def test_at_most_a_quarter_of_the_windows_drawn_have_an_object() -> None:
    found = make_head(samples=20).losses(features(), images(), [square()])
    assert found.samples == {"objectness": 20.0, "mask": 5.0}


def test_windows_beyond_a_small_image_are_not_drawn() -> None:
    # Of cells of 4 pixels 5 x 5 have their middles within 20 pixels.
    found = make_head().losses(features(), images(side=20), [Targets.empty()])
    assert found.samples == {"objectness": 25.0, "mask": 0.0}
    assert found.detach()["mask"] == 0


def test_objects_without_masks_teach_nothing() -> None:
    with pytest.raises(DataError, match="label outlines"):
        make_head().losses(features(), images(), [square(masked=False)])


def test_a_window_that_is_looked_through_alone_scores_as_on_the_whole_map() -> None:
    head, maps = make_head(P2, P3, windows=(3, 5)), features(2)
    whole = torch.cat([each.flatten(1) for each in head(maps)], dim=1)
    assert whole.shape == (2, 2 * 256 + 2 * 64)
    image, place = torch.tensor([1, 0, 1, 0]), torch.tensor([600, 3, 255, 256])
    objectness, masks = head.look(maps, head.grids(maps), image, place)
    torch.testing.assert_close(objectness, whole[image, place])
    assert masks.shape == (4, 4, 4)


def seeing(**changes) -> tuple[SegmentHead, dict[str, torch.Tensor]]:
    """A head that scores a window by the middle cell of its map, and a map: 3 at cell (5, 5), 2 at (6, 5)."""
    head = silent(make_head(**changes), 50 * INNER)
    with torch.no_grad():
        (window,) = head.windows
        window.hidden.weight.zero_()
        window.hidden.weight[0, 0, 2, 2] = window.objectness.weight[0, 0] = 1.0
    maps = torch.zeros(1, 3, 16, 16)
    maps[0, 0, 5, 5], maps[0, 0, 5, 6] = 3.0, 2.0
    return head, {"p2": maps}


def test_the_best_windows_are_given_in_order_with_boxes_around_their_masks() -> None:
    head, maps = seeing(before_nms=2)
    (found,) = head.detect(maps, images())
    assert found.scores.tolist() == pytest.approx([0.9526, 0.8808], abs=1e-4)  # sigmoids of 3 and 2
    assert found.boxes.tolist() == [[12, 12, 32, 32], [16, 12, 36, 32]]
    assert found.mask_regions.tolist() == [[2, 2, 42, 42], [6, 2, 46, 42]]
    assert found.labels.tolist() == [0, 0]
    assert ((found.mask_probabilities > 0.5) == (INNER > 0)).all()


def test_nothing_is_suppressed_unless_asked_for() -> None:
    # Of two squares of 20 pixels, 4 apart, 16 * 20 are shared: an IoU of 320 / 480.
    for threshold, kept in ((None, 2), (0.7, 2), (0.6, 1)):
        head, maps = seeing(before_nms=2, nms=threshold)
        assert len(head.detect(maps, images())[0]) == kept
    head, maps = seeing(limit=7)
    assert len(head.detect(maps, images())[0]) == 7


def test_windows_beyond_the_image_and_masks_without_a_cell_in_it_are_not_given() -> None:
    head, maps = seeing()
    (found,) = head.detect(maps, images(side=20))
    assert len(found) == 25  # 5 x 5 cells
    assert float(found.boxes.max()) <= 20
    blank = silent(make_head(), torch.full((4, 4), -1.0))
    assert len(blank.detect(maps, images())[0]) == 0


def test_looking_again_gives_what_was_kept() -> None:
    torch.manual_seed(0)
    head = make_head(P2, P3, windows=(3, 5), before_nms=50)
    maps, batch = features(2), ImageBatch(torch.zeros(2, 3, 64, 64), torch.tensor([[64, 64], [40, 24]]))
    with torch.no_grad():
        for window in head.windows:
            window.mask.weight.normal_()
            window.objectness.weight.normal_()
    for kept, again in zip(head.detect(maps, batch), head.choose(maps, head(maps), batch), strict=True):
        assert 10 < len(kept) <= 50
        assert torch.equal(kept.boxes, again.boxes)
        torch.testing.assert_close(kept.scores, again.scores)
        torch.testing.assert_close(kept.mask_probabilities, again.mask_probabilities)


def test_two_objects_are_learned_by_heart() -> None:
    torch.manual_seed(0)
    head, maps = make_head(width=32, mask_size=8, samples=32, before_nms=20), {"p2": torch.randn(1, 3, 16, 16)}
    boxes = torch.tensor([[4.0, 4.0, 30.0, 34.0], [30.0, 36.0, 60.0, 58.0]])
    outlines = [[[4.0, 4.0, 30.0, 4.0, 4.0, 34.0]], [[30.0, 36.0, 60.0, 36.0, 60.0, 58.0, 30.0, 58.0]]]
    masks = Masks.from_coco(outlines, Size(64, 64))
    targets = [Targets(boxes, torch.tensor([0, 1]), masks=masks)]
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        head.losses(maps, images(), targets).total.backward()
        optimizer.step()
    (found,) = head.detect(maps, images())
    pasted = Masks.from_probabilities(found.mask_probabilities, found.mask_regions, Size(64, 64)).dense()
    for wanted in masks.dense():
        shared = (pasted & wanted).flatten(1).sum(1) / (pasted | wanted).flatten(1).sum(1)
        assert float(shared.max()) > 0.75
