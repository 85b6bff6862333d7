"""Segment proposals: small windows slide over every level and say whether an object fills them, and where.

Source: Lin et al. 2017, arXiv:1612.03144, section 6 and appendix A; what a window learns: DeepMask, arXiv:1506.06204.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple, TypeAlias, cast

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from fpn.errors import DataError
from fpn.heads.sampling import Randomness, per_image
from fpn.heads.tower import initialize_output
from fpn.ops.boxes import clip
from fpn.ops.losses import binary_cross_entropy
from fpn.ops.masks import boxes_of_grids
from fpn.ops.matching import sample
from fpn.ops.matrix_products import linear
from fpn.ops.nms import nms, top_k
from fpn.ops.windows import Grid, cut_windows, locate_windows, match_windows, window_centres
from fpn.sections import Fraction, NotNegative, Positive, Section
from fpn.structures import Detections, Features, ImageBatch, Level, LossTerms, Targets

Fuse: TypeAlias = Callable[[nn.Conv2d, nn.Module], nn.Module]
# A window of 5 cells is for objects of 8 strides: of 32 pixels on P2.
_PLAIN_SIDE, _PLAIN_SCALE = 5, 8.0
WindowSide = Annotated[int, Field(ge=1, le=31)]


class SegmentConfig(Section):
    """Section `segments`: which windows slide over the levels, what they learn, and how proposals are chosen."""

    windows: Annotated[tuple[WindowSide, ...], Field(min_length=1)] = Field(
        default=(5, 7),
        description="Sides of the windows, in cells, odd. One of 5 is for objects of 8 strides, others in proportion, "
        "to the nearest half octave: 7 for those of 8 * sqrt(2) strides.",
    )
    width: Positive[int] = Field(default=512, description="Outputs of the layer that reads a window.")
    mask_size: Annotated[int, Field(ge=2, le=128)] = Field(
        default=14, description="Side of a mask, in cells. 28 finds large objects better (paper, table 6)."
    )
    padding: NotNegative[float] = Field(
        default=0.25,
        description="How much longer than the objects' side the side of the image region is that a mask shows.",
    )
    reach: Annotated[float, Field(gt=0, le=16)] = Field(
        default=1.0, description="Cells from a window's centre to the centre of the object it learns, at most."
    )
    samples: Positive[int] = Field(default=128, description="Windows drawn an image in training.")
    positive_fraction: Fraction = Field(default=0.25, description="At most this part of them have an object.")
    mask_weight: NotNegative[float] = Field(default=10.0, description="Factor of the masks' loss.")
    before_nms: Positive[int] = Field(
        default=1000, description="Top-k by score of an image's windows; only their masks are computed."
    )
    nms: Fraction | None = Field(
        default=None, description="IoU of boxes above which a worse proposal is dropped; None: none is (paper)."
    )
    limit: Positive[int] = Field(default=1000, description="Proposals an image.")

    @model_validator(mode="after")
    def _odd(self) -> SegmentConfig:
        if len(set(self.windows)) != len(self.windows) or not all(side % 2 for side in self.windows):
            raise ValueError(f"windows {self.windows}: expected different odd numbers of cells, such as 5 and 7")
        return self

    def scale(self, window: int) -> float:
        """Longer side of the objects that a window of so many cells is for, in strides."""
        return _PLAIN_SCALE * math.sqrt(2) ** round(2 * math.log2(window / _PLAIN_SIDE))


class WindowHead(nn.Module):
    """What looks through windows of one size: one layer that sees all of a window, and two on its outputs.

    Args:
        side: of the windows, in cells.
        channels: of the maps.
        config: widths.
    """

    def __init__(self, *, side: int, channels: int, config: SegmentConfig) -> None:
        super().__init__()
        self.side, self.mask_size = side, config.mask_size
        self.hidden = nn.Conv2d(channels, config.width, side, padding=side // 2)
        self.activation: nn.Module = nn.ReLU()
        self.objectness = nn.Conv2d(config.width, 1, 1)
        self.mask = nn.Conv2d(config.width, config.mask_size**2, 1)
        nn.init.kaiming_normal_(self.hidden.weight, nonlinearity="relu")
        assert self.hidden.bias is not None, "made with one"
        nn.init.zeros_(self.hidden.bias)
        for layer in (self.objectness, self.mask):
            initialize_output(layer)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """Objectness logits of a window around each cell."""
        return self.read(x)[1]

    def read(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "b 1 h w"]]:
        """What the first layer says of a window around each cell, and its objectness logit."""
        hidden: Tensor = self.activation(self.hidden(x))
        return hidden, self.objectness(hidden)

    def judge(self, patches: Float[Tensor, "n c w w"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n s s"]]:
        """Logits of the objectness and of the mask of windows that are cut out."""
        hidden = _product(self.hidden, patches.flatten(1)).relu()
        return _product(self.objectness, hidden).flatten(), self.show(hidden)

    def show(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n s s"]:
        """Logits of the masks of windows that the first layer said this of."""
        return _product(self.mask, hidden).view(len(hidden), self.mask_size, self.mask_size)

    def rewrite(self, fuse: Fuse) -> None:
        """Put the activation into the convolution before it; `fuse` makes one of both."""
        self.hidden, self.activation = fuse(self.hidden, nn.ReLU()), nn.Identity()  # type: ignore[assignment]


def _product(layer: nn.Module, rows: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
    """What a convolution says of patches as large as its kernel: as a matrix product twice as fast."""
    weight, bias = cast(Tensor, layer.weight), cast("Tensor | None", layer.bias)
    return linear(rows, weight.flatten(1), bias)


class _Best(NamedTuple):
    """The best windows of each image up to now; k of them, best first.

    Attributes:
        scores: (B, k) -1 of those whose centre is beyond the image.
        place: (B, k) their own numbers.
        kind: (B, k) number of their size.
        hidden: (B, k, d) what the first layer said of them.
    """

    scores: Tensor
    place: Tensor
    kind: Tensor
    hidden: Tensor

    def pick(self, order: Tensor) -> _Best:
        """Some of each image's."""
        image = torch.arange(len(order), device=order.device)[:, None]
        return _Best(*(each[image, order] for each in self))


class _Drawn(NamedTuple):
    """The windows of a batch that a loss is taken on.

    Attributes:
        image: (k,) the number of each one's image.
        place: (k,) its own number among that image's windows.
        wanted: (k,) 1 if it has an object, else 0.
        masks: (p, s, s) what those with an object should show, in their order.
    """

    image: Tensor
    place: Tensor
    wanted: Tensor
    masks: Tensor


class SegmentHead(nn.Module):
    """Slides windows over every level, with the same weights on all of them.

    Windows are numbered level by level, finest first; on a level size by size; and of a size in the order y, x.

    Args:
        levels: the levels it reads, finest first; all of one width.
        config: everything else.
    """

    def __init__(self, *, levels: Sequence[Level], config: SegmentConfig) -> None:
        super().__init__()
        (channels,) = {level.channels for level in levels}
        self.levels, self.config = tuple(levels), config
        self.windows = nn.ModuleList(WindowHead(side=side, channels=channels, config=config) for side in config.windows)

    def forward(self, features: Features) -> tuple[Tensor, ...]:
        """Objectness logits of all windows, each (B, 1, H, W). Masks are left for those that are chosen by them."""
        return tuple(window(features[level.name]) for level in self.levels for window in self.windows)

    def grids(self, features: Features) -> list[Grid]:
        """Where the windows of each size stand on each level."""
        return [
            Grid(height, width, level.stride, self.config.scale(side) * level.stride)
            for level in self.levels
            for height, width in [features[level.name].shape[2:]]
            for side in self.config.windows
        ]

    def losses(
        self, features: Features, images: ImageBatch, targets: Sequence[Targets], *, generator: Randomness = None
    ) -> LossTerms:
        """Binary cross-entropy: of the score over all windows that are drawn, of the mask over those with an object.

        Only these windows are looked through, which gives what the convolution of whole maps would give there.

        Raises:
            DataError: an object to learn comes without a mask.
        """
        grids = self.grids(features)
        drawn = self._draw(grids, images, targets, generator)
        objectness, masks = self.look(features, grids, drawn.image, drawn.place)
        shown = masks[drawn.wanted == 1].float()
        score = binary_cross_entropy(objectness, drawn.wanted)
        mask = binary_cross_entropy(shown, drawn.masks)
        positives = len(drawn.masks)
        right = ((shown.detach() > 0) == (drawn.masks >= 0.5)).float()
        return LossTerms(
            {
                "objectness": score.mean() if len(score) else objectness.sum() * 0,
                "mask": self.config.mask_weight * mask.mean() if positives else masks.sum() * 0,
            },
            {
                "positive_windows": right.new_tensor(positives / max(1, len(targets))),
                "mask_accuracy": right.mean() if positives else right.new_ones(()),
            },
            {"objectness": float(len(score)), "mask": float(positives)},
        )

    def look(self, features: Features, grids: Sequence[Grid], image: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the objectness (k,) and the masks (k, s, s) of some windows.

        Args:
            features, grids: of the batch.
            image: (k,) numbers of their images.
            place: (k,) their own numbers.
        """
        owner, y, x = locate_windows(grids, place)
        order: list[Tensor] = []
        objectness: list[Tensor] = []
        masks: list[Tensor] = []
        for number, window in enumerate(self.windows):
            assert isinstance(window, WindowHead), "made above"
            patches = []
            for step, level in enumerate(self.levels):
                mine = (owner == step * len(self.windows) + number).nonzero().squeeze(1)
                order.append(mine)
                patches.append(cut_windows(features[level.name], image[mine], y[mine], x[mine], window.side))
            for logits, found in zip((objectness, masks), window.judge(torch.cat(patches)), strict=True):
                logits.append(found)
        back = torch.cat(order).argsort()
        return torch.cat(objectness)[back], torch.cat(masks)[back]

    @torch.no_grad()
    def detect(self, features: Features, images: ImageBatch) -> list[Detections]:
        """Each image's proposals, best first, with what each one's mask shows, network pixels.

        What the first layer says is kept of the best windows alone, so that their masks need not look again, and only
        what it says of one size on one level is in memory as a whole.
        """
        grids = self.grids(features)
        inside, regions = self._inside(grids, images), self.regions(grids, images.pixels.device)
        best, start = None, 0
        for level in self.levels:
            for kind, window in enumerate(self.windows):
                assert isinstance(window, WindowHead), "made above"
                hidden, logits = window.read(features[level.name])
                scores = logits.flatten(1).float().sigmoid()
                here = inside[:, start : start + scores.shape[1]]
                best = self._better(best, scores.where(here, -1), hidden, start, kind)
                start += scores.shape[1]
        assert best is not None, "there are levels and windows"
        found = []
        for number, size in enumerate(images.sizes):
            count = int((best.scores[number] >= 0).sum())  # those beyond the image are last
            scores, place, kinds, rows = (each[number, :count] for each in best)
            found.append(self._choose(scores, self._shown(rows, kinds), regions[place], size))
        return found

    @torch.no_grad()
    def choose(self, features: Features, objectness: Sequence[Tensor], images: ImageBatch) -> list[Detections]:
        """What `detect` gives, where scores are there already: the best windows are looked through again.

        Args:
            features: what `forward` was given.
            objectness: what it gave.
            images: the batch.
        """
        grids = self.grids(features)
        insides, regions = self._inside(grids, images), self.regions(grids, images.pixels.device)
        scores = torch.cat([logits.flatten(1) for logits in objectness], dim=1).float().sigmoid()
        found = []
        for number, size in enumerate(images.sizes):
            inside = insides[number].nonzero().squeeze(1)
            best, order = top_k(scores[number, inside], self.config.before_nms)
            place = inside[order]
            own = {name: maps[number : number + 1] for name, maps in features.items()}
            _, masks = self.look(own, grids, torch.zeros_like(place), place)
            found.append(self._choose(best, masks.float().sigmoid(), regions[place], size))
        return found

    def _inside(self, grids: Sequence[Grid], images: ImageBatch) -> Bool[Tensor, "b n"]:
        """Which windows have their centre in each image."""
        centres = window_centres(grids, images.pixels.device)
        return (centres < images.sizes.flip(1)[:, None].to(centres.device)).all(dim=2)

    def _better(self, best: _Best | None, scores: Tensor, hidden: Tensor, start: int, kind: int) -> _Best:
        """The best ones up to now and those of one grid, of which the first has number `start`: the best of both."""
        values, order = top_k(scores, self.config.before_nms)
        image = torch.arange(len(order), device=order.device)[:, None]
        rows = hidden.permute(0, 2, 3, 1).flatten(1, 2)[image, order]
        new = _Best(values, start + order, torch.full_like(order, kind), rows)
        if best is None:
            return new
        both = _Best(*(torch.cat(pair, dim=1) for pair in zip(best, new, strict=True)))
        return both.pick(top_k(both.scores, self.config.before_nms)[1])

    def _shown(self, rows: Tensor, kinds: Tensor) -> Float[Tensor, "n s s"]:
        """What the masks of one image's best windows show, as probabilities."""
        masks = rows.new_empty(len(rows), self.config.mask_size, self.config.mask_size, dtype=torch.float32)
        for kind, window in enumerate(self.windows):
            assert isinstance(window, WindowHead), "made above"
            mine = (kinds == kind).nonzero().squeeze(1)
            masks[mine] = window.show(rows[mine]).float().sigmoid()
        return masks

    def regions(self, grids: Sequence[Grid], device: torch.device) -> Float[Tensor, "n 4"]:
        """Which part of the image the mask of each window shows, xyxy, pixels; may reach out of the image."""
        halves = [
            torch.full((grid.height * grid.width, 1), grid.scale * (1 + self.config.padding) / 2, device=device)
            for grid in grids
        ]
        centres, half = window_centres(grids, device), torch.cat(halves)
        return torch.cat([centres - half, centres + half], dim=1)

    def rewrite(self, fuse: Fuse) -> None:
        """Put convolutions with the activations behind them into one; `fuse` makes it."""
        for window in self.windows:
            assert isinstance(window, WindowHead), "made above"
            window.rewrite(fuse)

    def _choose(self, scores: Tensor, masks: Tensor, regions: Tensor, size: Tensor) -> Detections:
        """Those with a mask in an image of `size` (height, width) that do not overlap a better one too much."""
        boxes = clip(boxes_of_grids(masks, regions), size[0], size[1])
        kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1).nonzero().squeeze(1)
        if self.config.nms is not None:
            kept = kept[nms(boxes[kept], scores[kept], self.config.nms, limit=self.config.limit)]
        kept = kept[: self.config.limit]
        return Detections(
            boxes[kept],
            scores[kept],
            torch.zeros_like(kept),
            mask_probabilities=masks[kept],
            mask_regions=regions[kept],
        )

    @torch.no_grad()
    def _draw(
        self, grids: Sequence[Grid], images: ImageBatch, targets: Sequence[Targets], generator: Randomness
    ) -> _Drawn:
        """Some windows with an object and others without, of each image."""
        centres, regions = window_centres(grids, images.pixels.device), self.regions(grids, images.pixels.device)
        parts = []
        for number, (truth, source) in enumerate(zip(targets, per_image(generator, len(targets)), strict=True)):
            match = match_windows(grids, truth.boxes, truth.ignore, reach=self.config.reach)
            inside = (centres < images.sizes[number].flip(0)).all(dim=1)
            positive, negative = sample(
                match.kind.where(inside, -1),
                count=self.config.samples,
                positive_fraction=self.config.positive_fraction,
                generator=source,
            )
            place = torch.cat([positive, negative])
            wanted = torch.cat([torch.ones_like(positive), torch.zeros_like(negative)]).float()
            masks = self._targets(truth, match.gt_index[positive], regions[positive])
            parts.append((torch.full_like(place, number), place, wanted, masks))
        return _Drawn(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def _targets(self, truth: Targets, which: Tensor, regions: Tensor) -> Float[Tensor, "p s s"]:
        size = self.config.mask_size
        if not len(which):
            return regions.new_zeros(0, size, size)
        if truth.masks is None:
            raise DataError("a detector of segments can't learn from objects without them: label outlines")
        return truth.masks[which].crop(regions, size)
