"""Images without objects, or with none that counts, train every detector: finite losses, finite gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fpn.detectors import FasterRCNN
from fpn.detectors.dialect import Dialect
from fpn.structures import ImageBatch, LossTerms, Proposals, Targets

from .test_dialects import DETECTORS, tiny

every_dialect = pytest.mark.parametrize("dialect", DETECTORS, ids=lambda d: d.name)
FEW = {"rpn_before_nms": (50, 50), "rpn_after_nms": (20, 20), "box_score_limit": 0.0}


def one(box: list[float], *, ignore: bool = False) -> Targets:
    return Targets(torch.tensor([box]), torch.tensor([1]), torch.tensor([ignore]))


OBJECT = [4.0, 6.0, 40.0, 44.0]
BATCHES = {
    "nothing in any image": [Targets.empty(), Targets.empty()],
    "nothing in one image": [one(OBJECT), Targets.empty()],
    "everything ignored": [one(OBJECT, ignore=True), one(OBJECT, ignore=True)],
    "an ignored region as large as the image": [one([0.0, 0, 64, 64], ignore=True)] * 2,
    "an object without width": [one([20.0, 6, 20, 44]), one([20.0, 20, 20, 20])],
    "an object of a thousandth of a pixel": [one([20.0, 20, 20.001, 20.001]), Targets.empty()],
}  # fmt: skip


def images() -> ImageBatch:
    random = torch.Generator().manual_seed(3)
    return ImageBatch(torch.rand(2, 3, 64, 64, generator=random), torch.tensor([[64, 64], [60, 50]]))


def detector_of(dialect: Dialect) -> FasterRCNN:
    torch.manual_seed(0)
    return tiny(dialect, **FEW)


def assert_finite(detector: FasterRCNN, losses: LossTerms) -> None:
    for name, term in losses.terms.items():
        assert term.isfinite(), name
    losses.total.backward()
    for name, weight in detector.named_parameters():
        assert weight.grad is None or weight.grad.isfinite().all(), name


@every_dialect
@pytest.mark.parametrize("batch", BATCHES)
def test_losses_and_gradients_are_finite(dialect: Dialect, batch: str) -> None:
    detector = detector_of(dialect)
    assert_finite(detector, detector.losses(images(), BATCHES[batch]))


@every_dialect
def test_without_objects_all_weights_that_learn_still_get_a_gradient(dialect: Dialect) -> None:
    # Processes that train together wait for the gradient of each weight: one that had none would hang the others.
    detector = detector_of(dialect)
    detector.losses(images(), BATCHES["nothing in any image"]).total.backward()
    assert [name for name, weight in detector.named_parameters() if weight.requires_grad and weight.grad is None] == []


@every_dialect
def test_background_is_still_learned_where_there_is_nothing_else(dialect: Dialect) -> None:
    detector = detector_of(dialect)
    losses = detector.losses(images(), BATCHES["nothing in any image"])
    assert losses.terms["objectness"] > 0
    assert losses.terms["classification"] > 0
    assert losses.terms["rpn_box"] == 0
    assert losses.terms["box"] == 0


def _with(change: Callable[[FasterRCNN], None], dialect: Dialect) -> FasterRCNN:
    detector = detector_of(dialect)
    with torch.no_grad():
        change(detector)
    return detector


def _huge_deltas(detector: FasterRCNN) -> None:
    for part in (detector.rpn, detector.box):
        part.deltas.bias.fill_(1e6)


def _tiny_deltas(detector: FasterRCNN) -> None:
    for part in (detector.rpn, detector.box):
        part.deltas.bias.fill_(-1e6)


@every_dialect
@pytest.mark.parametrize("change", [_huge_deltas, _tiny_deltas])
def test_huge_deltas_give_finite_boxes_inside_the_image_and_finite_losses(
    dialect: Dialect, change: Callable[[FasterRCNN], None]
) -> None:
    detector = _with(change, dialect)
    assert_finite(detector, detector.losses(images(), BATCHES["nothing in one image"]))
    for found in detector.eval().detect(images()):
        assert found.boxes.isfinite().all()
        assert ((found.boxes >= 0) & (found.boxes <= 64)).all()


@every_dialect
def test_no_proposal_at_all_is_no_detection_and_a_finite_loss(dialect: Dialect) -> None:
    detector, batch = detector_of(dialect), images()
    none = [Proposals(torch.zeros(0, 4), torch.zeros(0))] * 2
    features = detector.features(batch.pixels)
    assert [len(found) for found in detector.box.detect(features, batch, none)] == [0, 0]
    assert_finite(detector, detector.box.losses(features, batch, none, [Targets.empty(), Targets.empty()]))
