"""The region proposal network: one small network shared over all levels (paper, section 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fpn.heads.anchors import AnchorGenerator, AnchorsConfig
from fpn.heads.box_coder import BoxCoder, BoxLoss, CoderConfig, CoderWeights
from fpn.heads.sampling import Randomness, Sampled, Sampler, SamplingConfig, per_image
from fpn.ops.nms import nms, top_k
from fpn.ops.shared_convolution import convolve_levels
from fpn.sections import Fraction, NotNegative, Positive, Section
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


class ProposalCandidates(NamedTuple):
    """What top-k lets through, decoded and clipped to the image, network pixels.

    Attributes:
        boxes: (B, k, 4).
        scores: (B, k), logits.
        parts: (k,), which level each is of; all 0 where the scope is all levels together.
        places: for each part (B, k of it), where each was among the anchors of the part.
        counts: anchors of each part.
    """

    boxes: Tensor
    scores: Tensor
    parts: Tensor
    places: list[Tensor]
    counts: list[int]

    @property
    def anchors(self) -> Int[Tensor, "b k"]:
        """The number of each one's anchor among those of all levels, finest first."""
        starts = [sum(self.counts[:part]) for part in range(len(self.counts))]
        return torch.cat([place + start for place, start in zip(self.places, starts, strict=True)], dim=1)


class DecodedAnchors(NamedTuple):
    """All anchors before top-k, finest level first.

    Attributes:
        anchors: (N, 4) network pixels.
        scores: (B, N), logits.
        boxes: (B, N, 4) what each is decoded to, clipped to the image.
        parts: (N,), as in `ProposalCandidates`.
    """

    anchors: Tensor
    scores: Tensor
    boxes: Tensor
    parts: Tensor


class RPNConfig(Section):
    """Section `rpn`: from maps to proposals."""

    objectness: Objectness = Field(
        default="sigmoid",
        description="One logit an anchor, or two with softmax. `softmax_mispaired`: fpn.pytorch normalises channels "
        "(k, k + A) but reads pairs (2a, 2a + 1); kept so that its weights give its results.",
    )
    channels: Positive[int] | None = Field(
        default=None, description="Width of the 3x3 convolution; None: the pyramid's output channels."
    )
    num_convolutions: Annotated[int, Field(ge=1, le=16)] = Field(
        default=1, description="3x3 convolutions before objectness and deltas (2 in torchvision's v2)."
    )
    weights: CoderWeights = Field(default=(1.0, 1.0, 1.0, 1.0), description="Multipliers of (dx, dy, dw, dh): 1 / std.")
    scope: Literal["level", "all"] = Field(
        default="level", description="Whether top-k and NMS run within a level, or over all levels together."
    )
    before_nms: tuple[Positive[int], Positive[int]] = Field(
        default=(2000, 1000),
        description="Top-k by score before NMS in (training, testing), a level or over all: `scope`.",
    )
    after_nms: tuple[Positive[int], Positive[int]] = Field(
        default=(2000, 1000), description="Proposals that remain an image in (training, testing), over all levels."
    )
    nms: Fraction = Field(default=0.7, description="IoU above which a worse proposal is dropped.")
    min_size: NotNegative[float] | None = Field(
        default=0.0,
        description="Proposals with a side not longer than this are dropped before NMS, network pixels; None: "
        "none are.",
    )
    min_score: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="Proposals of a smaller score are dropped before NMS (0.05 in torchvision's MobileNets).",
    )
    padded: bool = Field(
        default=False,
        description="True: missing proposals are filled with (0, 0, 0, 0) at score 0, which go through the box head "
        "(fpn.pytorch).",
    )
    sampling: SamplingConfig = Field(
        default=SamplingConfig(positive_iou=0.7, negative_iou=0.3, keep_best=True, count=256, positive_fraction=0.5),
        description="Which anchors the loss is taken on.",
    )
    inside_only: bool = Field(
        default=False,
        description="True: anchors that cross the image's rim take no part in training, nor can they be an "
        "object's best.",
    )
    valid_multiple: Positive[int] | None = Field(
        default=None,
        description="Anchors of cells that begin beyond the image's own size, rounded up to a multiple of this, take "
        "no part in training (MMDetection: 32); None: all of the batch's padding counts as background.",
    )
    beta: NotNegative[float] = Field(
        default=0.0, description="Smooth L1 turns from square to line at this error; 0: plain L1."
    )
    loss: BoxLoss = Field(
        default="smooth_l1",
        description="What is learnt of boxes: their deltas, or the generalised IoU of decoded ones.",
    )
    loss_weight: NotNegative[float] = Field(default=1.0, description="Factor of that loss.")
    normalizer: Literal["sampled", "nominal"] = Field(
        default="sampled",
        description="Both losses are divided by the anchors that were drawn, or by `sampling.count` an image, drawn or "
        "not (Detectron2).",
    )


class RPN(nn.Module):
    """A 3x3 convolution (or several) and two 1x1 siblings on every level, with the same weights (paper, section 4.1).

    Args:
        levels: the levels it reads, finest first; all of one width.
        anchors: shapes and places of the anchors; the same number a cell on every level.
        coder: what corners mean.
        config: everything else.
    """

    def __init__(
        self, *, levels: Sequence[Level], anchors: AnchorsConfig, coder: CoderConfig, config: RPNConfig
    ) -> None:
        super().__init__()
        (width,) = {level.channels for level in levels}
        self.config, self.levels = config, tuple(levels)
        self.anchors = AnchorGenerator(config=anchors, inclusive_corners=coder.inclusive_corners)
        (num_anchors,) = set(self.anchors.per_cell())
        self.coder = BoxCoder(config=coder, weights=config.weights)
        self.sampler = Sampler(config=config.sampling, legacy_plus_one=coder.legacy_plus_one)
        channels = config.channels or width
        self.shared = nn.Conv2d(width, channels, 3, padding=1)
        self.activation: nn.Module = nn.ReLU()
        self.objectness = nn.Conv2d(channels, num_anchors * (1 if config.objectness == "sigmoid" else 2), 1)
        self.deltas = nn.Conv2d(channels, num_anchors * 4, 1)
        self.further = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in range(config.num_convolutions - 1)
        )
        for layer in (self.shared, self.objectness, self.deltas, *self.further):
            nn.init.normal_(cast(Tensor, layer.weight), std=0.01)
            nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, features: Features) -> RawProposals:
        """Objectness and deltas of every anchor."""
        hidden = self._hidden([features[level.name] for level in self.levels])
        logits = [self.objectness(x) for x in hidden]
        read = [read_objectness(x, self.config.objectness) for x in logits]
        # fpn.pytorch's loss takes the pairs as it reads them, without the mispaired softmax.
        learned = (
            read if self.config.objectness != "softmax_mispaired" else [read_objectness(x, "softmax") for x in logits]
        )
        return RawProposals(read, [self.deltas(x) for x in hidden], learned)

    def _hidden(self, maps: list[Tensor]) -> list[Tensor]:
        for convolution in (self.shared, *self.further):
            maps = [self.activation(x) for x in convolve_levels(convolution, maps)]
        return maps

    def rewrite(self, fuse: Callable[[nn.Conv2d, nn.Module], nn.Module]) -> None:
        """Put the activation into the convolutions before it; `fuse` makes one of both."""
        self.further = nn.ModuleList(fuse(cast(nn.Conv2d, each), nn.ReLU(inplace=True)) for each in self.further)
        self.shared, self.activation = fuse(self.shared, nn.ReLU(inplace=True)), nn.Identity()  # type: ignore[assignment]

    @torch.no_grad()
    def propose(self, raw: RawProposals, images: ImageBatch, *, training: bool = False) -> list[Proposals]:
        """Each image's proposals, best first, clipped to the image, network pixels."""
        found = self.candidates(raw, images, training=training)
        after = self.config.after_nms[0 if training else 1]
        return [self._suppress(b, s, found.parts, after) for b, s in zip(found.boxes, found.scores, strict=True)]

    @torch.no_grad()
    def candidates(self, raw: RawProposals, images: ImageBatch, *, training: bool = False) -> ProposalCandidates:
        """Each image's anchors that top-k lets through, decoded: what NMS chooses from."""
        scores, deltas, anchors = self.parts(raw, images.padded_size)
        before = self.config.before_nms[0 if training else 1]
        best = [self._best(s, d, a, before) for s, d, a in zip(scores, deltas, anchors, strict=True)]
        parts = torch.cat([torch.full_like(s[0], i, dtype=torch.int64) for i, (s, _, _) in enumerate(best)])
        top_scores, boxes = (torch.cat(each, dim=1) for each in list(zip(*best, strict=True))[:2])
        boxes = self._clip(boxes, images)
        return ProposalCandidates(boxes, top_scores, parts, [place for _, _, place in best], [len(a) for a in anchors])

    @torch.no_grad()
    def decode_all(self, raw: RawProposals, images: ImageBatch) -> DecodedAnchors:
        """Each image's anchors, all of them decoded: what top-k chooses from."""
        scores, deltas, anchors = self.parts(raw, images.padded_size)
        parts = torch.cat([torch.full_like(a[:, 0], i, dtype=torch.int64) for i, a in enumerate(anchors)])
        grid = torch.cat(anchors)
        together = torch.cat(deltas, dim=1).float()
        boxes = self._clip(self.coder.decode(together, grid.expand_as(together)), images)
        return DecodedAnchors(grid, torch.cat(scores, dim=1), boxes, parts)

    def survivors(
        self,
        boxes: Float[Tensor, "k 4"],
        scores: Float[Tensor, " k"],
        parts: Int[Tensor, " k"],
        limit: int | None,
    ) -> Int[Tensor, " n"]:
        """Which of one image's candidates are large and sure enough and pass NMS, best first; at most `limit`."""
        fits = self.fits(boxes, scores)
        fit = None if fits is None else fits.nonzero().squeeze(1)
        if fit is not None:
            boxes, scores, parts = boxes[fit], scores[fit], parts[fit]
        kept = nms(
            boxes,
            scores,
            self.config.nms,
            groups=parts if self.config.scope == "level" else None,
            limit=limit,
            legacy_plus_one=self.coder.legacy_plus_one,
        )
        return kept if fit is None else fit[kept]

    def fits(self, boxes: Float[Tensor, "*b k 4"], scores: Float[Tensor, "*b k"]) -> Bool[Tensor, "*b k"] | None:
        """Which candidates NMS gets to see; None: all of them."""
        fit: Tensor | None = None
        if self.config.min_size is not None:
            fit = (boxes[..., 2:] - boxes[..., :2]).amin(dim=-1) > self.config.min_size
        if self.config.min_score > 0:
            sure = scores.sigmoid() >= self.config.min_score
            fit = sure if fit is None else fit & sure
        return fit

    def losses(
        self,
        raw: RawProposals,
        images: ImageBatch,
        targets: Sequence[Targets],
        *,
        generator: Randomness = None,
    ) -> LossTerms:
        """Binary cross-entropy and the loss of boxes over sampled anchors, both divided by the number of samples."""
        grids = self._grids(raw, images.padded_size)
        anchors = torch.cat(grids)
        logits = torch.cat([_flat(x, 1).squeeze(-1) for x in raw.training_objectness], dim=1)  # (B, N)
        deltas = torch.cat([_flat(x, 4) for x in raw.deltas], dim=1)  # (B, N, 4)
        drawn = [
            self.sampler.draw(anchors, truth, usable=self._usable(grids, raw, size), generator=source)
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
        wanted = torch.cat([truth.boxes[s.gt_index] for truth, s in zip(targets, drawn, strict=True)])
        references = torch.cat([anchors[s.positive] for s in drawn])
        predicted = torch.cat([x[s.positive] for x, s in zip(deltas, drawn, strict=True)]).float()
        config, num_drawn = self.config, len(positive_logits) + len(negative_logits)
        count = max(num_drawn, 1) if config.normalizer == "sampled" else config.sampling.count * len(drawn)
        missed = self.coder.loss(predicted, references, wanted, kind=config.loss, beta=config.beta)
        # -log sigmoid(x) = softplus(-x), and -log(1 - sigmoid(x)) = softplus(x).
        entropy = functional.softplus(-positive_logits).sum() + functional.softplus(negative_logits).sum()
        return LossTerms(
            {
                "objectness": entropy / count,
                "rpn_box": config.loss_weight * missed / count,
            },
            {"positive_anchors": entropy.new_tensor(len(positive_logits) / max(len(targets), 1)).detach()},
            {} if config.normalizer == "nominal" else dict.fromkeys(("objectness", "rpn_box"), float(num_drawn)),
        )

    def _usable(self, grids: list[Tensor], raw: RawProposals, size: Tensor) -> Bool[Tensor, n] | None:
        """Which anchors of an image may take part; None: all."""
        valid = self._valid(raw, size)
        if not self.config.inside_only:
            return valid
        inside = self._inside(torch.cat(grids), size)
        return inside if valid is None else inside & valid

    def _valid(self, raw: RawProposals, size: Tensor) -> Tensor | None:
        """Those whose cells begin within the image as it would be padded alone."""
        multiple = self.config.valid_multiple
        if multiple is None:
            return None
        height, width = (size + multiple - 1).div(multiple, rounding_mode="floor") * multiple
        parts: list[Tensor] = []
        for level, map_ in zip(self.levels, raw.objectness, strict=True):
            num_anchors, rows, columns = map_.shape[1:]
            y = torch.arange(rows, device=map_.device) * level.stride < height
            x = torch.arange(columns, device=map_.device) * level.stride < width
            parts.append((y[:, None] & x).flatten().repeat_interleave(num_anchors))
        return torch.cat(parts)

    def _inside(self, anchors: Tensor, size: Tensor) -> Tensor:
        height, width = size[0], size[1]
        return (anchors[:, 0] >= 0) & (anchors[:, 1] >= 0) & (anchors[:, 2] < width) & (anchors[:, 3] < height)

    def _grids(self, raw: RawProposals, padded_size: Size) -> list[Tensor]:
        sizes = [Size(*x.shape[-2:]) for x in raw.objectness]
        return self.anchors.grids(self.levels, sizes, padded_size, raw.objectness[0].device)

    def parts(self, raw: RawProposals, padded_size: Size) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Scores (B, n), deltas (B, n, 4) and anchors (n, 4) of each level, or of all in one."""
        anchors = self._grids(raw, padded_size)
        scores = [_flat(x, 1).squeeze(-1).float() for x in raw.objectness]  # each (B, H*W*A)
        deltas = [_flat(x, 4) for x in raw.deltas]  # each (B, H*W*A, 4)
        if self.config.scope == "all":
            return [torch.cat(scores, 1)], [torch.cat(deltas, 1)], [torch.cat(anchors)]
        return scores, deltas, anchors

    def _best(self, scores: Tensor, deltas: Tensor, anchors: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Top-k before decoding: (B, k) scores, (B, k, 4) boxes, and (B, k) which anchors they are of."""
        values, index = top_k(scores, count)
        chosen = deltas.gather(1, index[..., None].expand(-1, -1, 4))
        return values, self.coder.decode(chosen.float(), anchors[index]), index

    def _clip(self, boxes: Tensor, images: ImageBatch) -> Tensor:
        return self.coder.clip(boxes, images.sizes[:, 0, None], images.sizes[:, 1, None])

    def _suppress(self, boxes: Tensor, scores: Tensor, parts: Tensor, limit: int) -> Proposals:
        kept = self.survivors(boxes, scores, parts, limit)
        boxes, scores = boxes[kept], scores[kept].sigmoid()
        if self.config.padded and len(kept) < limit:
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
