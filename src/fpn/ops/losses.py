"""Losses, an element or a box at a time: who calls them sums, and divides by what fits.

All are taken in float32 or wider, and none is NaN or infinite for finite input.
"""

from __future__ import annotations

from jaxtyping import Num
from torch import Tensor
from torch.nn import functional

from fpn.ops.boxes import at_least_float32, paired_giou, paired_iou


def smooth_l1(pred: Num[Tensor, "*n"], target: Num[Tensor, "*n"], *, beta: float) -> Num[Tensor, "*n"]:
    """|error| - beta / 2, and error ** 2 / (2 * beta) where |error| < beta; plain L1 with a beta of 0.

    Source: Girshick 2015, arXiv:1504.08083, equation 3; sigma of the originals is 1 / sqrt(beta).
    """
    return functional.smooth_l1_loss(at_least_float32(pred), at_least_float32(target), reduction="none", beta=beta)


def binary_cross_entropy(logits: Num[Tensor, "*n"], target: Num[Tensor, "*n"]) -> Num[Tensor, "*n"]:
    """-log of the probability that the sigmoid of `logits` gives to `target` in 0..1."""
    logits = at_least_float32(logits)
    return functional.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")


def sigmoid_focal(
    logits: Num[Tensor, "*n"], target: Num[Tensor, "*n"], *, alpha: float = 0.25, gamma: float = 2.0
) -> Num[Tensor, "*n"]:
    """Binary cross-entropy in which elements that are already right weigh little.

    Args:
        logits: before the sigmoid.
        target: 0 or 1.
        alpha: weight of the ones; zeros weigh 1 - alpha. Negative: none of this.
        gamma: how little the right ones weigh: their error's power.

    Source: Lin et al. 2017, arXiv:1708.02002, equation 5.
    """
    logits = at_least_float32(logits)
    target = target.to(logits.dtype)
    error = logits.sigmoid() * (1 - target) + (-logits).sigmoid() * target
    loss = binary_cross_entropy(logits, target) * error**gamma
    return loss if alpha < 0 else loss * (alpha * target + (1 - alpha) * (1 - target))


def giou_loss(pred: Num[Tensor, "*n 4"], target: Num[Tensor, "*n 4"]) -> Num[Tensor, "*n"]:
    """1 - generalised IoU, 0..2, of each box with its partner.

    Source: Rezatofighi et al. 2019, arXiv:1902.09630.
    """
    return 1 - paired_giou(pred, target)


def focal_of_background(logits: Num[Tensor, "*n"], *, alpha: float = 0.25, gamma: float = 2.0) -> Num[Tensor, "*n"]:
    """`sigmoid_focal` of logits that should all be 0, in half of its passes over memory."""
    logits = at_least_float32(logits)
    loss = functional.softplus(logits) * logits.sigmoid() ** gamma
    return loss if alpha < 0 else loss * (1 - alpha)


def focal_of_objects(logits: Num[Tensor, "*n"], *, alpha: float = 0.25, gamma: float = 2.0) -> Num[Tensor, "*n"]:
    """`sigmoid_focal` of logits that should all be 1."""
    loss = focal_of_background(-logits, alpha=-1.0, gamma=gamma)
    return loss if alpha < 0 else loss * alpha


def iou_loss(pred: Num[Tensor, "*n 4"], target: Num[Tensor, "*n 4"]) -> Num[Tensor, "*n"]:
    """-log of the IoU of each box with its partner, the IoU being taken as 1e-6 at least.

    Source: Yu et al. 2016, arXiv:1608.01471.
    """
    return -paired_iou(pred, target).clamp(min=1e-6).log()
