"""What the heads of one-stage detectors share: two towers on every level, and what is behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fpn.heads.class_rows import ClassRows
from fpn.heads.dense import DenseConfig, DenseHead
from fpn.heads.dense_losses import Learned, Normalizer, flat, focal_sums, gather_learned
from fpn.heads.dense_selection import DenseCandidates, DenseMaps, Scoring, pick_candidates, suppress_candidates
from fpn.heads.sampling import Randomness
from fpn.heads.tower import Tower, initialize_output
from fpn.ops.matching import Match
from fpn.ops.shared_convolution import convolve_levels
from fpn.structures import Detections, Features, ImageBatch, Level, LossTerms, Targets

# Which tower says how good a box is, if one does.
QualityBranch: TypeAlias = Literal["none", "classes", "boxes"]


class TowerHead(DenseHead):
    """A tower for classes and one for boxes, the same on all levels, and an output layer behind each.

    A kind of head says what boxes are relative to (`references`, `decode`), who learns what (`assign`) and how boxes
    are learned (`box_terms`).

    Args:
        levels: the levels it reads, finest first; all of one width.
        num_classes: K, background not counted: it has no logit.
        per_cell: boxes of a cell.
        config: towers, losses and limits.
        quality: which tower says how good a box is.
        scaled: each level multiplies its deltas by a number of its own, which is learned.
    """

    scoring: Scoring = "class"

    def __init__(
        self,
        *,
        levels: Sequence[Level],
        num_classes: int,
        per_cell: int,
        config: DenseConfig,
        quality: QualityBranch = "none",
        scaled: bool = False,
    ) -> None:
        super().__init__()
        (width,) = {level.channels for level in levels}
        self.levels, self.num_classes, self.per_cell = tuple(levels), num_classes, per_cell
        self.settings, self.quality_of = config, quality
        self.class_tower = Tower(width=width, config=config)
        self.box_tower = Tower(width=width, config=config)
        self.scores = nn.Conv2d(width, per_cell * num_classes, 3, padding=1)
        self.deltas = nn.Conv2d(width, per_cell * 4, 3, padding=1)
        self.quality = None if quality == "none" else nn.Conv2d(width, per_cell, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(levels))) if scaled else None
        self.normalizer = Normalizer(config)
        for layer in (self.scores, self.deltas, *([] if self.quality is None else [self.quality])):
            initialize_output(layer)
        assert self.scores.bias is not None, "made above"
        nn.init.constant_(self.scores.bias, -math.log((1 - config.prior) / config.prior))

    def forward(self, features: Features) -> tuple[Tensor, ...]:
        """Logits of all levels, then deltas, then quality where there is such a branch; see `DenseMaps`."""
        maps = [features[level.name] for level in self.levels]
        classes = self.class_tower(maps)
        logits = convolve_levels(self.scores, classes)
        quality = self._judge(classes) if self.quality_of == "classes" else []
        del classes  # without gradients the other tower needs their memory no more
        boxes = self.box_tower(maps)
        deltas = [self.deltas(x) for x in boxes]
        if self.scales is not None:
            deltas = [delta * scale for delta, scale in zip(deltas, self.scales, strict=True)]
        quality = self._judge(boxes) if self.quality_of == "boxes" else quality
        return (*logits, *deltas, *quality)

    def _judge(self, maps: Sequence[Tensor]) -> list[Tensor]:
        assert self.quality is not None, "made where it is asked for"
        return [self.quality(x) for x in maps]

    def maps(self, raw: tuple[Tensor, ...]) -> DenseMaps:
        """What `forward` gave, by meaning."""
        count = len(self.levels)
        return DenseMaps(raw[:count], raw[count : 2 * count], raw[2 * count :])

    def references(self, maps: DenseMaps, images: ImageBatch) -> list[Tensor]:
        """Of each level (H*W*A, r): what deltas are relative to, network pixels."""
        raise NotImplementedError

    def decode(self, deltas: Float[Tensor, "n 4"], references: Float[Tensor, "n r"]) -> Float[Tensor, "n 4"]:
        """Boxes that deltas lead to."""
        raise NotImplementedError

    def assign(self, references: Sequence[Tensor], truth: Targets, size: Tensor) -> Match:
        """Who of the references of all levels learns what in an image of `size` (height, width)."""
        raise NotImplementedError

    def box_terms(
        self, deltas: Float[Tensor, "p 4"], quality: Tensor | None, references: Float[Tensor, "p r"], learned: Learned
    ) -> LossTerms:
        """Terms of what positive places say of their boxes.

        Args:
            deltas: of the P positive places.
            quality: (P,) logits; None: there is no such branch.
            references: of these places.
            learned: what they learn.
        """
        raise NotImplementedError

    def losses(
        self,
        raw: tuple[Tensor, ...],
        images: ImageBatch,
        targets: Sequence[Targets],
        *,
        generator: Randomness = None,
    ) -> LossTerms:
        """Focal loss over all places that take part, and the terms of boxes over the positive ones."""
        maps = self.maps(raw)
        references = self.references(maps, images)
        matches = [self.assign(references, truth, size) for truth, size in zip(targets, images.sizes, strict=True)]
        learned = gather_learned(matches, targets)
        self.normalizer.see(learned.counts)
        deltas = flat(maps.deltas, 4)[learned.image, learned.place]
        quality = flat(maps.quality, 1)[learned.image, learned.place].squeeze(1) if maps.quality else None
        sums = focal_sums(maps, learned, self.settings)
        samples = self.normalizer.samples(learned.counts)
        classes = LossTerms(
            {"classification": self.normalizer(sums, learned.counts)},
            {"positives": sums.new_tensor(len(learned.place) / max(len(targets), 1)).detach()},
            {} if samples is None else {"classification": samples},
        )
        return classes + self.box_terms(deltas, quality, torch.cat(references)[learned.place], learned)

    def term(self, name: str, sums: Float[Tensor, " b"], learned: Learned) -> LossTerms:
        """Each image's sum as one term, divided as the classification's is."""
        samples = self.normalizer.samples(learned.counts)
        value = self.normalizer(sums, learned.counts)
        return LossTerms({name: value}, samples={} if samples is None else {name: samples})

    @torch.no_grad()
    def detect(self, raw: tuple[Tensor, ...], images: ImageBatch) -> list[Detections]:
        """See `DenseHead.detect`."""
        maps = self.maps(raw)
        references = self.references(maps, images)
        found = [
            self.suppress(self.candidates(maps, references, images, k), images, k) for k in range(len(images.sizes))
        ]
        return [Detections(each.boxes, each.scores, each.labels) for each in found]

    def candidates(
        self, maps: DenseMaps, references: Sequence[Tensor], images: ImageBatch, index: int
    ) -> DenseCandidates:
        """What NMS chooses from in image number `index`."""
        return pick_candidates(maps, references, self.decode, images, index, config=self.settings, scoring=self.scoring)

    def suppress(self, found: DenseCandidates, images: ImageBatch, index: int) -> DenseCandidates:
        """What NMS and the limit leave of them, best first."""
        return suppress_candidates(found, images, index, self.settings)

    def class_rows(self) -> list[ClassRows]:
        """See `DenseHead.class_rows`: the classes come once for each box of a cell."""
        return [ClassRows(self.scores, groups=self.per_cell)]

    def rewrite(self, fuse: Callable[[nn.Conv2d, nn.Module], nn.Module]) -> None:
        """See `DenseHead.rewrite`."""
        for tower in (self.class_tower, self.box_tower):
            tower.rewrite(fuse)


def weighted_mean(name: str, values: Float[Tensor, " p"], weights: Float[Tensor, " p"], *, floor: float) -> LossTerms:
    """A term whose values weigh differently: their sum by the weights', which is taken as `floor` at least."""
    total = weights.sum().clamp(min=floor)
    return LossTerms({name: (values * weights).sum() / total}, samples={name: float(total)})
