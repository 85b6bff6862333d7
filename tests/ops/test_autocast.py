"""Box arithmetic is float32 under any autocast and whatever comes in: bfloat16 has steps of 8 pixels at 1000."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fpn.ops import anchors, box_coding, boxes, losses, matching, nms
from fpn.ops.roi_align.levels import choose_levels
from fpn.ops.roi_align.pool import pool_rois

# Neither these corners nor their differences can be told apart in bfloat16.
ONE = torch.tensor([[1000.0, 1001.0, 1223.0, 1226.0], [1001.0, 1002.0, 1010.0, 1009.0], [3.0, 5.0, 999.0, 1003.0]])
TWO = torch.tensor([[1001.0, 1003.0, 1225.0, 1227.0], [1002.0, 1001.0, 1011.0, 1011.0], [5.0, 3.0, 1001.0, 1001.0]])
SCORES = torch.tensor([0.9, 0.8999, 0.8998])
NONE_IGNORED = torch.zeros(3, dtype=torch.bool)
INDEX = torch.zeros(3, dtype=torch.int64)


def _pooled() -> Tensor:
    maps = [torch.linspace(0, 1, 2 * 6 * 6).view(1, 2, 6, 6)]
    return pool_rois(maps, [(1 / 256, 1 / 256)], ONE, INDEX, INDEX, output_size=2)


OPERATIONS: dict[str, Callable[[], Any]] = {
    "area": lambda: boxes.area(ONE),
    "clip": lambda: boxes.clip(ONE, 1005, 1007),
    "pairwise_iou": lambda: boxes.pairwise_iou(ONE, TWO),
    "pairwise_coverage": lambda: boxes.pairwise_coverage(ONE, TWO),
    "paired_iou": lambda: boxes.paired_iou(ONE, TWO),
    "paired_giou": lambda: boxes.paired_giou(ONE, TWO),
    "xyxy_to_xywh": lambda: boxes.xyxy_to_xywh(ONE),
    "encode": lambda: box_coding.encode(ONE, TWO),
    "decode": lambda: box_coding.decode(SCORES[:, None].expand(3, 4), ONE),
    "anchors": lambda: anchors.anchor_grid(3, 3, stride=(333, 333), cell=anchors.cell_anchors((33.0,), (0.5,))),
    "match": lambda: (
        matching.match(ONE, TWO, NONE_IGNORED, positive_iou=0.7, negative_iou=0.3, keep_best=True).gt_index
    ),
    "nms": lambda: nms.nms(torch.cat([ONE, TWO]), torch.cat([SCORES, SCORES - 0.00005]), 0.9),
    "choose_levels": lambda: choose_levels(ONE, finest=2, coarsest=5),
    "pool_rois": _pooled,
    "giou_loss": lambda: losses.giou_loss(ONE, TWO),
    "smooth_l1": lambda: losses.smooth_l1(ONE, TWO, beta=1.0),
    "sigmoid_focal": lambda: losses.sigmoid_focal(SCORES, SCORES.round()),
    "binary_cross_entropy": lambda: losses.binary_cross_entropy(SCORES, SCORES.round()),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", OPERATIONS)
def test_autocast_changes_no_bit(name: str, dtype: torch.dtype) -> None:
    plain = OPERATIONS[name]()
    with torch.autocast("cpu", dtype=dtype):
        cast = OPERATIONS[name]()
    assert cast.dtype == plain.dtype in (torch.float32, torch.int64)
    assert torch.equal(cast, plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sides_of_half_precision_boxes_are_subtracted_in_float32(dtype: torch.dtype) -> None:
    # 512 - 1 is 511 in float32, and a square of that side is just below the edge of two levels; bfloat16 rounds to 512.
    box = torch.tensor([[1.0, 1.0, 512.0, 512.0]], dtype=dtype)
    levels = choose_levels(box, finest=2, coarsest=5, canonical_size=512.0)
    assert levels.tolist() == [3]
    assert box_coding.encode(box, box).dtype == torch.float32
    assert box_coding.decode(torch.zeros_like(box), box).tolist() == [[1.0, 1.0, 512.0, 512.0]]
