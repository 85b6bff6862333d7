"""Plain functions on boxes, anchors, levels and matches, against what the originals' own functions gave."""

import json
import re

import numpy as np
import pytest
import torch
from torch import Tensor

from fpn.heads.anchors import AnchorGenerator, AnchorsConfig
from fpn.ops import boxes as box_ops
from fpn.ops.anchors import cell_anchors, level_anchors
from fpn.ops.box_coding import decode, encode
from fpn.ops.matching import match
from fpn.ops.nms import nms
from fpn.ops.roi_align.levels import choose_levels
from fpn.shapes import Size
from fpn.structures import Level
from parity.golden.cases import case
from parity.golden.compare import BOX_TOLERANCE, OP_TOLERANCE, assert_near

RATIOS = (0.5, 1.0, 2.0)
STRIDES = (4, 8, 16, 32, 64)
SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
YX = [1, 0, 3, 2]  # (y1, x1, y2, x2) <-> (x1, y1, x2, y2), and the same for deltas


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array)


def xyxy(array: np.ndarray) -> Tensor:
    return tensor(array)[..., YX]


def grid(shapes, strides=STRIDES, sizes=SIZES, *, ratio="height/width", offset=0.0, octaves=1) -> Tensor:
    return torch.cat(
        [
            level_anchors(
                *shape,
                stride=(stride, stride),
                sizes=tuple(size * 2 ** (k / octaves) for k in range(octaves)),
                ratios=RATIOS,
                ratio=ratio,
                offset=offset,
            )
            for shape, stride, size in zip(shapes, strides, sizes, strict=True)
        ]
    )


# --- anchors ---------------------------------------------------------------------------------------------------------


def test_detectron2_anchors():
    figures = case("d2_1_anchors")
    shapes = figures.meta["feature_shapes"]
    assert_near(grid(shapes), figures["rpn_offset00"], BOX_TOLERANCE)
    assert_near(grid(shapes, offset=0.5), figures["rpn_offset05"], BOX_TOLERANCE)
    assert_near(cell_anchors((32.0,), RATIOS), figures["cell_anchors_rpn_level0"], BOX_TOLERANCE)


def test_retinanet_anchors_are_three_sizes_a_ratio():
    figures = case("d2_1_anchors")
    found = grid(figures.meta["feature_shapes"], strides=(8, 16, 32, 64, 128), octaves=3)
    assert_near(figures.stored_part("retinanet_offset00", found.numpy()), figures["retinanet_offset00"], BOX_TOLERANCE)


@pytest.mark.parametrize("which", ["img96x128_pure_strides", "img96x128_real_net"])
def test_fpn_pytorch_anchors_are_tall_at_ratio_one_half(which):
    figures = case("fpnpt_b_anchors")
    found = grid(figures.meta["feature_shapes"][which], ratio="width/height")
    assert_near(found, figures[which], BOX_TOLERANCE)
    width, height = (found[0, 2:] - found[0, :2]).tolist()
    assert height == pytest.approx(2 * width)


def test_fpn_pytorch_anchors_at_every_second_cell():
    figures = case("fpnpt_b_anchors")
    written = figures.meta["arrays"]["anchor_stride2"]["doc"]
    sizes, shapes, strides = (
        json.loads(re.search(rf"{w} (\[[^a-z]*\])", written)[1]) for w in ("scales", "shapes", "strides")
    )
    every = int(re.search(r"anchor_stride (\d+)", written)[1])
    halved = [[-(-side // every) for side in shape] for shape in shapes]
    found = grid(halved, [stride * every for stride in strides], sizes, ratio="width/height")
    assert_near(found, figures["anchor_stride2"], BOX_TOLERANCE)


def test_matterport_anchors_in_pixels_and_normalised():
    figures = case("mrcnn_2_anchors")
    shapes = [Size(*shape) for shape in figures.meta["backbone_shapes"]]
    assert_near(grid(shapes, ratio="width/height")[:, YX], figures["pixel"], BOX_TOLERANCE)
    config = AnchorsConfig(sizes=tuple((float(s),) for s in SIZES), ratio="width/height")
    plan = AnchorGenerator(config=config, inclusive_corners=True)
    levels = [Level(f"p{k}", 256, stride, k) for k, stride in enumerate(STRIDES, 2)]
    height, width = figures.meta["image_shape"][:2]
    found = torch.cat(plan.grids(levels, shapes, Size(height, width), torch.device("cpu")))[:, YX]
    normalised = found / torch.tensor([height - 1, width - 1, height - 1, width - 1])
    assert_near(normalised, figures["normalised"], OP_TOLERANCE)


# --- boxes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "weights"), [("w1111", (1.0,) * 4), ("w10_10_5_5", (10.0, 10.0, 5.0, 5.0))])
def test_detectron2_box_coding(name, weights):
    figures = case("d2_2_box2box")
    found = encode(tensor(figures["gt"]), tensor(figures["src"]), weights=weights)
    assert_near(found, figures[f"get_deltas_{name}"], OP_TOLERANCE, relative=OP_TOLERANCE)
    deltas = tensor(figures["deltas"]).unflatten(1, (-1, 4))
    decoded = decode(deltas, tensor(figures["src"])[:, None].expand_as(deltas), weights=weights)
    assert_near(decoded.flatten(1), figures[f"apply_deltas_{name}"], BOX_TOLERANCE, relative=OP_TOLERANCE)


def test_detectron2_boxes():
    figures = case("d2_2_box2box")
    source, truth = tensor(figures["src"]), tensor(figures["gt"])
    assert_near(box_ops.pairwise_iou(source, truth), figures["pairwise_iou"], OP_TOLERANCE)
    assert_near(box_ops.clip(source, 200, 300), figures["clip_200x300"], BOX_TOLERANCE)


def test_fpn_pytorch_decodes_with_one_added_to_widths_but_not_taken_away():
    figures = case("fpnpt_c_box_transforms")
    boxes, deltas = tensor(figures["boxes"]), tensor(figures["deltas"]).unflatten(2, (-1, 4))
    decoded = decode(deltas, boxes[:, :, None].expand_as(deltas), clamp=None, legacy_plus_one=True)
    assert_near(decoded.flatten(2), figures["bbox_transform_inv"], BOX_TOLERANCE, relative=OP_TOLERANCE)
    sizes = tensor(figures["im_info"])[:, :2, None, None]
    clipped = box_ops.clip(decoded, sizes[:, 0], sizes[:, 1], legacy_plus_one=True)
    assert_near(clipped.flatten(2), figures["clip_boxes"], BOX_TOLERANCE)


def test_fpn_pytorch_encodes_and_overlaps_with_one_added():
    figures = case("fpnpt_c_box_transforms")
    boxes, truth = tensor(figures["boxes"]), tensor(figures["gt"])
    for references, wanted, name in (
        (boxes[0], truth[0], "bbox_transform"),
        (boxes, truth, "bbox_transform_batch_3d"),
        (boxes[:1].expand_as(truth), truth, "bbox_transform_batch_2d"),
    ):
        found = encode(wanted, references, legacy_plus_one=True)
        assert_near(found, figures[name], OP_TOLERANCE, relative=OP_TOLERANCE)
    overlaps = box_ops.pairwise_iou(boxes[0], truth[0], legacy_plus_one=True)
    assert_near(overlaps, figures["bbox_overlaps"], OP_TOLERANCE)
    for objects, expected in zip(tensor(figures["gt5"]), figures["bbox_overlaps_batch_2d"], strict=True):
        real = objects[:, 4] > 0  # rows of zeros are padding, whose overlap is 0
        found = box_ops.pairwise_iou(boxes[0], objects[real, :4], legacy_plus_one=True)
        assert_near(found, expected[:, real.numpy()], OP_TOLERANCE)


def test_matterport_boxes():
    figures = case("mrcnn_6_box_ops")
    boxes, truth, deltas = (xyxy(figures[name]) for name in ("boxes", "gt", "deltas"))
    for name in ("apply_box_deltas_graph", "apply_box_deltas_np"):
        assert_near(decode(deltas, boxes, clamp=None)[:, YX], figures[name], BOX_TOLERANCE, relative=OP_TOLERANCE)
    for name in ("box_refinement", "box_refinement_graph"):
        assert_near(encode(truth, boxes)[:, YX], figures[name], OP_TOLERANCE, relative=OP_TOLERANCE)
    assert_near(box_ops.pairwise_iou(boxes, truth), figures["compute_overlaps"], OP_TOLERANCE)
    top, left, bottom, right = 10, 20, 90, 110
    shifted = box_ops.clip(boxes - torch.tensor([left, top] * 2), bottom - top, right - left)
    assert_near((shifted + torch.tensor([left, top] * 2))[:, YX], figures["clip_boxes_graph"], BOX_TOLERANCE)


# --- nms -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "threshold"), [("keep_3", 0.3), ("keep_5", 0.5), ("keep_7", 0.7)])
def test_fpn_pytorch_nms_counts_one_more_pixel(name, threshold):
    figures = case("fpnpt_d_nms")
    detections = tensor(figures["dets"])
    kept = nms(detections[:, :4], detections[:, 4], threshold, legacy_plus_one=True)
    assert kept.tolist() == figures[name].tolist()


@pytest.mark.parametrize("name", ["nms_np_05", "nms_tf_05"])
def test_matterport_nms(name):
    figures = case("mrcnn_6_box_ops")
    kept = nms(xyxy(figures["boxes"]), tensor(figures["scores"]), 0.5)
    assert kept.tolist() == figures[name].tolist()


# --- levels ----------------------------------------------------------------------------------------------------------


def test_detectron2_levels():
    figures = case("d2_3_levels")
    found = choose_levels(tensor(figures["boxes"]), finest=2, coarsest=5)
    assert found.tolist() == figures["level"].tolist()


def test_fpn_pytorch_levels_by_the_natural_logarithm():
    figures = case("fpnpt_e_levels")
    boxes = tensor(figures["rois"])[:, 1:]
    found = choose_levels(boxes, finest=2, coarsest=5, rule="round_ln", legacy_plus_one=True)
    assert found.tolist() == figures["level"].tolist()


def test_matterport_levels_of_normalised_boxes():
    figures = case("mrcnn_3_levels")
    height, width = figures.meta["image_shape"]
    size = 224 / (height * width) ** 0.5
    found = choose_levels(xyxy(figures["boxes"]), finest=2, coarsest=5, rule="round_log2", canonical_size=size)
    assert found.tolist() == figures["level"].tolist()


# --- matching --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "positive", "negative", "keep_best"),
    [("rpn", 0.7, 0.3, True), ("roi", 0.5, 0.5, False), ("retinanet", 0.5, 0.4, True)],
)
def test_detectron2_matches(name, positive, negative, keep_best):
    figures = case("d2_4_matcher")
    truth = tensor(figures["gt"])
    ignore = torch.zeros(len(truth), dtype=torch.bool)
    found = match(
        tensor(figures["anchors"]),
        truth,
        ignore,
        positive_iou=positive,
        negative_iou=negative,
        keep_best=keep_best,
    )
    assert found.kind.tolist() == figures[f"{name}_labels"].tolist()
    # Of two objects with the same best overlap of 0 either may be named: only positives have an object.
    positives = (found.kind == 1).numpy()
    assert found.gt_index.numpy()[positives].tolist() == figures[f"{name}_matches"][positives].tolist()


def test_without_objects_all_anchors_are_background():
    figures = case("d2_4_matcher")
    none = torch.zeros(0, dtype=torch.bool)
    found = match(
        tensor(figures["anchors"]), torch.zeros(0, 4), none, positive_iou=0.7, negative_iou=0.3, keep_best=True
    )
    assert found.kind.tolist() == figures["rpn_labels_no_gt"].tolist()
