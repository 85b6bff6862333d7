from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fpn.heads.box import BoxConfig, BoxHead, ConvolutionsTrunk, ConvolutionTrunk, TwoLayerTrunk
from fpn.heads.box_coder import CoderConfig
from fpn.heads.roi_pooler import RoIConfig, RoIPooler
from fpn.heads.sampling import SamplingConfig
from fpn.structures import ImageBatch, Level, Proposals, Targets

LEVELS = (Level("p2", 4, 4, 2), Level("p3", 4, 8, 3))
SAMPLING = SamplingConfig(positive_iou=0.5, negative_iou=0.5, keep_best=False, count=8, positive_fraction=0.25)


def _head(num_classes: int = 2, **changes) -> BoxHead:
    return BoxHead(
        pooler=RoIPooler(levels=LEVELS, config=RoIConfig(output_size=2)),
        trunk=TwoLayerTrunk(channels=4, pooled_size=2, width=8),
        num_classes=num_classes,
        coder=CoderConfig(),
        config=BoxConfig(sampling=SAMPLING, **changes),
    )


def _silent(head: BoxHead, logits: list[float], deltas: list[float] | None = None) -> BoxHead:
    """Make the head say the same of every RoI."""
    with torch.no_grad():
        head.scores.weight.zero_()
        head.scores.bias.copy_(torch.tensor(logits))
        head.deltas.weight.zero_()
        head.deltas.bias.copy_(torch.zeros(head.deltas.out_features) if deltas is None else torch.tensor(deltas))
    return head


def _images(count: int = 1) -> ImageBatch:
    return ImageBatch(torch.zeros(count, 3, 64, 64), torch.tensor([[64, 64]] * count))


def _features(count: int = 1) -> dict[str, torch.Tensor]:
    return {"p2": torch.ones(count, 4, 16, 16), "p3": torch.ones(count, 4, 8, 8)}


def _proposals(*boxes: list[float]) -> Proposals:
    return Proposals(torch.tensor(boxes).reshape(-1, 4), torch.ones(len(boxes)))


def test_every_class_above_the_limit_is_a_detection() -> None:
    head = _silent(_head(), [math.log(0.6), math.log(0.3), math.log(0.1)])
    (found,) = head.detect(_features(), _images(), [_proposals([8.0, 8.0, 24.0, 24.0])])
    assert found.labels.tolist() == [0, 1]  # background, the last logit, is none
    torch.testing.assert_close(found.scores, torch.tensor([0.6, 0.3]))
    assert found.boxes.tolist() == [[8.0, 8.0, 24.0, 24.0]] * 2


def test_only_the_best_class_counts_where_a_toolkit_says_so() -> None:
    roi = [_proposals([8.0, 8.0, 24.0, 24.0])]
    head = _silent(_head(choice="best"), [math.log(0.6), math.log(0.3), math.log(0.1)])
    assert head.detect(_features(), _images(), roi)[0].labels.tolist() == [0]
    background = _silent(_head(choice="best"), [math.log(0.3), math.log(0.3), math.log(0.4)])
    assert len(background.detect(_features(), _images(), roi)[0]) == 0


def test_deltas_of_the_class_move_its_box() -> None:
    # Class 1 moves right by a tenth of the width (weight 10): 1.6 pixels.
    head = _silent(_head(), [0.0, 0.0, 0.0], [0, 0, 0, 0, 1, 0, 0, 0])
    (found,) = head.detect(_features(), _images(), [_proposals([8.0, 8.0, 24.0, 24.0])])
    by_label = dict(zip(found.labels.tolist(), found.boxes.tolist(), strict=True))
    assert by_label[0] == [8.0, 8.0, 24.0, 24.0]
    assert by_label[1] == pytest.approx([9.6, 8.0, 25.6, 24.0])


def test_class_agnostic_boxes_are_the_same_for_all_classes() -> None:
    head = _silent(_head(class_agnostic=True), [0.0, 0.0, 0.0], [1.0, 0, 0, 0])
    (found,) = head.detect(_features(), _images(), [_proposals([8.0, 8.0, 24.0, 24.0])])
    assert head.deltas.out_features == 4
    assert found.boxes.tolist() == [pytest.approx([9.6, 8.0, 25.6, 24.0])] * 2


def test_limit_keeps_the_best() -> None:
    head = _silent(_head(limit=1), [2.0, 1.0, 0.0])
    rois = _proposals([0.0, 0.0, 10.0, 10.0], [30.0, 30.0, 50.0, 50.0])
    (found,) = head.detect(_features(), _images(), [rois])
    assert found.labels.tolist() == [0]


def test_no_proposals_give_no_detections() -> None:
    found = _head().detect(_features(2), _images(2), [_proposals(), _proposals([0.0, 0.0, 10.0, 10.0])])
    assert len(found[0]) == 0
    assert len(found[1]) == 2


def test_loss_of_a_silent_head_is_log_of_the_number_of_logits() -> None:
    head = _silent(_head(), [0.0, 0.0, 0.0])
    truth = Targets(torch.tensor([[8.0, 8.0, 24.0, 24.0]]), torch.tensor([1]))
    proposals = _proposals([8.0, 8.0, 24.0, 24.0], [40.0, 40.0, 60.0, 60.0])
    terms = head.losses(_features(), _images(), [proposals], [truth])
    torch.testing.assert_close(terms.terms["classification"].detach(), torch.tensor(3.0).log())
    assert float(terms.terms["box"].detach()) == 0.0
    # The proposal that fits and the ground truth itself, which joins the proposals.
    assert float(terms.counts["positive_rois"]) == 2.0


def test_box_loss_is_the_plain_l1_of_weighted_deltas_over_all_samples() -> None:
    head = _silent(_head(), [0.0, 0.0, 0.0])
    truth = Targets(torch.tensor([[8.0, 8.0, 24.0, 24.0]]), torch.tensor([1]))
    # Shifted right by 1.6 pixels of 16: the way back is -0.1 widths, times 10. Three samples: two positive, one not.
    proposals = _proposals([9.6, 8.0, 25.6, 24.0], [40.0, 40.0, 60.0, 60.0])
    terms = head.losses(_features(), _images(), [proposals], [truth])
    assert float(terms.terms["box"].detach()) == pytest.approx(1.0 / 3)


def test_ignored_objects_are_neither_object_nor_background() -> None:
    truth = Targets(torch.tensor([[8.0, 8.0, 24.0, 24.0]]), torch.tensor([1]), torch.tensor([True]))
    proposals = _proposals([8.0, 8.0, 24.0, 24.0], [40.0, 40.0, 60.0, 60.0])
    head = _silent(_head(), [0.0, 0.0, 5.0])
    terms = head.losses(_features(), _images(), [proposals], [truth])
    assert float(terms.counts["positive_rois"]) == 0.0
    # Only the far proposal is learned from, as background, which the head already says.
    wanted = -torch.log_softmax(torch.tensor([0.0, 0.0, 5.0]), 0)[2]
    torch.testing.assert_close(terms.terms["classification"].detach(), wanted)


def test_convolution_trunk_is_a_full_size_convolution_and_a_pointwise_one() -> None:
    trunk = ConvolutionTrunk(channels=4, pooled_size=3, width=8)
    assert trunk(torch.zeros(5, 4, 3, 3)).shape == (5, 8)
    assert [m.kernel_size for m in trunk if isinstance(m, nn.Conv2d)] == [(3, 3), (1, 1)]


def test_pooler_reads_each_roi_from_the_level_of_its_size() -> None:
    pooler = RoIPooler(levels=LEVELS, config=RoIConfig(output_size=1, canonical_size=32.0, canonical_level=3))
    features = {"p2": torch.full((1, 1, 16, 16), 2.0), "p3": torch.full((1, 1, 8, 8), 3.0)}
    rois = torch.tensor([[0.0, 0.0, 40.0, 40.0], [8.0, 8.0, 24.0, 24.0], [8.0, 8.0, 60.0, 60.0]])
    assert pooler.assign(rois).tolist() == [1, 0, 1]
    assert pooler(features, _images(), [rois]).flatten().tolist() == [3.0, 2.0, 3.0]


def test_scale_can_be_measured_from_the_map_or_from_the_first_image() -> None:
    level = Level("p2", 1, 4, 2)
    images = ImageBatch(torch.zeros(1, 3, 64, 64), torch.tensor([[50, 60]]))
    feature = torch.zeros(1, 1, 17, 16)
    poolers = {rule: RoIPooler(levels=(level,), config=RoIConfig(scale=rule)) for rule in SCALES}
    scales = {rule: pooler._scale(level, feature, images) for rule, pooler in poolers.items()}
    assert scales["declared"] == (0.25, 0.25)
    assert scales["measured"] == (0.25, 0.25)
    assert scales["first_height"] == (17 / 50, 17 / 50)


SCALES = ("declared", "measured", "first_height")


def test_soft_suppression_lowers_scores_of_the_same_class() -> None:
    head = _silent(_head(suppression="gaussian", nms_sigma=0.5), [math.log(0.9), math.log(0.04), math.log(0.06)])
    # Two RoIs with an IoU of 1/3.
    rois = [_proposals([10.0, 10.0, 20.0, 20.0], [15.0, 10.0, 25.0, 20.0])]
    (found,) = head.detect(_features(), _images(), rois)
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.9 * math.exp(-2 / 9)]))


def test_convolutions_and_one_layer_can_make_the_trunk() -> None:
    trunk = ConvolutionsTrunk(
        channels=4, pooled_size=2, width=8, num_convolutions=2, convolution_channels=6, norm="batch"
    )
    names = [type(part).__name__ for part in trunk]
    assert names == ["Sequential", "Sequential", "Flatten", "Linear", "ReLU"]
    assert [part.weight.shape for part in trunk.modules() if isinstance(part, nn.Conv2d)] == [
        (6, 4, 3, 3),
        (6, 6, 3, 3),
    ]
    pooled = torch.randn(3, 4, 2, 2)
    wanted = trunk.eval()(pooled)
    trunk.read_channels_last(2)
    torch.testing.assert_close(trunk(pooled), wanted)


def test_boxes_can_be_learnt_by_their_generalised_iou() -> None:
    # The only positive RoI covers the object and as much again, and the head leaves it as it is: 1 - IoU = 1/2.
    head = _silent(_head(loss="giou", loss_weight=10.0), [0.0, 0.0, 0.0])
    truth = Targets(torch.tensor([[8.0, 8.0, 24.0, 16.0]]), torch.tensor([0]))
    roi = _proposals([8.0, 8.0, 24.0, 24.0])
    drawn = head.sample([roi], [truth])
    losses = head.losses(_features(), _images(), [roi], [truth])
    assert sorted(len(each.labels) for each in drawn) == [2]  # and the object itself, whose loss is 0
    assert float(losses.terms["box"].detach()) == pytest.approx(10 * 0.5 / 2)
