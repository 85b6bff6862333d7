"""Which references (anchors or proposals) learn from which object, and a balanced sample of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int, Num
from torch import Tensor

from fpn.ops.boxes import SMALLEST_AREA, area, at_least_float32, pairwise_intersection

# Elements of the IoU matrix computed at once: what fits the cache of a CPU, what keeps a GPU busy.
_CHUNK_CPU = 1 << 20
_CHUNK_DEVICE = 1 << 25
# A negative reference with at least this part of its area in an ignore region takes no part.
_IGNORED_COVERAGE = 0.5


class Match(NamedTuple):
    """What each of n references shall become.

    Attributes:
        gt_index: (n,) int64, the object with the highest IoU; 0 where there is none.
        kind: (n,) int8: 1 positive, 0 negative, -1 neither.
    """

    gt_index: Tensor
    kind: Tensor


@torch.no_grad()
def match(
    boxes: Num[Tensor, "n 4"],
    gt_boxes: Num[Tensor, "m 4"],
    gt_ignore: Bool[Tensor, " m"],
    *,
    positive_iou: float,
    negative_iou: float,
    keep_best: bool,
    best_owns: bool = False,
    best_iou: float = 0.0,
    legacy_plus_one: bool = False,
) -> Match:
    """Match references to ground truth by IoU.

    Args:
        boxes: references, xyxy.
        gt_boxes: ground truth, in the same pixels.
        gt_ignore: crowds and difficult objects: no reference becomes one, and a negative one that lies at least half
            within one is neither.
        positive_iou: from this IoU on a reference is positive.
        negative_iou: below this it is negative, between the two neither.
        keep_best: each object's best references, ties included, are positive whatever their IoU, unless it is 0. They
            keep the object they overlap most, which may be another one.
        best_owns: they become that object's; of several objects the last one's (MMDetection).
        best_iou: with `best_owns`: objects whose best references have less own none.
        legacy_plus_one: widths are x2 - x1 + 1.

    Returns:
        Without objects everything is negative, but for what lies in ignore regions.
    """
    if len(gt_boxes) == 0 or len(boxes) == 0:
        nothing = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        return Match(nothing, nothing.to(torch.int8))
    # On a CPU it costs nothing to look whether there are crowds at all; a GPU would have to be waited for.
    ignore = gt_ignore if gt_ignore.is_cuda or bool(gt_ignore.any()) else None
    overlaps = _Overlaps(boxes, gt_boxes, ignore, legacy_plus_one)
    best, gt_index, gt_best, ignored = overlaps.summary()
    positive, negative = best >= positive_iou, best < negative_iou
    kind = positive.to(torch.int8) - (~positive & ~negative).to(torch.int8)
    kind = torch.where((kind == 0) & ignored, -1, kind)
    if keep_best and best_owns:
        owner = overlaps.owner(torch.where(gt_best >= best_iou, gt_best, -1.0))
        return Match(torch.where(owner >= 0, owner, gt_index), torch.where(owner >= 0, 1, kind))
    if keep_best:
        kind = torch.where(overlaps.equal(gt_best), 1, kind)
    return Match(gt_index, kind)


class _Overlaps:
    """The (m, n) matrix of IoUs of objects with references, a chunk of references at a time.

    Ignored objects have an IoU of -1. A matrix of one chunk is kept; a larger one is computed again when asked for
    again: 200 000 anchors and 500 objects would take 400 MB.

    All chunks work in the same memory, and their results go to memory that was there before the first one. Small
    tensors made between large ones would pin them apart: glibc (2.36) asks for a little more than it gives where memory
    is aligned, as torch's is, so a hole that one chunk leaves is too small for the next, and with 4000 objects a step
    took up to 8 GiB.
    """

    def __init__(self, boxes: Tensor, gt_boxes: Tensor, ignore: Tensor | None, legacy_plus_one: bool) -> None:
        self.gt_boxes, self.ignore, self.legacy_plus_one = gt_boxes, ignore, legacy_plus_one
        self.gt_area = area(gt_boxes, legacy_plus_one=legacy_plus_one)
        budget = _CHUNK_DEVICE if boxes.is_cuda else _CHUNK_CPU
        self.parts = torch.split(boxes, max(budget // len(gt_boxes), 1))
        most = len(gt_boxes) * len(self.parts[0])
        self.room = [self.gt_area.new_empty(most, dtype=self._type(boxes)) for _ in range(3)]
        self.equals = torch.empty(most, dtype=torch.bool, device=boxes.device)
        self.own_area = area(boxes, legacy_plus_one=legacy_plus_one)
        self.ignored = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
        self.kept: Tensor | None = None

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """Which references, and their IoUs (m, c), good until the next chunk."""
        begin = 0
        for part in self.parts:
            references = slice(begin, begin + len(part))
            iou = self._of(part, references) if self.kept is None else self.kept
            self.kept = iou if len(self.parts) == 1 else None
            yield references, iou
            begin = references.stop

    def summary(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Each reference's highest IoU and whose it is (n,), each object's highest (m,), and what is ignored (n,)."""
        best = self.room[0].new_empty(len(self.ignored))
        gt_index = torch.empty_like(best, dtype=torch.int64)
        gt_best = best.new_full((len(self.gt_boxes),), -1.0)
        of_chunk = torch.empty_like(gt_best)
        for references, iou in self:
            torch.max(iou, dim=0, out=(best[references], gt_index[references]))
            torch.maximum(gt_best, torch.amax(iou, dim=1, out=of_chunk), out=gt_best)
        return best, gt_index, gt_best, self.ignored

    def equal(self, gt_best: Tensor) -> Tensor:
        """(n,) which references have an object's highest IoU, when that is not 0."""
        wanted = torch.where(gt_best > 0, gt_best, torch.nan)[:, None]  # nothing equals NaN
        result = torch.empty_like(self.ignored)
        for references, iou in self:
            equal = torch.eq(iou, wanted, out=self.equals[: iou.numel()].view_as(iou))
            torch.any(equal, dim=0, out=result[references])
        return result

    def owner(self, gt_best: Tensor) -> Tensor:
        """(n,) the last object whose highest IoU a reference has, when that is not 0; -1: none's."""
        wanted = torch.where(gt_best > 0, gt_best, torch.nan)[:, None]
        numbers = torch.arange(len(gt_best), device=gt_best.device)[:, None]
        result = torch.empty(len(self.ignored), dtype=torch.int64, device=gt_best.device)
        for references, iou in self:
            result[references] = torch.where(iou == wanted, numbers, -1).amax(dim=0)
        return result

    def _of(self, boxes: Tensor, references: slice) -> Tensor:
        count = len(self.gt_boxes) * len(boxes)
        room = [part[:count].view(len(self.gt_boxes), len(boxes)) for part in self.room]
        shared = pairwise_intersection(self.gt_boxes, boxes, legacy_plus_one=self.legacy_plus_one, room=room)
        own = self.own_area[references]
        union = torch.add(self.gt_area[:, None], own, out=room[1]).sub_(shared).clamp_(min=SMALLEST_AREA)
        iou = torch.div(shared, union, out=room[2])
        if self.ignore is None:
            return iou
        inside = torch.ge(shared, _IGNORED_COVERAGE * own, out=self.equals[:count].view_as(shared))
        torch.any(inside.logical_and_(own > 0).logical_and_(self.ignore[:, None]), dim=0, out=self.ignored[references])
        return iou.masked_fill_(self.ignore[:, None], -1.0)

    def _type(self, boxes: Tensor) -> torch.dtype:
        return torch.promote_types(self.gt_area.dtype, at_least_float32(boxes[:0]).dtype)


@torch.no_grad()
def sample(
    kind: Int[Tensor, " n"], *, count: int, positive_fraction: float, generator: torch.Generator | None = None
) -> tuple[Int[Tensor, " p"], Int[Tensor, " q"]]:
    """Draw positive and negative references, uniformly and without replacement.

    Args:
        kind: 1 positive, 0 negative, -1 neither.
        count: how many to draw; negatives fill up what positives leave.
        positive_fraction: at most this part of `count` is positive.
        generator: source of randomness; None: torch's own.

    Returns:
        Indices into `kind` of positives and of negatives, in random order; fewer where there are not enough.
    """
    source = kind.device if generator is None else generator.device
    keys = torch.rand(len(kind), generator=generator, device=source).to(kind.device)
    positive, negative = kind == 1, kind == 0
    available = torch.stack([positive.sum(), negative.sum()]).tolist()  # the one wait for a GPU: results have a length
    num_positive = min(int(count * positive_fraction), available[0])
    num_negative = min(count - num_positive, available[1])
    return _draw(keys, positive, num_positive), _draw(keys, negative, num_negative)


def _draw(keys: Tensor, wanted: Tensor, count: int) -> Tensor:
    """`count` indices where `wanted`: those with the highest of the random `keys`."""
    return torch.where(wanted, keys, -1.0).topk(count).indices
