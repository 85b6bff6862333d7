from __future__ import annotations

import math

import pytest
import torch

from fpn.detectors.builder import build_cascade_masks
from fpn.detectors.roi_toolkits import CASCADE_MASK_DIALECTS
from fpn.heads.cascade_masks import MaskStages
from fpn.heads.mask import MaskHead
from fpn.shapes import Size
from fpn.structures import Detections, ImageBatch, Level, Masks, Targets
from heads.test_mask import drawn

LEVELS = (Level("p2", 4, 4, 2), Level("p3", 4, 8, 3))
FEATURES = {"p2": torch.ones(1, 4, 16, 16), "p3": torch.ones(1, 4, 8, 8)}
IMAGES = ImageBatch(torch.zeros(1, 3, 64, 64), torch.tensor([[64, 64]]))
BOX = [8.0, 8.0, 24.0, 24.0]


def masks_of(name: str) -> MaskHead | MaskStages:
    dialect = CASCADE_MASK_DIALECTS[name].changed(mask={"channels": 4, "convolutions": 1, "roi_size": 2})
    return build_cascade_masks(LEVELS, 2, dialect)


def say(odds: list[float]) -> MaskStages:
    """A head a stage, each of which says of every cell and class that it is the object's, by these odds."""
    made = masks_of("mmdetection")
    assert isinstance(made, MaskStages)
    for head, each in zip(made.heads, odds, strict=True):
        head.logits.weight.data.zero_()
        head.logits.bias.data.fill_(math.log(each))
    return made


def test_detectron2_has_one_mask_head_and_mmdetection_one_a_stage() -> None:
    assert isinstance(masks_of("detectron2"), MaskHead)
    assert len(say([1.0, 1.0, 1.0]).class_rows()) == 3


def test_what_stages_say_of_a_detection_is_averaged_as_probabilities() -> None:
    found = Detections(torch.tensor([BOX]), torch.tensor([0.9]), torch.tensor([1]))
    (completed,) = say([1.0, 3.0, 9.0]).complete(FEATURES, IMAGES, [found])
    torch.testing.assert_close(completed.mask_probabilities, torch.full((1, 4, 4), (0.5 + 0.75 + 0.9) / 3))
    assert torch.equal(completed.boxes, found.boxes)


def test_a_stage_learns_from_its_own_samples_with_its_own_weight() -> None:
    # Where nothing is known each cell costs ln 2. The third stage has no positive RoI.
    truth = Targets(torch.tensor([BOX]), torch.tensor([1]), masks=Masks.of_boxes(torch.tensor([BOX]), Size(64, 64)))
    sampled = [[drawn([BOX, BOX], [1, 1], [0, 0])], [drawn([BOX], [1], [0])], [drawn([], [], [])]]
    terms = say([1.0, 1.0, 1.0]).losses(FEATURES, IMAGES, sampled, [truth])
    found = {name: float(value.detach()) for name, value in terms.terms.items()}
    wanted = {"mask_stage1": math.log(2), "mask_stage2": 0.5 * math.log(2), "mask_stage3": 0.0}
    assert found == pytest.approx(wanted)
    assert terms.samples == {"mask_stage1": 2.0, "mask_stage2": 1.0, "mask_stage3": 0.0}


def test_an_image_without_detections_has_no_masks() -> None:
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    (completed,) = say([1.0, 1.0, 1.0]).complete(FEATURES, IMAGES, [nothing])
    assert completed.mask_probabilities.shape == (0, 4, 4)
