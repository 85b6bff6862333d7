"""Steps of a detector that no fixed number of tensor operations makes, as operators of results of fixed shapes.

A graph holds each as one node: ONNX gets its own operators in its place (`onnx_operators`), and what PyTorch runs finds
these ones, once this module is imported.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fpn.ops.heatmaps import keypoints_of_heatmaps
from fpn.ops.nms import nms, soft_nms, top_k

# Scores of what is no candidate; and the least that a candidate can have.
NEVER = -float("inf")
LOWEST = -1e30


# Schemas are written out: under a checker of types annotations can't be read back.
@torch.library.custom_op("fpn::best", mutates_args=(), schema="(Tensor scores, int count) -> (Tensor, Tensor)")
def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest scores, of equal ones the earlier, see `fpn.ops.nms.top_k`.

    Args:
        scores: (B, n).
        count: how many.

    Returns:
        (B, count) scores and (B, count) int64 their places; `NEVER`, and any place, beyond the last.
    """
    values, place = top_k(scores, count)
    missing = (0, count - values.shape[1])
    return functional.pad(values, missing, value=NEVER), functional.pad(place, missing)


@best.register_fake
def _(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    return scores.new_empty(scores.shape[0], count), scores.new_empty(scores.shape[0], count, dtype=torch.int64)


@torch.library.custom_op(
    "fpn::nms_mask", mutates_args=(), schema="(Tensor boxes, Tensor scores, float threshold, float least) -> Tensor"
)
def nms_mask(boxes: Tensor, scores: Tensor, threshold: float, least: float) -> Tensor:
    """Which boxes hard NMS keeps.

    Args:
        boxes: (G, M, 4) xyxy; nothing of one group touches another's.
        scores: (G, C, M), C scores of the same boxes, which don't touch each other either.
        threshold: a box is dropped at an IoU above this with a better one that is kept.
        least: only boxes with a score above this take part.

    Returns:
        (G, C, M) bool.
    """
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for group, column in (scores > least).any(dim=2).nonzero().tolist():
        index = (scores[group, column] > least).nonzero().squeeze(1)
        found = nms(boxes[group, index], scores[group, column, index], threshold)
        kept[group, column, index[found]] = True
    return kept


@nms_mask.register_fake
def _(boxes: Tensor, scores: Tensor, threshold: float, least: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


@torch.library.custom_op(
    "fpn::soft_nms",
    mutates_args=(),
    schema="(Tensor boxes, Tensor scores, Tensor labels, bool gaussian, float threshold, float sigma, float lowest, "
    "int limit, bool plus_one) -> (Tensor, Tensor)",
)
def soft_nms_picks(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    gaussian: bool,
    threshold: float,
    sigma: float,
    lowest: float,
    limit: int,
    plus_one: bool,
) -> tuple[Tensor, Tensor]:
    """Soft-NMS of B images, see `fpn.ops.nms.soft_nms`.

    Args:
        boxes: (B, M, 4) xyxy.
        scores: (B, M); what is below 0 takes no part.
        labels: (B, M) float32: boxes of different classes leave each other alone.
        gaussian: how scores fall; else linearly.
        threshold, sigma, lowest, limit: as `soft_nms`.
        plus_one: `legacy_plus_one` of `soft_nms`.

    Returns:
        (B, limit) int64 which are kept, best first, and (B, limit) their lowered scores; -1 where there are no more.
    """
    picks = torch.zeros(scores.shape[0], limit, dtype=torch.int64, device=scores.device)
    kept = scores.new_full((scores.shape[0], limit), -1.0)
    for number in range(len(scores)):
        index = (scores[number] >= 0).nonzero().squeeze(1)
        place, lowered = soft_nms(
            boxes[number, index],
            scores[number, index],
            decay="gaussian" if gaussian else "linear",
            threshold=threshold,
            sigma=sigma,
            lowest=lowest,
            groups=labels[number, index].to(torch.int64),
            limit=limit,
            legacy_plus_one=plus_one,
        )
        picks[number, : len(place)], kept[number, : len(place)] = index[place], lowered
    return picks, kept


@soft_nms_picks.register_fake
def _(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    gaussian: bool,
    threshold: float,
    sigma: float,
    lowest: float,
    limit: int,
    plus_one: bool,
) -> tuple[Tensor, Tensor]:
    images = scores.shape[0]
    return scores.new_empty(images, limit, dtype=torch.int64), scores.new_empty(images, limit)


@torch.library.custom_op(
    "fpn::keypoint_peaks", mutates_args=(), schema="(Tensor maps, Tensor boxes, bool probability) -> Tensor"
)
def keypoint_peaks(maps: Tensor, boxes: Tensor, probability: bool) -> Tensor:
    """Where each heatmap is largest, see `fpn.ops.heatmaps.keypoints_of_heatmaps`.

    Args:
        maps: (R, J, S, S) logits.
        boxes: (R, 4) xyxy, pixels.
        probability: whether that is the score; else the logit.

    Returns:
        (R, J, 3) x, y, score.
    """
    return keypoints_of_heatmaps(maps, boxes, score="probability" if probability else "logit")


@keypoint_peaks.register_fake
def _(maps: Tensor, boxes: Tensor, probability: bool) -> Tensor:
    return maps.new_empty(maps.shape[0], maps.shape[1], 3)
