"""Parts of one-stage detectors by themselves: anchors, points, coders, matching and losses of the originals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fpn.detectors.dense_toolkits import ATSS_DIALECTS, FCOS_DIALECTS, RETINANET_DIALECTS
from fpn.heads.box_coder import BoxCoder
from fpn.heads.dense_losses import centre_offsets, centreness
from fpn.heads.dense_selection import DenseMaps
from fpn.heads.fcos import FCOSHead
from fpn.heads.retinanet import RetinaNetHead
from fpn.ops import losses
from fpn.ops.adaptive_matching import match_adaptively
from fpn.ops.anchors import level_anchors
from fpn.ops.matching import Match, match
from fpn.structures import ImageBatch, Level
from parity.golden.cases import Case
from parity.golden.compare import BOX_TOLERANCE, OP_TOLERANCE, assert_near
from parity.golden.test_dense import stored


def tensors(case: Case, *names: str) -> list[Tensor]:
    return [torch.from_numpy(case[name]) for name in names]


def levels(strides: list[int]) -> tuple[Level, ...]:
    return tuple(Level(f"p{3 + number}", 32, stride, 3 + number) for number, stride in enumerate(strides))


def maps_of(case: Case, strides: list[int]) -> tuple[DenseMaps, ImageBatch]:
    height, width = case.meta["image"]
    empty = [torch.zeros(1, 4, -(-height // stride), -(-width // stride)) for stride in strides]
    return DenseMaps(empty, empty, ()), ImageBatch(torch.zeros(1, 3, height, width), torch.tensor([[height, width]]))


def grids(case: Case, kind: str) -> list[Tensor]:
    """Anchors of each level of a case's image."""
    dialect = {"retinanet": RETINANET_DIALECTS, "atss": ATSS_DIALECTS}[kind]["mmdetection"]
    anchors, (height, width) = dialect.anchors, case.meta["image"]
    strides = stored("mm_11_anchors").meta["generators"][kind]["strides"]
    return [
        level_anchors(
            -(-height // stride), -(-width // stride), (stride, stride), sizes, anchors.ratios, order=anchors.order
        )
        for stride, sizes in zip(strides, anchors.sizes, strict=True)
    ]


@pytest.mark.parametrize("kind", ["retinanet", "atss"])
def test_mmdetections_anchors(kind: str) -> None:
    case = stored("mm_11_anchors")
    together = torch.cat(grids(case, kind)).numpy()
    assert_near(case.stored_part(f"{kind}_grid", together), case[f"{kind}_grid"], BOX_TOLERANCE)


def test_mmdetections_points() -> None:
    case = stored("mm_11_anchors")
    strides = sorted({int(stride) for stride in case["fcos_points_with_stride"][:, 2]})
    head = FCOSHead(levels=levels(strides), num_classes=1, config=FCOS_DIALECTS["mmdetection"].dense)
    points = torch.cat(head.references(*maps_of(case, strides)))
    assert_near(points[:, :2], case["fcos_points"], BOX_TOLERANCE)
    assert_near(points[:, 2], case["fcos_points_with_stride"][:, 2], 0)


def test_mmdetections_anchors_of_a_smaller_image_in_a_batch() -> None:
    """The flags are told for an RPN's anchors, of which a cell has three of one size."""
    case = stored("mm_11_anchors")
    dialect, strides = RETINANET_DIALECTS["mmdetection"], case.meta["generators"]["rpn"]["strides"]
    anchors = dialect.anchors.changed(sizes=tuple((8.0 * stride,) for stride in strides))
    head = RetinaNetHead(
        levels=levels(strides), num_classes=1, anchors=anchors, coder=dialect.coder, config=dialect.dense
    )
    usable = head.usable(head.references(*maps_of(case, strides)), torch.tensor([96, 128]))
    assert np.array_equal(usable.numpy().astype(np.int64), case["rpn_valid_flags"].astype(np.int64))


def found_numbers(found: Match) -> np.ndarray:
    """As MMDetection numbers them: -1 ignored, 0 background, object + 1."""
    return torch.where(found.kind == 1, found.gt_index + 1, found.kind.long()).numpy()


def test_mmdetections_matching() -> None:
    case = stored("mm_11_assigners")
    boxes = torch.from_numpy(case["gt"])
    nothing, config = torch.zeros(len(boxes), dtype=torch.bool), RETINANET_DIALECTS["mmdetection"].dense
    options = {name: getattr(config, name) for name in ("positive_iou", "negative_iou", "keep_best", "best_owns")}
    found = match(torch.cat(grids(case, "retinanet")), boxes, nothing, **options)
    assert np.array_equal(found_numbers(found), case["retinanet_gt_inds"])
    adaptive = match_adaptively(grids(case, "atss"), boxes, nothing, nearest=ATSS_DIALECTS["mmdetection"].dense.nearest)
    assert np.array_equal(found_numbers(adaptive), case["atss_gt_inds"])


@pytest.mark.parametrize(("name", "dialect"), [("s1", RETINANET_DIALECTS), ("s01", ATSS_DIALECTS)])
def test_mmdetections_coders(name: str, dialect: dict) -> None:
    case, own = stored("mm_11_coders"), dialect["mmdetection"]
    coder = BoxCoder(config=own.coder, weights=own.dense.weights)
    source, boxes, deltas = tensors(case, "src", "gt", "deltas")
    assert_near(coder.encode(boxes, source), case[f"encode_{name}"], OP_TOLERANCE, relative=1e-5)
    decoded = coder.decode(deltas, source)
    assert_near(decoded, case[f"decode_{name}"], BOX_TOLERANCE, relative=1e-5)
    clipped = coder.clip(decoded, *(torch.tensor(side) for side in case.meta["image"]))
    assert_near(clipped, case[f"decode_{name}_clip"], BOX_TOLERANCE)


def test_mmdetections_losses() -> None:
    case = stored("mm_11_losses")
    boxes, targets, logits, labels = tensors(case, "pred_boxes", "target_boxes", "logits", "labels")
    assert_near(losses.iou_loss(boxes, targets), case["IoULoss_log"], OP_TOLERANCE, relative=1e-5)
    assert_near(losses.giou_loss(boxes, targets), case["GIoULoss"], OP_TOLERANCE)
    objects = torch.nn.functional.one_hot(labels, logits.shape[1] + 1)[:, :-1].bool()
    focal = torch.where(objects, losses.focal_of_objects(logits), losses.focal_of_background(logits))
    assert_near(focal, case["FocalLoss"], OP_TOLERANCE, relative=1e-5)


def test_detectron2s_dense_operations() -> None:
    case = stored("d2_26_dense_ops")
    source, boxes, deltas, logits, targets = tensors(
        case, "src_boxes", "gt_boxes", "pred_deltas", "focal_logits", "focal_targets"
    )
    points, stride = (source[:, :2] + source[:, 2:]) / 2, (source[:, 2:] - source[:, :2])[:, :1]
    head = FCOSHead(levels=levels([8]), num_classes=1, config=FCOS_DIALECTS["detectron2"].dense)
    decoded = head.decode(deltas, torch.cat([points, stride], dim=1))
    assert_near(decoded, case["pred_boxes"], BOX_TOLERANCE)
    offsets = centre_offsets(points, boxes)
    assert_near(offsets / stride, case["target_deltas"], OP_TOLERANCE, relative=1e-5)
    inside = (case["target_deltas"] > 0).all(axis=1)
    assert_near(centreness(offsets)[torch.from_numpy(inside)], case["ctrness"][inside], OP_TOLERANCE)
    assert_near(losses.giou_loss(decoded, boxes), case["giou_loss"], OP_TOLERANCE)
    focal = losses.sigmoid_focal(logits, targets, alpha=0.25, gamma=2.0)
    assert_near(focal, case["focal_loss"], OP_TOLERANCE, relative=1e-5)
