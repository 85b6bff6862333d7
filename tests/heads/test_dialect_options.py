"""What the toolkits' odder conventions do, in numbers."""

import torch

from fpn.heads.anchors import AnchorGenerator, AnchorsConfig
from fpn.heads.box import BoxConfig, BoxHead, ConvolutionTrunk, TwoLayerTrunk
from fpn.heads.box_coder import BoxCoder, CoderConfig
from fpn.heads.roi_pooler import RoIConfig, RoIPooler
from fpn.heads.sampling import Sampler, SamplingConfig
from fpn.shapes import Size
from fpn.structures import ImageBatch, Level, Proposals, Targets


def test_a_two_sided_clamp_stops_boxes_from_vanishing():
    reference = torch.tensor([[0.0, 0.0, 100.0, 100.0]])
    deltas = torch.tensor([[0.0, 0.0, -9.0, -9.0]])
    one_sided = BoxCoder(config=CoderConfig(clamp=1.0)).decode(deltas, reference)
    both = BoxCoder(config=CoderConfig(clamp=1.0, clamp_both=True)).decode(deltas, reference)
    assert float(one_sided[0, 2] - one_sided[0, 0]) < 0.02
    torch.testing.assert_close(both[0, 2] - both[0, 0], torch.tensor(100 / torch.e), rtol=1e-4, atol=0)


def test_a_two_sided_clamp_is_in_units_before_the_weights():
    deltas = torch.tensor([[0.0, 0.0, -9.0, -9.0]])
    coder = BoxCoder(config=CoderConfig(clamp=1.0, clamp_both=True), weights=(10.0, 10.0, 5.0, 5.0))
    found = coder.decode(deltas, torch.tensor([[0.0, 0.0, 100.0, 100.0]]))
    torch.testing.assert_close(found[0, 2] - found[0, 0], torch.tensor(100 / torch.e), rtol=1e-4, atol=0)


def test_inclusive_corners_end_anchors_and_the_image_one_pixel_earlier():
    levels, sizes = [Level("p2", 8, 4, 2)], [Size(1, 1)]
    config = AnchorsConfig(sizes=((32.0,),), ratios=(1.0,))
    plain, inclusive = (
        AnchorGenerator(config=config, inclusive_corners=flag).grids(levels, sizes, Size(4, 4), torch.device("cpu"))[0]
        for flag in (False, True)
    )
    assert plain.tolist() == [[-16, -16, 16, 16]]
    assert inclusive.tolist() == [[-16, -16, 15, 15]]
    coder = BoxCoder(config=CoderConfig(inclusive_corners=True))
    clipped = coder.clip(torch.tensor([[-5.0, 0.0, 99.0, 99.0]]), *torch.tensor([40, 60]))
    assert clipped.tolist() == [[0, 0, 59, 39]]


SAMPLING = SamplingConfig(positive_iou=0.7, negative_iou=0.3, keep_best=True, count=10, positive_fraction=1.0)


def test_the_best_anchor_of_an_object_needs_an_overlap_of_best_iou():
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]])
    truth = Targets(torch.tensor([[0.0, 0.0, 10.0, 2.0]]), torch.tensor([0]))  # IoU 0.2 with the first anchor
    assert Sampler(config=SAMPLING).draw(anchors, truth).positive.tolist() == [0]
    strict = Sampler(config=SAMPLING.changed(best_iou=0.3)).draw(anchors, truth)
    assert (strict.positive.tolist(), sorted(strict.negative.tolist())) == ([], [0, 1])
    for legacy, best in ((False, []), (True, [0])):  # 33 of 121 pixels where both ends count: 0.27
        sampler = Sampler(config=SAMPLING.changed(best_iou=0.25), legacy_plus_one=legacy)
        assert sampler.draw(anchors, truth).positive.tolist() == best


def test_an_anchor_across_the_rim_is_nobodys_best():
    anchors = torch.tensor([[-2.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 20.0]])
    truth = Targets(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([0]))  # IoU 0.83 and 0.5
    drawn = Sampler(config=SAMPLING).draw(anchors, truth, usable=torch.tensor([False, True]))
    assert drawn.positive.tolist() == [1]


def head(legacy: bool = False, **changes) -> BoxHead:
    return BoxHead(
        pooler=RoIPooler(levels=(Level("p2", 2, 4, 2),), config=RoIConfig(output_size=1)),
        trunk=TwoLayerTrunk(channels=2, pooled_size=1, width=4),
        num_classes=1,
        coder=CoderConfig(legacy_plus_one=legacy),
        config=BoxConfig(weights=(1.0,) * 4, **changes),
    )


def detect(part: BoxHead, boxes: list[list[float]], images: ImageBatch) -> torch.Tensor:
    """Detections of RoIs that the network leaves where they are, the first being the surest."""
    logits = torch.tensor([[4.0 - i, 0.0] for i in range(len(boxes))])
    part.forward = lambda *_: (logits, torch.zeros(len(boxes), 4))  # type: ignore[method-assign]
    [found] = part.detect({}, images, [Proposals(torch.tensor(boxes), torch.zeros(len(boxes)))])
    return found.boxes


def test_detections_are_cut_off_at_the_window_of_the_image():
    images = ImageBatch(
        torch.zeros(1, 3, 64, 64), torch.tensor([[64, 64]]), windows=torch.tensor([[8.0, 16.0, 55.0, 47.0]])
    )
    found = detect(head(), [[0.0, 0.0, 60.0, 60.0]], images)
    assert found.tolist() == [[8, 16, 55, 47]]


def test_nms_in_original_pixels_counts_their_one_pixel_more():
    # In network pixels (+1): 21 x 21 and a shift of 10 -> IoU (11 * 21) / (2 * 441 - 231) = 0.355; in original pixels,
    # half as large: 11 x 11 and a shift of 5 -> (6 * 11) / (2 * 121 - 66) = 0.375. Decoding adds one pixel to x2, y2.
    boxes = [[0.0, 0.0, 19.0, 19.0], [10.0, 0.0, 29.0, 19.0]]
    images = ImageBatch(torch.zeros(1, 3, 64, 64), torch.tensor([[64, 64]]), scales=torch.tensor([[2.0, 2.0]]))
    counts = [
        len(detect(head(legacy=True, nms=0.365, nms_frame=frame), boxes, images)) for frame in ("network", "original")
    ]
    assert counts == [2, 1]


def test_the_trunk_has_norms_only_where_an_epsilon_is_given():
    plain = ConvolutionTrunk(channels=2, pooled_size=3, width=4)
    normed = ConvolutionTrunk(channels=2, pooled_size=3, width=4, norm_epsilon=1e-3)
    assert not any("running_var" in name for name in plain.state_dict())
    assert [name for name in normed.state_dict() if "running_var" in name] == ["1.running_var", "4.running_var"]
    assert normed[1].eps == 1e-3
    assert normed(torch.rand(5, 2, 3, 3)).shape == (5, 4)


def test_relative_sizes_lose_a_pixel_of_the_padded_side():
    levels = tuple(Level(f"p{k}", 2, 2**k, k) for k in (2, 3, 4, 5))
    pooler, relative = (
        RoIPooler(levels=levels, config=RoIConfig(size_relative=flag, canonical_size=64.0)) for flag in (False, True)
    )
    # floor(4 + log2(63.5 / 64)) = 3, but 63 of 63 normalised against 64 of 64 is 4.
    box = torch.tensor([[0.0, 0.0, 63.5, 63.5]])
    assert pooler.assign(box, Size(64, 64)).tolist() == [1]
    assert relative.assign(box, Size(64, 64)).tolist() == [2]
