from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fpn.errors import DataError
from fpn.features.frozen import FrozenNorm
from fpn.heads.box import SampledRoIs
from fpn.heads.class_rows import ClassRows
from fpn.heads.mask import MaskConfig, MaskHead
from fpn.heads.roi_pooler import RoIConfig, RoIPooler
from fpn.shapes import Size
from fpn.structures import Detections, ImageBatch, Level, Masks, Targets

LEVELS = (Level("p2", 3, 4, 2), Level("p3", 3, 8, 3))


def make_head(num_classes: int = 2, **changes) -> MaskHead:
    config = MaskConfig(roi_size=2, channels=4, convolutions=1).changed(**changes)
    pooler = RoIPooler(levels=LEVELS, config=RoIConfig(output_size=config.roi_size))
    return MaskHead(pooler=pooler, num_classes=num_classes, config=config)


def silent(head: MaskHead, *logits: float) -> MaskHead:
    """Says the same of every cell, by class."""
    with torch.no_grad():
        head.logits.weight.zero_()
        head.logits.bias.copy_(torch.tensor(logits))
    return head


def images(count: int = 1) -> ImageBatch:
    return ImageBatch(torch.zeros(count, 3, 64, 64), torch.tensor([[64, 64]] * count))


def features(count: int = 1) -> dict[str, torch.Tensor]:
    return {"p2": torch.rand(count, 3, 16, 16), "p3": torch.rand(count, 3, 8, 8)}


def drawn(boxes: list[list[float]], labels: list[int], gt_index: list[int]) -> SampledRoIs:
    """Positive RoIs, and one of the background behind them."""
    every = torch.tensor([*boxes, [40.0, 40.0, 60.0, 60.0]])
    return SampledRoIs(every, torch.tensor([*labels, 2]), torch.zeros(len(boxes), 4), torch.tensor(gt_index).long())


LEFT_HALF = [[8.0, 8.0, 16.0, 8.0, 16.0, 24.0, 8.0, 24.0]]


def left_half(labels: list[int] | None = None) -> Targets:
    """One object in the box 8..24, whose left half it fills."""
    masks = Masks.from_coco([LEFT_HALF], Size(64, 64))
    return Targets(torch.tensor([[8.0, 8.0, 24.0, 24.0]]), torch.tensor(labels or [1]), masks=masks)


def test_masks_have_twice_the_cells_that_are_read() -> None:
    head = make_head(roi_size=7, convolutions=4)
    logits = head(features(), images(), [torch.tensor([[8.0, 8.0, 24.0, 24.0]])], torch.tensor([0]))
    assert logits.shape == (1, 14, 14)
    assert len(head.tower) == 4


def test_a_roi_has_the_mask_of_its_own_class_and_no_other_is_computed() -> None:
    head, pooled = make_head(num_classes=3), torch.rand(4, 3, 2, 2)
    labels = torch.tensor([0, 2, 1, 2])
    every = head.logits(head.upsample(head.tower(pooled)).relu())  # (4, 3, 4, 4)
    torch.testing.assert_close(head.judge(pooled, labels), every[torch.arange(4), labels])


def test_class_agnostic_masks_are_the_same_for_all_classes() -> None:
    head = make_head(class_agnostic=True)
    pooled = torch.rand(1, 3, 2, 2).repeat(2, 1, 1, 1)
    one, other = head.judge(pooled, torch.tensor([0, 1]))
    assert torch.equal(one, other)
    assert head.logits.out_channels == 1
    assert head.class_rows() == []


def test_the_last_layer_has_rows_by_class() -> None:
    head = make_head(num_classes=3)
    assert head.class_rows() == [ClassRows(head.logits)]
    assert len(head.logits.weight) == head.class_rows()[0].count(3)


def test_the_loss_is_the_cross_entropy_of_all_cells_of_positive_rois() -> None:
    # Class 1 says 3 to 1 that a cell is the object's; half of the cells are.
    head = silent(make_head(), 9.0, math.log(3.0))
    terms = head.losses(features(), images(), [drawn([[8.0, 8.0, 24.0, 24.0]], [1], [0])], [left_half()])
    expected = -(math.log(0.75) + math.log(0.25)) / 2
    assert float(terms.terms["mask"].detach()) == pytest.approx(expected, rel=1e-5)
    assert float(terms.counts["mask_accuracy"]) == 0.5
    assert terms.samples == {"mask": 1.0}


def test_each_roi_learns_what_its_box_shows_of_its_object() -> None:
    # The left half of the object's box shows it alone, the right half nothing of it.
    head = silent(make_head(), 0.0, 20.0)
    for box, right in (([8.0, 8.0, 16.0, 24.0], 1.0), ([16.0, 8.0, 24.0, 24.0], 0.0)):
        terms = head.losses(features(), images(), [drawn([box], [1], [0])], [left_half()])
        assert float(terms.counts["mask_accuracy"]) == right


def test_without_a_positive_roi_the_loss_is_zero_and_every_weight_has_a_gradient() -> None:
    head = make_head()
    terms = head.losses(features(), images(), [drawn([], [], [])], [Targets.empty()])
    terms.terms["mask"].backward()
    assert float(terms.terms["mask"].detach()) == 0.0
    assert all(weight.grad is not None and not weight.grad.any() for weight in head.parameters())


def test_an_object_without_a_mask_stops_the_loss() -> None:
    bare = Targets(torch.tensor([[8.0, 8.0, 24.0, 24.0]]), torch.tensor([1]))
    with pytest.raises(DataError, match="can't learn from objects without them"):
        make_head().losses(features(), images(), [drawn([[8.0, 8.0, 24.0, 24.0]], [1], [0])], [bare])


def test_what_was_found_gets_a_mask_each_in_its_own_image() -> None:
    head = silent(make_head(), 0.0, math.log(3.0))
    boxes = torch.tensor([[8.0, 8.0, 24.0, 24.0], [30.0, 30.0, 50.0, 60.0]])
    found = [
        Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([1, 0])),
        Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64)),
        Detections(boxes[:1], torch.tensor([0.7]), torch.tensor([0])),
    ]
    first, none, last = head.complete(features(3), images(3), found)
    torch.testing.assert_close(first.mask_probabilities, torch.tensor([0.75, 0.5])[:, None, None].expand(2, 4, 4))
    assert none.mask_probabilities.shape == (0, 4, 4)
    assert last.mask_probabilities.shape == (1, 4, 4)
    assert torch.equal(first.boxes, boxes)


def test_more_detections_than_go_through_the_layers_together_stay_in_order() -> None:
    head, count = make_head(), 150
    boxes = torch.rand(count, 2) * 20
    found = Detections(torch.cat([boxes, boxes + 24], dim=1), torch.ones(count), torch.arange(count) % 2)
    maps = features()
    (together,) = head.complete(maps, images(), [found])
    (alone,) = head.complete(maps, images(), [found[torch.tensor([149])]])
    torch.testing.assert_close(together.mask_probabilities[149:], alone.mask_probabilities)


def test_norms_stand_behind_the_convolutions_which_then_have_no_bias() -> None:
    plain, learned, frozen = (make_head(norm=norm).tower[0] for norm in ("none", "batch", "frozen"))
    assert [type(layer) for layer in plain] == [nn.Conv2d, nn.ReLU]
    assert [type(learned[0]), type(learned[2])] == [nn.Conv2d, nn.ReLU]
    assert isinstance(learned[1], nn.BatchNorm2d)
    assert [type(layer) for layer in frozen] == [nn.Conv2d, FrozenNorm, nn.ReLU]
    assert [each[0].bias is None for each in (plain, learned, frozen)] == [False, True, True]


def test_activations_go_into_the_convolutions_before_them() -> None:
    head, pooled = make_head(convolutions=2), torch.rand(2, 3, 2, 2)
    before = head.judge(pooled, torch.tensor([0, 1]))
    head.rewrite(lambda convolution, activation: nn.Sequential(convolution, activation))
    assert [type(block[1]) for block in head.tower] == [nn.Identity, nn.Identity]
    assert torch.equal(head.judge(pooled, torch.tensor([0, 1])), before)
