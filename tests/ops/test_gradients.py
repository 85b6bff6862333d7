"""Gradients beside finite differences in float64: every way to read a RoI, coding, overlap, and each loss on a batch.

Losses on hand-picked elements are in test_losses.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fpn.ops import box_coding, boxes, losses
from fpn.ops.roi_align.pool import pool_rois


def _doubles(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def _table(seed: int) -> Tensor:
    """(6, 4) boxes that overlap; no two of their corners are equal, where a minimum would have no derivative."""
    random = torch.Generator().manual_seed(seed)
    low = torch.rand(6, 2, generator=random, dtype=torch.float64) * 9
    size = 5 + torch.rand(6, 2, generator=random, dtype=torch.float64) * 9
    return torch.cat([low, low + size], dim=1).requires_grad_()


SAMPLERS = [
    {"sampler": "align", "sampling_ratio": 1},
    {"sampler": "align", "sampling_ratio": 2, "aligned": False},
    {"sampler": "align", "sampling_ratio": 0},
    {"sampler": "align_avg"},
    {"sampler": "crop"},
    {"sampler": "crop", "max_pool": True},
    {"sampler": "crop_and_resize", "image_size": (24, 24)},
    {"sampler": "pool"},
]


@pytest.mark.parametrize("options", SAMPLERS, ids=lambda options: "-".join(map(str, options.values())))
@pytest.mark.parametrize("channels_last", [False, True])
def test_pooled_rois(options: dict[str, Any], channels_last: bool) -> None:
    order = torch.channels_last if channels_last else torch.contiguous_format
    maps = [_doubles(2, 1, side, side, seed=side) for side in (4, 2)]
    rois = torch.tensor([[1.0, 2.0, 17.0, 14.0], [-6.0, -3.0, 9.0, 22.0], [4.0, 4.0, 8.0, 7.0], [5.0, 5.0, 5.0, 5.0]])
    images, levels = torch.tensor([0, 1, 1, 0]), torch.tensor([1, 0, 0, 0])

    def pooled(*features: Tensor) -> Tensor:
        ordered = [each.contiguous(memory_format=order) for each in features]
        return pool_rois(ordered, [(1 / 4, 1 / 4), (1 / 8, 1 / 8)], rois, images, levels, output_size=2, **options)

    assert torch.autograd.gradcheck(pooled, maps)


LABELS = (_doubles(6, seed=5) > 0).double()
ELEMENTWISE: dict[str, tuple[Callable[..., Tensor], Tensor]] = {
    "smooth l1": (lambda x: losses.smooth_l1(x, LABELS, beta=1 / 9), _doubles(6)),
    "l1": (lambda x: losses.smooth_l1(x, LABELS, beta=0.0), _doubles(6)),
    "cross-entropy": (lambda x: losses.binary_cross_entropy(x, LABELS), _doubles(6)),
    "focal": (lambda x: losses.sigmoid_focal(x, LABELS), _doubles(6)),
    "focal, without weights": (lambda x: losses.sigmoid_focal(x, LABELS, alpha=-1.0, gamma=1.5), _doubles(6)),
    "giou": (lambda x: losses.giou_loss(x, _table(2).detach()), _table(1)),
    "iou": (lambda x: boxes.paired_iou(x, _table(2).detach()), _table(1)),
    "encode": (lambda x: box_coding.encode(x, _table(2).detach(), weights=(10.0, 10.0, 5.0, 5.0)), _table(1)),
    "decode": (lambda x: box_coding.decode(x, _table(2).detach()), _doubles(6, 4)),
    "decode, of references": (lambda x: box_coding.decode(_doubles(6, 4).detach(), x, legacy_plus_one=True), _table(2)),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_of_elements(name: str) -> None:
    function, given = ELEMENTWISE[name]
    assert function(given).dtype == torch.float64
    assert torch.autograd.gradcheck(function, given)
