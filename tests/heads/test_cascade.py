from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fpn.detectors.builder import build_cascade
from fpn.detectors.cascade_toolkits import CASCADE_DIALECTS
from fpn.errors import ConfigError
from fpn.heads.cascade import CascadeConfig, CascadeHead
from fpn.structures import ImageBatch, Level, Proposals, Targets

LEVELS = (Level("p2", 4, 4, 2), Level("p3", 4, 8, 3))
FEATURES = {"p2": torch.ones(1, 4, 16, 16), "p3": torch.ones(1, 4, 8, 8)}
IMAGES = ImageBatch(torch.zeros(1, 3, 64, 64), torch.tensor([[64, 64]]))
ROI = Proposals(torch.tensor([[10.0, 10.0, 30.0, 30.0]]), torch.ones(1))


def head_of(name: str = "paper", **cascade: object) -> CascadeHead:
    dialect = CASCADE_DIALECTS[name].changed(box_width=8, roi_output_size=2, cascade=cascade)
    return build_cascade(LEVELS, 1, dialect)


def say(head: CascadeHead, logits: list[list[float]], shifts: list[float]) -> CascadeHead:
    """Each stage says the same of every RoI: these logits, and a move by so many of its deltas' units to the right."""
    for stage, told, shift in zip(head.heads, logits, shifts, strict=True):
        for layer in (stage.scores, stage.deltas):
            layer.weight.data.zero_()
        stage.scores.bias.data = torch.tensor(told)
        stage.deltas.bias.data = torch.tensor([shift, 0.0, 0.0, 0.0])
    return head


EVEN, SURE = [0.0, 0.0], [math.log(9.0), 0.0]  # 0.5 and 0.9


def test_each_stage_moves_the_box_of_the_one_before_and_scores_are_averaged() -> None:
    # 20 pixels wide: a tenth, a twentieth and a thirtieth of it, by weights of 10, 20 and 30.
    (found,) = say(head_of(), [EVEN, EVEN, SURE], [1.0, 1.0, 3.0]).detect(FEATURES, IMAGES, [ROI])
    torch.testing.assert_close(found.boxes, torch.tensor([[15.0, 10.0, 35.0, 30.0]]))
    torch.testing.assert_close(found.scores, torch.tensor([(0.5 + 0.5 + 0.9) / 3]))


def test_mmdetection_averages_logits() -> None:
    (found,) = say(head_of("mmdetection"), [EVEN, EVEN, SURE], [0.0] * 3).detect(FEATURES, IMAGES, [ROI])
    odds = math.exp(math.log(9.0) / 3)
    torch.testing.assert_close(found.scores, torch.tensor([odds / (1 + odds)]))


OBJECT = Targets(torch.tensor([[14.0, 10.0, 34.0, 30.0]]), torch.tensor([0]))


def counts(head: CascadeHead, name: str) -> list[float]:
    terms = head.losses(FEATURES, IMAGES, [ROI], [OBJECT])
    return [float(terms.counts[f"{name}_stage{number}"]) for number in (1, 2, 3)]


def test_a_stage_asks_for_more_overlap_than_the_one_before() -> None:
    # The RoI lies 4 of 20 pixels off: IoU 16 / 24 = 0.67 is enough for 0.5 and 0.6, not for 0.7. The truth, which
    # joins each stage, always is.
    assert counts(say(head_of(), [EVEN] * 3, [0.0] * 3), "positive_rois") == [2.0, 2.0, 1.0]


def test_a_stage_learns_from_boxes_that_the_one_before_has_moved() -> None:
    # The second stage moves it by the missing 4 pixels: 4 / 20 * 20.
    assert counts(say(head_of(), [EVEN] * 3, [0.0, 4.0, 0.0]), "positive_rois") == [2.0, 2.0, 2.0]


def test_detectron2_adds_the_truth_once_and_moves_it_along() -> None:
    # 4 pixels further, the truth is where the RoI was, off by as much on the other side.
    assert counts(say(head_of("detectron2"), [EVEN] * 3, [0.0, 4.0, 0.0]), "positive_rois") == [2.0, 2.0, 1.0]


def test_losses_are_weighted_stage_by_stage() -> None:
    terms = say(head_of(), [EVEN] * 3, [0.0] * 3).losses(FEATURES, IMAGES, [ROI], [OBJECT]).terms
    found = [float(terms[f"classification_stage{number}"].detach()) for number in (1, 2, 3)]
    assert found == pytest.approx([math.log(2.0), 0.5 * math.log(2.0), 0.25 * math.log(2.0)])


def test_detectron2_divides_what_goes_into_the_maps_and_nothing_else() -> None:
    def gradients(shared: str) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        head = head_of(shared_gradient=shared)
        maps = {name: value.clone().requires_grad_() for name, value in FEATURES.items()}
        head.losses(maps, IMAGES, [ROI], [OBJECT]).total.backward()
        return maps["p2"].grad, head.heads[0].trunk[1].weight.grad

    whole, divided = gradients("whole"), gradients("divided")
    torch.testing.assert_close(divided[0] * 3, whole[0])
    assert torch.equal(divided[1], whole[1])


def test_every_setting_has_one_entry_a_stage() -> None:
    with pytest.raises(ConfigError, match="2 ious, 3 weights, 3 loss_weights"):
        CascadeConfig(ious=(0.5, 0.6))
