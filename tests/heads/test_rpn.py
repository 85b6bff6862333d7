from __future__ import annotations

import math

import pytest
import torch

from fpn.heads.anchors import AnchorsConfig
from fpn.heads.box_coder import CoderConfig
from fpn.heads.rpn import RPN, RawProposals, RPNConfig, read_objectness
from fpn.structures import ImageBatch, Level, Targets


def _head(levels=(3,), sizes=((8.0,),), ratios=(1.0,), **changes) -> RPN:
    declared = [Level(f"p{number}", 4, 2**number, number) for number in levels]
    anchors = AnchorsConfig(sizes=sizes, ratios=ratios)
    return RPN(levels=declared, anchors=anchors, coder=CoderConfig(), config=RPNConfig(**changes))


def _images(height: int, width: int, count: int = 1) -> ImageBatch:
    return ImageBatch(torch.zeros(count, 3, height, width), torch.tensor([[height, width]] * count))


def _raw(*maps: list[list[float]]) -> RawProposals:
    objectness = [torch.tensor(m)[None, None] for m in maps]
    deltas = [torch.zeros(1, 4, *o.shape[-2:]) for o in objectness]
    return RawProposals(objectness, deltas, objectness)


def test_best_anchor_comes_first_and_lies_where_its_cell_is() -> None:
    raw = _raw([[0.0, 1.0], [5.0, -1.0]])
    (found,) = _head().propose(raw, _images(16, 16))
    # Cell (y 1, x 0) with stride 8: centre (0, 8), side 8, clipped at the left rim.
    assert found.boxes[0].tolist() == [0.0, 4.0, 4.0, 12.0]
    torch.testing.assert_close(found.scores[0], torch.tensor(5.0).sigmoid())
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_top_k_counts_within_a_level() -> None:
    head = _head((3, 4), ((8.0,), (16.0,)), before_nms=(1, 1))
    raw = _raw([[9.0, 8.0], [7.0, 6.0]], [[1.0]])
    (found,) = head.propose(raw, _images(16, 16))
    assert len(found) == 2  # one of each level, though three of p3 score higher than p4's
    head = _head((3, 4), ((8.0,), (16.0,)), before_nms=(2, 2), scope="all")
    (found,) = head.propose(raw, _images(16, 16))
    torch.testing.assert_close(found.scores, torch.tensor([9.0, 8.0]).sigmoid())


def test_levels_do_not_suppress_each_other_unless_all_are_taken_together() -> None:
    raw = _raw([[3.0]], [[2.0]])
    same_box = {"levels": (3, 4), "sizes": ((8.0,), (8.0,))}
    (found,) = _head(**same_box).propose(raw, _images(8, 8))
    assert len(found) == 2
    (found,) = _head(**same_box, scope="all").propose(raw, _images(8, 8))
    assert len(found) == 1


def test_training_and_testing_have_limits_of_their_own() -> None:
    head = _head(before_nms=(4, 2), after_nms=(3, 1), nms=1.0)
    raw = _raw([[0.4, 0.3], [0.2, 0.1]])
    assert len(head.propose(raw, _images(16, 16), training=True)[0]) == 3
    assert len(head.propose(raw, _images(16, 16))[0]) == 1


def test_narrow_proposals_are_dropped_and_missing_ones_can_be_filled() -> None:
    raw = _raw([[0.0, 1.0], [5.0, -1.0]])
    head = _head(min_size=5.0)
    # Boxes at x centre 0 are clipped to width 4, those at y centre 0 to height 4: one is left.
    (found,) = head.propose(raw, _images(16, 16))
    assert found.boxes.tolist() == [[4.0, 4.0, 12.0, 12.0]]
    head = _head(after_nms=(6, 6), padded=True)
    (found,) = head.propose(raw, _images(16, 16))
    assert len(found) == 6
    assert found.boxes[-1].tolist() == [0.0, 0.0, 0.0, 0.0]


def test_unsure_proposals_are_dropped_where_a_limit_is_set() -> None:
    raw = _raw([[0.0, 1.0], [5.0, -1.0]])
    # Of the four, sigmoids 0.5, 0.73, 0.99 and 0.27; without a limit all are there.
    assert len(_head(nms=1.0).propose(raw, _images(16, 16))[0]) == 4
    assert len(_head(nms=1.0, min_score=0.4).propose(raw, _images(16, 16))[0]) == 3
    assert len(_head(nms=1.0, min_score=0.5).propose(raw, _images(16, 16))[0]) == 3
    assert len(_head(nms=1.0, min_score=0.6).propose(raw, _images(16, 16))[0]) == 2
    (found,) = _head(nms=1.0, min_score=0.6, min_size=5.0).propose(raw, _images(16, 16))
    assert len(found) < 2


def test_loss_of_silent_heads_is_log_two() -> None:
    head = _head(levels=(2,), sizes=((8.0,),))
    features = {"p2": torch.zeros(1, 4, 4, 4)}
    truth = Targets(torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.tensor([0]))
    terms = head.losses(head(features), _images(16, 16), [truth])
    torch.testing.assert_close(terms.terms["objectness"].detach(), torch.tensor(2.0).log())
    # The anchor at (4, 4) is the object itself: its wanted deltas are zero, as the silent head says.
    assert float(terms.terms["rpn_box"].detach()) == 0.0
    assert float(terms.counts["positive_anchors"]) == 1.0


def test_images_without_objects_teach_background_only() -> None:
    head = _head(levels=(2,), sizes=((8.0,),))
    terms = head.losses(head({"p2": torch.zeros(1, 4, 4, 4)}), _images(16, 16), [Targets.empty()])
    assert float(terms.counts["positive_anchors"]) == 0.0
    assert torch.isfinite(terms.total)


def test_anchors_over_the_rim_can_be_left_out_of_the_loss() -> None:
    truth = Targets(torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([0]))
    features = {"p2": torch.zeros(1, 4, 4, 4)}
    counted = {}
    for inside_only in (False, True):
        head = _head(levels=(2,), sizes=((8.0,),), inside_only=inside_only)
        counted[inside_only] = float(head.losses(head(features), _images(16, 16), [truth]).counts["positive_anchors"])
    # Four anchors share the best IoU of 16 / 64; the one centred on (4, 4) alone lies inside.
    assert counted == {False: 4.0, True: 1.0}


def test_cells_beyond_the_images_own_padding_can_be_left_out_of_the_loss() -> None:
    # 16 pixels wide in a batch of 32: two of four columns, and with padding to 24 three.
    images = ImageBatch(torch.zeros(1, 3, 8, 32), torch.tensor([[8, 16]]))
    raw = _raw([[0.0, 0.0, 0.0, 0.0]])
    for multiple, anchors in ((None, 4.0), (8, 2.0), (24, 3.0)):
        head = _head(valid_multiple=multiple)
        assert head.losses(raw, images, [Targets.empty()]).samples["objectness"] == anchors


def test_losses_are_divided_by_what_was_drawn_or_by_what_may_be() -> None:
    raw, images = _raw([[0.0, 0.0], [0.0, 0.0]]), _images(16, 16)
    drawn = _head().losses(raw, images, [Targets.empty()])
    nominal = _head(normalizer="nominal", sampling=RPNConfig().sampling.changed(count=8)).losses(
        raw, images, [Targets.empty()]
    )
    assert float(drawn.terms["objectness"]) == pytest.approx(math.log(2))
    assert float(nominal.terms["objectness"]) == pytest.approx(math.log(2) * 4 / 8)
    assert nominal.samples == {}  # a mean over images, as processes that train together have it


def test_boxes_can_be_learnt_by_their_generalised_iou() -> None:
    # Both anchors' boxes stand where they are; the object covers a half of the first one: 1 - IoU = 1/2 of 4 anchors.
    truth = Targets(torch.tensor([[-4.0, -4.0, 0.0, 4.0]]), torch.tensor([0]))
    losses = _head(loss="giou", loss_weight=10.0).losses(_raw([[0.0, 0.0], [0.0, 0.0]]), _images(16, 16), [truth])
    assert float(losses.terms["rpn_box"]) == pytest.approx(10 * 0.5 / 4)


def test_more_convolutions_are_one_after_the_other() -> None:
    head = _head(num_convolutions=3)
    for convolution in (head.shared, *head.further):
        convolution.weight.data.zero_()
        convolution.bias.data.zero_()
        for channel in range(4):
            convolution.weight.data[channel, channel, 1, 1] = 2.0
    head.objectness.weight.data.fill_(1.0)
    raw = head({"p3": torch.ones(1, 4, 2, 2)})
    assert raw.objectness[0].unique().tolist() == [4 * 2.0**3]


def test_softmax_pairs_read_as_the_second_minus_the_first() -> None:
    channels = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]).view(1, 6, 1, 1)
    assert read_objectness(channels, "softmax").flatten().tolist() == [1.0, 4.0, 16.0]
    # fpn.pytorch: channel 1 against 4, 3 against 0, 5 against 2.
    assert read_objectness(channels, "softmax_mispaired").flatten().tolist() == [2.0 - 16.0, 8.0 - 1.0, 32.0 - 4.0]


def test_mispaired_softmax_learns_from_proper_pairs() -> None:
    head = _head(objectness="softmax_mispaired", ratios=(0.5, 1.0, 2.0))
    raw = head({"p3": torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))})
    assert not torch.equal(raw.objectness[0], raw.training_objectness[0])
