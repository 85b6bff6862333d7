"""The box head: classifies RoIs and refines their boxes (paper, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fpn.features.blocks import Linear, Norm, convolution
from fpn.features.frozen import FrozenNorm
from fpn.heads.box_coder import BoxCoder, BoxLoss, CoderConfig, CoderWeights
from fpn.heads.class_rows import ClassRows
from fpn.heads.roi_pooler import RoIPooler
from fpn.heads.sampling import Randomness, Sampler, SamplingConfig, per_image
from fpn.ops.losses import smooth_l1
from fpn.ops.nms import nms, soft_nms
from fpn.sections import Fraction, NotNegative, Positive, Section
from fpn.structures import Detections, Features, ImageBatch, LossTerms, Proposals, Targets


class BoxConfig(Section):
    """Section `box`: class and box of each RoI, and which of them are detections."""

    head: Literal["two_layers", "convolution", "convolution_norm", "convolutions"] = Field(
        default="two_layers",
        description="Two fully connected layers, or an S x S convolution and a 1x1 (fpn.pytorch's RCNN_top), or "
        "those with a batch norm after each (matterport), or 3x3 convolutions and one fully connected layer.",
    )
    width: Positive[int] = Field(default=1024, description="Width of the fully connected layers.")
    num_convolutions: Annotated[int, Field(ge=1, le=16)] = Field(
        default=4, description="`convolutions`: how many 3x3 convolutions."
    )
    convolution_channels: Positive[int] = Field(default=256, description="`convolutions`: their width.")
    norm: Norm = Field(
        default="none",
        description="`convolutions`: the norm of each, before its ReLU: over the batch, groups of channels, or a "
        "cell's channels.",
    )
    background: Literal["last", "first"] = Field(
        default="last",
        description="Index of background in the class logits of the toolkit's files; inside our heads it is "
        "always the last.",
    )
    class_agnostic: bool = Field(default=False, description="True: one box a RoI, whatever its class.")
    weights: CoderWeights = Field(
        default=(10.0, 10.0, 5.0, 5.0), description="Multipliers of (dx, dy, dw, dh): 1 / std."
    )
    beta: NotNegative[float] = Field(default=0.0, description="Smooth L1 of the box branch, as `rpn.beta`.")
    loss: BoxLoss = Field(default="smooth_l1", description="What is learnt of boxes, as `rpn.loss`.")
    loss_weight: NotNegative[float] = Field(
        default=1.0, description="Factor of that loss (10 where MMDetection takes the generalised IoU)."
    )
    sampling: SamplingConfig = Field(
        default=SamplingConfig(positive_iou=0.5, negative_iou=0.5, count=512, positive_fraction=0.25),
        description="Which RoIs the loss is taken on.",
    )
    choice: Literal["every", "best"] = Field(
        default="every",
        description="`every` class of a RoI competes above the score limit, or only its `best` one, background "
        "included "
        "(matterport).",
    )
    score_limit: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.05, description="Detections must score more than this."
    )
    min_size: NotNegative[float] | None = Field(
        default=None,
        description="Detections with a side not longer than this are dropped before NMS, network pixels; None: "
        "none are.",
    )
    nms: Fraction = Field(default=0.5, description="IoU within a class above which a worse detection is dropped.")
    suppression: Literal["hard", "linear", "gaussian"] = Field(
        default="hard",
        description="Whether such a detection is dropped, or (Soft-NMS) its score times 1 - IoU, or times "
        "exp(-IoU ** 2 / `nms_sigma`) at any IoU.",
    )
    nms_sigma: Positive[float] = Field(default=0.5, description="Width of the Gaussian of Soft-NMS.")
    nms_lowest: Fraction = Field(
        default=1e-3, description="Detections whose score Soft-NMS has lowered below this are dropped."
    )
    nms_frame: Literal["network", "original"] = Field(
        default="network",
        description="In which pixels that IoU is taken; it matters with `coder.legacy_plus_one` only "
        "(fpn.pytorch: original).",
    )
    limit: Positive[int] = Field(default=100, description="Detections an image.")


class FlatTrunk(nn.Sequential):
    """A trunk in which a fully connected layer reads a whole map: (R, channels, S, S) -> (R, width)."""

    width: int

    def read_channels_last(self, pooled_size: int) -> None:
        """Reorder that layer's weights for cells (R, S, S, C): what lies in memory so need not be copied.

        Args:
            pooled_size: side S of a pooled RoI.
        """
        place = next(k for k, part in enumerate(self) if isinstance(part, nn.Flatten))
        first = cast(nn.Linear, self[place + 1])
        weight = first.weight.view(len(first.weight), -1, pooled_size, pooled_size)
        reordered = weight.permute(0, 2, 3, 1).flatten(1).contiguous()
        first.weight = nn.Parameter(reordered, requires_grad=first.weight.requires_grad)
        self[place] = _FlattenCells()


class TwoLayerTrunk(FlatTrunk):
    """Two fully connected layers with ReLU, for pooled RoIs (R, channels, S, S) -> (R, width)."""

    def __init__(self, *, channels: int, pooled_size: int, width: int = 1024) -> None:
        first, second = _linear(channels * pooled_size**2, width), _linear(width, width)
        super().__init__(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU())
        self.width = width


class ConvolutionsTrunk(FlatTrunk):
    """3x3 convolutions and a fully connected layer, each with ReLU: (R, channels, S, S) -> (R, width).

    Source: He et al. 2019, arXiv:1811.08883, section 4, whose norm is over groups of channels.
    """

    def __init__(
        self,
        *,
        channels: int,
        pooled_size: int,
        width: int = 1024,
        num_convolutions: int = 4,
        convolution_channels: int = 256,
        norm: Norm = "none",
    ) -> None:
        widths = [channels] + [convolution_channels] * num_convolutions
        layers = [convolution(a, b, 3, norm=norm, activation=nn.ReLU()) for a, b in pairwise(widths)]
        last = _linear(widths[-1] * pooled_size**2, width)
        super().__init__(*layers, nn.Flatten(), last, nn.ReLU())
        self.width = width
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


class _FlattenCells(nn.Module):
    """(R, C, S, S) -> (R, S*S*C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = Linear(inputs, outputs)
    nn.init.kaiming_uniform_(layer.weight, a=1)
    nn.init.zeros_(layer.bias)
    return layer


class ConvolutionTrunk(nn.Sequential):
    """fpn.pytorch's RCNN_top: an S x S convolution and a 1x1, each with ReLU: (R, channels, S, S) -> (R, width).

    With `norm_epsilon` each convolution is followed by a norm whose statistics stay as they are loaded (matterport).
    """

    def __init__(
        self, *, channels: int, pooled_size: int, width: int = 1024, norm_epsilon: float | None = None
    ) -> None:
        layers: list[nn.Module] = []
        for each in (nn.Conv2d(channels, width, pooled_size, stride=pooled_size), nn.Conv2d(width, width, 1)):
            norm = [] if norm_epsilon is None else [FrozenNorm(width, eps=norm_epsilon)]
            layers += [each, *norm, nn.ReLU()]
        super().__init__(*layers, nn.Flatten())
        self.width = width


class SampledRoIs(NamedTuple):
    """The RoIs of one image that a loss is taken on.

    Attributes:
        boxes: (n, 4), positive ones first.
        labels: (n,), what they should become; K is background.
        deltas: (P, 4), from each positive one to its object.
        gt_index: (P,), which object of the image each positive one shall become.
    """

    boxes: Tensor
    labels: Tensor
    deltas: Tensor
    gt_index: Tensor


class BoxCandidates(NamedTuple):
    """Every pair of a RoI and a class that scores above the limit, in one image, before NMS.

    Attributes:
        boxes: (n, 4) refined and clipped, network pixels.
        scores: (n,).
        labels: (n,).
        rois: (n,), the number of the RoI.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    rois: Tensor


class BoxHead(nn.Module):
    """Pools RoIs, runs a trunk, and tells class and box of each.

    Args:
        pooler: reads RoIs from the levels.
        trunk: (R, C, S, S) -> (R, trunk.width).
        num_classes: K, background not counted; it is the last of K + 1 logits.
        coder: what corners mean.
        config: everything else.
    """

    def __init__(
        self,
        *,
        pooler: RoIPooler,
        trunk: FlatTrunk | ConvolutionTrunk,
        num_classes: int,
        coder: CoderConfig,
        config: BoxConfig,
    ) -> None:
        super().__init__()
        self.pooler, self.config, self.num_classes = pooler, config, num_classes
        self.coder = BoxCoder(config=coder, weights=config.weights)
        self.sampler = Sampler(config=config.sampling, legacy_plus_one=coder.legacy_plus_one)
        self.trunk = trunk
        self.scores = Linear(trunk.width, num_classes + 1)
        self.deltas = Linear(trunk.width, 4 * (1 if config.class_agnostic else num_classes))
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        nn.init.zeros_(self.scores.bias)
        nn.init.zeros_(self.deltas.bias)

    def forward(
        self, features: Features, images: ImageBatch, boxes: Sequence[Tensor]
    ) -> tuple[Float[Tensor, "r k1"], Float[Tensor, "r d"]]:
        """Class logits (R, K+1), background last, and deltas (R, 4K) class by class (or (R, 4)) of all RoIs."""
        return self.judge(self.pooler(features, images, boxes))

    def judge(self, pooled: Float[Tensor, "r c s s"]) -> tuple[Float[Tensor, "r k1"], Float[Tensor, "r d"]]:
        """As `forward`, of RoIs that are already read from the levels."""
        hidden = self.trunk(pooled)
        return self.scores(hidden), self.deltas(hidden)

    def losses(
        self,
        features: Features,
        images: ImageBatch,
        proposals: Sequence[Proposals],
        targets: Sequence[Targets],
        *,
        generator: Randomness = None,
    ) -> LossTerms:
        """Cross-entropy and the loss of boxes over sampled RoIs, both divided by the number of samples."""
        return self.losses_of(features, images, self.sample(proposals, targets, generator=generator))

    def losses_of(self, features: Features, images: ImageBatch, drawn: Sequence[SampledRoIs]) -> LossTerms:
        """As `losses`, of RoIs that are already sampled."""
        logits, deltas = self(features, images, [each.boxes for each in drawn])
        return self.loss_terms(logits, deltas, drawn)

    @torch.no_grad()
    def sample(
        self, proposals: Sequence[Proposals], targets: Sequence[Targets], *, generator: Randomness = None
    ) -> list[SampledRoIs]:
        """Which RoIs of each image the loss is taken on, and what they should become."""
        sources = per_image(generator, len(targets))
        return [self._draw(p, t, source) for p, t, source in zip(proposals, targets, sources, strict=True)]

    def loss_terms(self, logits: Tensor, deltas: Tensor, drawn: Sequence[SampledRoIs]) -> LossTerms:
        """What `forward` said of sampled RoIs, against what they should become."""
        label = torch.cat([each.labels for each in drawn])
        wanted = torch.cat([each.deltas for each in drawn])
        num_rois = max(len(label), 1)
        classification = functional.cross_entropy(logits.float(), label, reduction="sum") / num_rois
        positive = (label < self.num_classes).nonzero().squeeze(1)
        predicted = self._of_class(deltas.float(), label.clamp(max=self.num_classes - 1))[positive]
        regression = self._box_loss(predicted, wanted, drawn) / num_rois
        correct = (logits.detach().argmax(dim=1) == label).float().mean() if len(label) else logits.new_ones(())
        return LossTerms(
            {"classification": classification, "box": regression},
            {
                "positive_rois": regression.new_tensor(len(positive) / max(len(drawn), 1)).detach(),
                "roi_accuracy": correct.float(),
            },
            dict.fromkeys(("classification", "box"), float(len(label))),
        )

    def _box_loss(self, predicted: Tensor, wanted: Tensor, drawn: Sequence[SampledRoIs]) -> Tensor:
        """Summed over positive RoIs; `wanted` are deltas, so that smooth L1 need not encode again."""
        if self.config.loss == "smooth_l1":
            return self.config.loss_weight * smooth_l1(predicted, wanted, beta=self.config.beta).sum()
        rois = torch.cat([each.boxes[: len(each.deltas)] for each in drawn])
        boxes = self.coder.decode(wanted, rois)
        missed = self.coder.loss(predicted, rois, boxes, kind=self.config.loss, beta=self.config.beta)
        return self.config.loss_weight * missed

    @torch.no_grad()
    def detect(self, features: Features, images: ImageBatch, proposals: Sequence[Proposals]) -> list[Detections]:
        """Each image's detections, best first, clipped to the image, network pixels."""
        rois = [p.boxes for p in proposals]
        logits, deltas = self(features, images, rois)
        return self.select(rois, logits, deltas, images)

    @torch.no_grad()
    def refine(
        self, rois: Sequence[Tensor], logits: Tensor, deltas: Tensor, images: ImageBatch
    ) -> list[Float[Tensor, "_ 4"]]:
        """Each image's RoIs, moved to the box of their best class and clipped: what a next stage begins with."""
        best = logits[:, : self.num_classes].argmax(dim=1)
        moved = self.coder.decode(self._of_class(deltas.float(), best), torch.cat(list(rois)))
        parts = torch.split(moved, [len(boxes) for boxes in rois])
        return [self._clip(boxes, images, index) for index, boxes in enumerate(parts)]

    @torch.no_grad()
    def select(self, rois: Sequence[Tensor], logits: Tensor, deltas: Tensor, images: ImageBatch) -> list[Detections]:
        """What `forward` said of all RoIs -> each image's detections."""
        counts = [len(boxes) for boxes in rois]
        scores = torch.split(logits.float().softmax(dim=1), counts)
        per_class = torch.split(
            deltas.float().reshape(len(deltas), deltas.shape[1] // 4, 4), counts
        )  # each (N, K or 1, 4)
        return [
            self._select(r, s, d, images, index)
            for index, (r, s, d) in enumerate(zip(rois, scores, per_class, strict=True))
        ]

    def candidates(
        self,
        rois: Float[Tensor, "n 4"],
        scores: Float[Tensor, "n k1"],
        deltas: Float[Tensor, "n boxes 4"],
        images: ImageBatch,
        index: int,
    ) -> BoxCandidates:
        """What NMS chooses from in image `index`; `scores` are probabilities, background last."""
        wanted = self.class_scores(scores)
        roi, label = (wanted > self.config.score_limit).nonzero(as_tuple=True)
        delta = deltas[roi, 0 if self.config.class_agnostic else label]
        boxes, score = self.boxes_of(rois[roi], delta, images, index), wanted[roi, label]
        if self.config.min_size is not None:
            large = (boxes[:, 2:] - boxes[:, :2]).amin(dim=1) > self.config.min_size
            boxes, score, label, roi = boxes[large], score[large], label[large], roi[large]
        return BoxCandidates(boxes, score, label, roi)

    def class_scores(self, scores: Float[Tensor, "n k1"]) -> Float[Tensor, "n k"]:
        """Probabilities without background's; -1 for all but a RoI's best class where only that one counts."""
        wanted = scores[:, : self.num_classes]
        if self.config.choice == "best":
            best = scores.argmax(dim=1, keepdim=True)
            wanted = wanted.where(torch.arange(self.num_classes, device=best.device) == best, -1.0)
        return wanted

    def boxes_of(
        self, rois: Float[Tensor, "n 4"], deltas: Float[Tensor, "n 4"], images: ImageBatch, index: int
    ) -> Float[Tensor, "n 4"]:
        """RoIs of image `index`, moved by deltas and clipped."""
        return self._clip(self.coder.decode(deltas, rois), images, index)

    def survivors(self, found: BoxCandidates, images: ImageBatch, index: int) -> Int[Tensor, " k"]:
        """Which candidates of image `index` pass NMS and the limit, best first."""
        return self.suppress(found, images, index)[0]

    def suppress(
        self, found: BoxCandidates, images: ImageBatch, index: int
    ) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
        """As `survivors`, and with which scores: Soft-NMS has lowered some."""
        boxes = found.boxes / self._nms_scale(images, index)
        config = self.config
        same = {"groups": found.labels, "limit": config.limit, "legacy_plus_one": self.coder.legacy_plus_one}
        if config.suppression == "hard":
            kept = nms(boxes, found.scores, config.nms, **same)  # type: ignore[arg-type]
            return kept, found.scores[kept]
        return soft_nms(
            boxes,
            found.scores,
            decay=config.suppression,
            threshold=config.nms,
            sigma=config.nms_sigma,
            lowest=config.nms_lowest,
            **same,  # type: ignore[arg-type]
        )

    def _draw(self, proposals: Proposals, truth: Targets, generator: torch.Generator | None) -> SampledRoIs:
        real = truth[~truth.ignore]
        boxes = torch.cat([proposals.boxes, real.boxes])  # ground truth joins the proposals
        return self.draw(boxes, truth, self.sampler, generator)

    def draw(
        self, boxes: Float[Tensor, "n 4"], truth: Targets, sampler: Sampler, generator: torch.Generator | None
    ) -> SampledRoIs:
        """Which of one image's boxes the loss is taken on, as `sampler` draws them, and what they should become."""
        positive, negative, gt_index = sampler.draw(boxes, truth, generator=generator)
        background = torch.full_like(negative, self.num_classes)
        labels = torch.cat([truth.labels[gt_index], background])
        deltas = self.coder.encode(truth.boxes[gt_index], boxes[positive])
        return SampledRoIs(boxes[torch.cat([positive, negative])], labels, deltas, gt_index)

    def _of_class(self, deltas: Tensor, label: Tensor) -> Tensor:
        """(R, 4K) -> (R, 4): the box of the given class; class-agnostic boxes are the same for all."""
        if self.config.class_agnostic:
            return deltas
        return deltas.reshape(len(deltas), deltas.shape[1] // 4, 4)[
            torch.arange(len(label), device=label.device), label
        ]

    def _select(self, rois: Tensor, scores: Tensor, deltas: Tensor, images: ImageBatch, index: int) -> Detections:
        """Image `index`: (N, 4) RoIs, (N, K+1) scores, (N, K or 1, 4) deltas -> detections."""
        found = self.candidates(rois, scores, deltas, images, index)
        kept, scores = self.suppress(found, images, index)
        return Detections(found.boxes[kept], scores, found.labels[kept])

    def _clip(self, boxes: Tensor, images: ImageBatch, index: int) -> Tensor:
        if images.windows is None:
            return self.coder.clip(boxes, images.sizes[index, 0], images.sizes[index, 1])
        window = images.windows[index]
        return torch.minimum(torch.maximum(boxes, window[:2].repeat(2)), window[2:].repeat(2))

    def _nms_scale(self, images: ImageBatch, index: int) -> Tensor:
        if self.config.nms_frame == "network" or images.scales is None:
            return images.pixels.new_ones(4, dtype=torch.float32)
        return images.scales[index].flip(0).repeat(2)  # (y, x) -> (x, y, x, y)

    def class_rows(self) -> list[ClassRows]:
        """The layers with rows by class: logits with background behind them, and boxes unless all classes share one."""
        boxes = [] if self.config.class_agnostic else [ClassRows(self.deltas, each=4)]
        return [ClassRows(self.scores, others=1), *boxes]

    def rewrite(self) -> None:
        """Take the faster form, which only detects."""
        if isinstance(self.trunk, FlatTrunk):
            self.trunk.read_channels_last(self.pooler.config.output_size)
