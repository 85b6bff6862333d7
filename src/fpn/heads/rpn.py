"""The region proposal network: one small network shared over all levels (paper, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from fpn.heads.anchors import AnchorPlan
from fpn.heads.box_coder import BoxCoding
from fpn.heads.sampling import Randomness, Sampled, Sampling, per_image
from fpn.ops.losses import smooth_l1
from fpn.ops.nms import nms, top_k
from fpn.shapes import Size
from fpn.structures import Features, ImageBatch, Level, LossTerms, Proposals, Targets

Objectness = Literal["sigmoid", "softmax", "softmax_mispaired"]


@dataclass(frozen=True, slots=True)
class RawProposals:
    """What the shared network says, level by level, finest first.

    Attributes:
        objectness: each (B, A, H, W), the logit that an anchor holds an object.
        deltas: each (B, A*4, H, W), channels anchor * 4 + (dx, dy, dw, dh).
        training_objectness: as `objectness`, where a toolkit trains other logits than it reads; else the same list.
    """

    objectness: list[Tensor]
    deltas: list[Tensor]
    training_objectness: list[Tensor]


@dataclass(frozen=True, kw_only=True)
class ProposalSelection:
    """From raw boxes to proposals.

    Attributes:
        before_nms: top-k by score in (training, testing), a level or over all by `scope`.
        after_nms: proposals that remain an image in (training, testing).
        nms: IoU above which the worse of two is dropped.
        min_size: a proposal with a side not longer than this is dropped, network pixels; None: none is.
        scope: whether top-k and suppression work within a level or over all levels together.
        padded: missing proposals are filled with (0, 0, 0, 0) at score 0.
    """

    before_nms: tuple[int, int] = (2000, 1000)
    after_nms: tuple[int, int] = (2000, 1000)
    nms: float = 0.7
    min_size: float | None = 0.0
    scope: Literal["level", "all"] = "level"
    padded: bool = False


class RPN(nn.Module):
    """A 3x3 convolution and two 1x1 siblings on every level, with the same weights (paper, section 4.1).

    Args:
        levels: the levels it reads, finest first; all of one width.
        anchors: shapes and places of the anchors; the same number a cell on every level.
        coding: how deltas are read.
        selection: how raw boxes become proposals.
        sampling: which anchors the loss is taken on.
        channels: width of the 3x3 convolution; None: that of the levels.
        objectness: one logit an anchor, or two whose difference counts.
        inside_only: anchors that cross the image's rim take no part in the loss.
        beta: where smooth L1 turns from square to line; 0: plain L1.
    """

    def __init__(
        self,
        *,
        levels: Sequence[Level],
        anchors: AnchorPlan,
        coding: BoxCoding,
        selection: ProposalSelection,
        sampling: Sampling,
        channels: int | None = None,
        objectness: Objectness = "sigmoid",
        inside_only: bool = False,
        beta: float = 0.0,
    ) -> None:
        super().__init__()
        (width,) = {level.channels for level in levels}
        (num_anchors,) = set(anchors.per_cell())
        channels = channels or width
        self.levels, self.anchors, self.coding = tuple(levels), anchors, coding
        self.selection, self.sampling = selection, sampling
        self.mode: Objectness = objectness
        self.inside_only, self.beta = inside_only, beta
        self.shared = nn.Conv2d(width, channels, 3, padding=1)
        self.activation: nn.Module = nn.ReLU()
        self.objectness = nn.Conv2d(channels, num_anchors * (1 if objectness == "sigmoid" else 2), 1)
        self.deltas = nn.Conv2d(channels, num_anchors * 4, 1)
        for layer in (self.shared, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: Features) -> RawProposals:
        """Objectness and deltas of every anchor."""
        hidden = [self.activation(self.shared(features[level.name])) for level in self.levels]
        logits = [self.objectness(x) for x in hidden]
        read = [read_objectness(x, self.mode) for x in logits]
        # fpn.pytorch's loss takes the pairs as it reads them, without the mispaired softmax.
        learned = read if self.mode != "softmax_mispaired" else [read_objectness(x, "softmax") for x in logits]
        return RawProposals(read, [self.deltas(x) for x in hidden], learned)

    @torch.no_grad()
    def propose(self, raw: RawProposals, images: ImageBatch, *, training: bool = False) -> list[Proposals]:
        """Each image's proposals, best first, clipped to the image, network pixels."""
        anchors = self._grids(raw, images)
        moment = 0 if training else 1
        before, after = self.selection.before_nms[moment], self.selection.after_nms[moment]
        scores = [_flat(x, 1).squeeze(-1).float() for x in raw.objectness]  # each (B, H*W*A)
        deltas = [_flat(x, 4) for x in raw.deltas]  # each (B, H*W*A, 4)
        if self.selection.scope == "all":
            scores, deltas, anchors = [torch.cat(scores, 1)], [torch.cat(deltas, 1)], [torch.cat(anchors)]
        best = [self._best(s, d, a, before) for s, d, a in zip(scores, deltas, anchors, strict=True)]
        part = torch.cat([torch.full_like(s[0], i, dtype=torch.int64) for i, (s, _) in enumerate(best)])
        top_scores, boxes = (torch.cat(parts, dim=1) for parts in zip(*best, strict=True))
        height, width = images.sizes[:, 0, None], images.sizes[:, 1, None]
        boxes = self.coding.clip(boxes, height, width)
        return [self._suppress(b, s, part, after) for b, s in zip(boxes, top_scores, strict=True)]

    def losses(
        self,
        raw: RawProposals,
        images: ImageBatch,
        targets: Sequence[Targets],
        *,
        generator: Randomness = None,
    ) -> LossTerms:
        """Binary cross-entropy and smooth L1 over sampled anchors, both divided by the number of samples."""
        anchors = torch.cat(self._grids(raw, images))
        logits = torch.cat([_flat(x, 1).squeeze(-1) for x in raw.training_objectness], dim=1)  # (B, N)
        deltas = torch.cat([_flat(x, 4) for x in raw.deltas], dim=1)  # (B, N, 4)
        drawn = [
            self.sampling.draw(anchors, truth, usable=self._usable(anchors, size), generator=source)
            for truth, size, source in zip(targets, images.sizes, per_image(generator, len(targets)), strict=True)
        ]
        return self._loss_terms(anchors, logits, deltas, drawn, targets)

    def _loss_terms(
        self,
        anchors: Tensor,
        logits: Tensor,
        deltas: Tensor,
        drawn: list[Sampled],
        targets: Sequence[Targets],
    ) -> LossTerms:
        positive_logits = torch.cat([x[s.positive] for x, s in zip(logits, drawn, strict=True)]).float()
        negative_logits = torch.cat([x[s.negative] for x, s in zip(logits, drawn, strict=True)]).float()
        wanted = torch.cat(
            [
                self.coding.encode(truth.boxes[s.gt_index], anchors[s.positive])
                for truth, s in zip(targets, drawn, strict=True)
            ]
        )
        predicted = torch.cat([x[s.positive] for x, s in zip(deltas, drawn, strict=True)]).float()
        count = max(len(positive_logits) + len(negative_logits), 1)
        # -log sigmoid(x) = softplus(-x), and -log(1 - sigmoid(x)) = softplus(x).
        entropy = functional.softplus(-positive_logits).sum() + functional.softplus(negative_logits).sum()
        return LossTerms(
            {
                "objectness": entropy / count,
                "proposal_box": smooth_l1(predicted, wanted, beta=self.beta).sum() / count,
            },
            {"positive_anchors": entropy.new_tensor(len(positive_logits) / max(len(targets), 1)).detach()},
            dict.fromkeys(("objectness", "proposal_box"), float(len(positive_logits) + len(negative_logits))),
        )

    def _usable(self, anchors: Tensor, size: Tensor) -> Bool[Tensor, n] | None:
        if not self.inside_only:
            return None
        height, width = size[0], size[1]
        return (anchors[:, 0] >= 0) & (anchors[:, 1] >= 0) & (anchors[:, 2] < width) & (anchors[:, 3] < height)

    def _grids(self, raw: RawProposals, images: ImageBatch) -> list[Tensor]:
        sizes = [Size(*x.shape[-2:]) for x in raw.objectness]
        return self.anchors.grids(self.levels, sizes, images.padded_size, images.pixels.device)

    def _best(self, scores: Tensor, deltas: Tensor, anchors: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Top-k before decoding: (B, k) scores and (B, k, 4) boxes."""
        values, index = top_k(scores, count)
        chosen = deltas.gather(1, index[..., None].expand(-1, -1, 4))
        return values, self.coding.decode(chosen.float(), anchors[index])

    def _suppress(self, boxes: Tensor, scores: Tensor, part: Tensor, limit: int) -> Proposals:
        if self.selection.min_size is not None:
            large = (boxes[:, 2:] - boxes[:, :2]).amin(dim=1) > self.selection.min_size
            boxes, scores, part = boxes[large], scores[large], part[large]
        kept = nms(
            boxes,
            scores,
            self.selection.nms,
            groups=part if self.selection.scope == "level" else None,
            limit=limit,
            legacy_plus_one=self.coding.legacy_plus_one,
        )
        boxes, scores = boxes[kept], scores[kept].sigmoid()
        if self.selection.padded and len(kept) < limit:
            missing = limit - len(kept)
            boxes = functional.pad(boxes, (0, 0, 0, missing))
            scores = functional.pad(scores, (0, missing))
        return Proposals(boxes, scores)


def read_objectness(logits: Float[Tensor, "b c h w"], mode: Objectness) -> Float[Tensor, "b a h w"]:
    """One logit an anchor from the channels of the objectness layer.

    A two-way softmax's foreground probability is the sigmoid of (foreground - background). With "softmax" anchor a has
    the channels (2a, 2a + 1), the second being foreground. "softmax_mispaired" is fpn.pytorch at test time: the softmax
    runs over channels (k, k + A) while 2a + 1 is read as foreground, so channel 2a + 1 is set against its partner of
    that softmax.
    """
    if mode == "sigmoid":
        return logits
    num_channels = logits.shape[1]
    foreground = torch.arange(1, num_channels, 2, device=logits.device)
    partner = foreground - 1 if mode == "softmax" else (foreground + num_channels // 2) % num_channels
    return logits[:, foreground] - logits[:, partner]


def _flat(maps: Tensor, values: int) -> Tensor:
    """(B, A*values, H, W) -> (B, H*W*A, values), in the order y, x, anchor."""
    batch, channels, height, width = maps.shape
    split = maps.reshape(batch, channels // values, values, height, width)
    return split.permute(0, 3, 4, 1, 2).reshape(batch, -1, values)
