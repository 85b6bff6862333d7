from __future__ import annotations

import math

import pytest
import torch

from fpn.errors import DataError
from fpn.heads.box import SampledRoIs
from fpn.heads.keypoint import KeypointConfig, KeypointHead
from fpn.heads.roi_pooler import RoIConfig, RoIPooler
from fpn.structures import Detections, ImageBatch, Level, Targets

LEVELS = (Level("p2", 3, 4, 2),)
BOX = [8.0, 8.0, 24.0, 24.0]


def make_head(num_keypoints: int = 2, **changes) -> KeypointHead:
    config = KeypointConfig(roi_size=1, channels=4, convolutions=1).changed(**changes)
    pooler = RoIPooler(levels=LEVELS, config=RoIConfig(output_size=config.roi_size))
    return KeypointHead(pooler=pooler, num_keypoints=num_keypoints, config=config, most_positive=8.0)


def silent(head: KeypointHead) -> KeypointHead:
    """Says the same of every cell."""
    with torch.no_grad():
        head.upsample.weight.zero_()
    return head


def images(count: int = 1) -> ImageBatch:
    return ImageBatch(torch.zeros(count, 3, 64, 64), torch.tensor([[64, 64]] * count))


def features(count: int = 1) -> dict[str, torch.Tensor]:
    return {"p2": torch.rand(count, 3, 16, 16)}


def drawn(*boxes: list[float]) -> SampledRoIs:
    """Positive RoIs of object 0, and one of the background behind them."""
    every = torch.tensor([*boxes, [40.0, 40.0, 60.0, 60.0]])
    index = torch.zeros(len(boxes), dtype=torch.int64)
    return SampledRoIs(every, torch.tensor([0] * len(boxes) + [1]), torch.zeros(len(boxes), 4), index)


def truth(*points: tuple[float, float, float]) -> Targets:
    return Targets(torch.tensor([BOX]), torch.tensor([0]), keypoints=torch.tensor([points]).float())


def test_heatmaps_have_four_times_the_cells_that_are_read() -> None:
    assert make_head(roi_size=3)(features(), images(), [torch.tensor([BOX])]).shape == (1, 2, 12, 12)


def test_the_loss_of_a_silent_head_is_the_log_of_the_number_of_cells() -> None:
    terms = silent(make_head()).losses(features(), images(), [drawn(BOX)], [truth((10, 10, 2), (20, 20, 1))])
    assert float(terms.terms["keypoint"].detach()) == pytest.approx(math.log(16), rel=1e-6)
    assert terms.samples == {"keypoint": 2.0}


def test_keypoints_that_are_not_labelled_or_outside_of_the_roi_do_not_count() -> None:
    # The RoI ends at 16: of three keypoints one is in it and labelled.
    points = truth((10, 10, 2), (20, 20, 2), (0, 0, 0))
    terms = make_head(3).losses(features(), images(), [drawn([8.0, 8.0, 16.0, 24.0])], [points])
    assert terms.samples == {"keypoint": 1.0}


def test_the_sum_may_be_divided_by_what_could_be_sampled() -> None:
    head = silent(make_head(normaliser="sampled"))
    terms = head.losses(features(), images(), [drawn(BOX)], [truth((10, 10, 2), (20, 20, 2))])
    # Two of 8 positive RoIs x 1 image x 2 keypoints.
    assert float(terms.terms["keypoint"].detach()) == pytest.approx(math.log(16) * 2 / 16, rel=1e-6)
    assert terms.samples == {}


@pytest.mark.parametrize("points", [((0, 0, 0), (0, 0, 0)), ((60, 60, 2), (0, 0, 0))], ids=["none", "outside"])
def test_without_a_visible_keypoint_the_loss_is_zero_and_every_weight_has_a_gradient(points) -> None:
    head = make_head()
    terms = head.losses(features(), images(), [drawn(BOX)], [truth(*points)])
    terms.terms["keypoint"].backward()
    assert float(terms.terms["keypoint"].detach()) == 0.0
    assert all(weight.grad is not None and not weight.grad.any() for weight in head.parameters())


def test_a_head_learns_the_cell_of_a_keypoint() -> None:
    torch.manual_seed(0)
    head, maps, points = make_head(), features(), truth((9, 9, 2), (23, 23, 2))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        head.losses(maps, images(), [drawn(BOX)], [points]).total.backward()
        optimizer.step()
    found = Detections(torch.tensor([BOX]), torch.tensor([0.9]), torch.tensor([0]))
    (with_points,) = head.complete(maps, images(), [found])
    # A cell is 4 pixels.
    assert (with_points.keypoints[0, :, :2] - points.keypoints[0, :, :2]).abs().max() < 4
    assert (with_points.keypoints[0, :, 2] > 0.5).all()


def test_what_was_found_gets_keypoints_each_in_its_own_image() -> None:
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    one = Detections(torch.tensor([BOX]), torch.tensor([0.9]), torch.tensor([0]))
    found = make_head(5).complete(features(2), images(2), [none, one])
    assert [each.keypoints.shape for each in found] == [(0, 5, 3), (1, 5, 3)]
    assert (found[1].keypoints[..., :2] >= 8).all()
    assert (found[1].keypoints[..., :2] <= 24).all()


def test_objects_without_keypoints_or_with_others_stop_the_loss() -> None:
    bare = Targets(torch.tensor([BOX]), torch.tensor([0]))
    with pytest.raises(DataError, match="can't learn from objects without them"):
        make_head().losses(features(), images(), [drawn(BOX)], [bare])
    with pytest.raises(DataError, match="objects with 2 keypoints, the detector has 5"):
        make_head(5).losses(features(), images(), [drawn(BOX)], [truth((10, 10, 2), (20, 20, 2))])
