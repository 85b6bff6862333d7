"""From a dense head's maps to detections: the best pairs of place and class of each level, decoded, then NMS."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from fpn.heads.dense import DenseConfig
from fpn.ops.boxes import clip
from fpn.ops.nms import nms, top_k
from fpn.structures import ImageBatch

# How the quality of a box enters its score: not at all; the square root of the product, before the limit and top-k;
# or the product, behind them.
Scoring: TypeAlias = Literal["class", "root", "product"]


class DenseMaps(NamedTuple):
    """What a dense head says, level by level, finest first.

    Attributes:
        logits: each (B, A*K, H, W), channels anchor * K + class.
        deltas: each (B, A*4, H, W), channels anchor * 4 + number.
        quality: each (B, A, H, W), logits; none where the head has no such branch.
    """

    logits: Sequence[Tensor]
    deltas: Sequence[Tensor]
    quality: Sequence[Tensor]


# With so many times the wanted pairs above the limit, a higher one is sought before any is looked at: a place in memory
# is three numbers of eight bytes, and a network that has not learned yet finds objects everywhere.
_MANY = 8
# In how many groups for each wanted pair.
_GROUPS = 4


class Picked(NamedTuple):
    """The best pairs of place and class of one level of one image.

    Attributes:
        scores: (n,).
        labels: (n,).
        places: (n,), the number of each one's anchor in the order y, x, anchor.
        deltas: (n, 4).
    """

    scores: Tensor
    labels: Tensor
    places: Tensor
    deltas: Tensor


def pick_best(
    logits: Float[Tensor, "ak h w"],
    deltas: Float[Tensor, "a4 h w"],
    quality: Float[Tensor, "a h w"] | None,
    *,
    scoring: Scoring,
    limit: float,
    count: int,
) -> Picked:
    """Of one level of one image the pairs that score above `limit`, `count` at most; only they are looked at closely.

    Args:
        logits: of A anchors and K classes.
        deltas: of A anchors.
        quality: of A anchors; None: no such branch.
        scoring: how it enters.
        limit: scores are above it; with "product" the class's alone is.
        count: the most pairs.
    """
    anchors = len(deltas) // 4
    classes = len(logits) // anchors
    values, least = logits.float(), _logit(limit)
    if scoring == "root":
        assert quality is not None, "this scoring needs it"
        values = _root(values.reshape(anchors, classes, *values.shape[1:]), quality.float()).flatten(0, 1)
        least = limit
    above = values > least
    if int(above.count_nonzero()) > _MANY * count:  # a sum would be over a copy of eight bytes a place
        # In the order in which a channels-last map lies: another one would be a copy of it.
        above &= values >= floor_of_best(values.permute(1, 2, 0).flatten(), count)
    channel, y, x = above.nonzero(as_tuple=True)
    found = values[channel, y, x]
    # Ordered also where all are taken: of logits that are one score as numbers the higher comes first, as in a file.
    found, order = top_k(found, count)
    channel, y, x = channel[order], y[order], x[order]
    anchor = channel // classes
    scores = found if scoring == "root" else found.sigmoid()
    if scoring == "product":
        assert quality is not None, "this scoring needs it"
        scores = scores * quality[anchor, y, x].float().sigmoid()
    chosen = deltas.reshape(anchors, 4, *deltas.shape[1:])[anchor, :, y, x].float()
    return Picked(scores, channel % classes, (y * logits.shape[2] + x) * anchors + anchor, chosen)


def floor_of_best(values: Float[Tensor, " n"], count: int) -> Tensor:
    """A number that at least `count` of the values reach, and not many more: without ordering or moving them.

    They are cut into groups; the `count` largest of the groups' largest values are so many values, and the least of
    them is that number.

    Args:
        values: n of them, at least `_GROUPS * count`.
        count: at least 1.
    """
    groups = _GROUPS * count
    size = len(values) // groups
    return values[: groups * size].view(groups, size).amax(dim=1).topk(count).values[-1]


def _logit(score: float) -> float:
    return math.log(score / (1 - score)) if score > 0 else -math.inf


def _root(values: Float[Tensor, "a k h w"], quality: Float[Tensor, "a h w"]) -> Float[Tensor, "a k h w"]:
    return (values.sigmoid() * quality.sigmoid()[:, None]).sqrt_()


class DenseCandidates(NamedTuple):
    """The best pairs of place and class of all levels of one image, decoded.

    Attributes:
        boxes: (n, 4), network pixels.
        scores: (n,).
        labels: (n,).
        places: (n,), the number of each one's anchor among those of all levels, finest first.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    places: Tensor


def pick_candidates(
    maps: DenseMaps,
    references: Sequence[Tensor],
    decode: Callable[[Tensor, Tensor], Tensor],
    images: ImageBatch,
    index: int,
    *,
    config: DenseConfig,
    scoring: Scoring,
) -> DenseCandidates:
    """What NMS chooses from in one image.

    Args:
        maps: what the head says.
        references: of each level (H*W*A, r): what `deltas` are relative to.
        decode: deltas (n, 4) and references (n, r) -> boxes (n, 4).
        images: B of them.
        index: which of them.
        config: limits.
        scoring: how quality enters.
    """
    picked = [
        pick_best(
            logits[index],
            deltas[index],
            maps.quality[level][index] if maps.quality else None,
            scoring=scoring,
            limit=config.score_limit,
            count=config.before_nms,
        )
        for level, (logits, deltas) in enumerate(zip(maps.logits, maps.deltas, strict=True))
    ]
    boxes = [decode(each.deltas, grid[each.places]) for each, grid in zip(picked, references, strict=True)]
    starts = [sum(len(grid) for grid in references[:level]) for level in range(len(references))]
    found = DenseCandidates(
        torch.cat(boxes),
        torch.cat([each.scores for each in picked]),
        torch.cat([each.labels for each in picked]),
        torch.cat([each.places + start for each, start in zip(picked, starts, strict=True)]),
    )
    return _clipped(found, images, index, config) if config.clipped == "before_nms" else found


def suppress_candidates(found: DenseCandidates, images: ImageBatch, index: int, config: DenseConfig) -> DenseCandidates:
    """Those that NMS within each class and the limit leave, best first, clipped to the image."""
    kept = nms(found.boxes, found.scores, config.nms, groups=found.labels, limit=config.limit)
    found = DenseCandidates(*(part[kept] for part in found))
    return _clipped(found, images, index, config) if config.clipped == "last" else found


def clip_to_image(boxes: Float[Tensor, "n 4"], images: ImageBatch, index: int) -> Float[Tensor, "n 4"]:
    """Boxes cut off at the rim of image number `index`, or of what it shows."""
    if images.windows is None:
        return clip(boxes, images.sizes[index, 0], images.sizes[index, 1])
    window = images.windows[index]
    return torch.minimum(torch.maximum(boxes, window[:2].repeat(2)), window[2:].repeat(2))


def _clipped(found: DenseCandidates, images: ImageBatch, index: int, config: DenseConfig) -> DenseCandidates:
    boxes = clip_to_image(found.boxes, images, index)
    found = found._replace(boxes=boxes)
    if not config.drop_empty:
        return found
    whole = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    return DenseCandidates(*(part[whole] for part in found))
