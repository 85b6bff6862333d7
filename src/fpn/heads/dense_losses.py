"""What a dense head's losses are made of: who learns what, focal loss over all levels, and what sums are divided by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn

from fpn.heads.dense import DenseConfig
from fpn.heads.dense_selection import DenseMaps
from fpn.ops.focal_sums import background_sums
from fpn.ops.losses import focal_of_background, focal_of_objects
from fpn.ops.matching import Match
from fpn.structures import Targets

# Of the normaliser of one step, what is kept in the next.
_KEPT = 0.9


class Learned(NamedTuple):
    """What the places of a batch learn; P of them an object.

    Attributes:
        takes_part: (B, N) bool, places that learn something.
        image: (P,), which image each positive place is of.
        place: (P,), its number among the N of all levels, finest first.
        boxes: (P, 4), its object's.
        labels: (P,), its object's.
        counts: of each image, how many are positive.
    """

    takes_part: Tensor
    image: Tensor
    place: Tensor
    boxes: Tensor
    labels: Tensor
    counts: list[int]


def gather_learned(matches: Sequence[Match], targets: Sequence[Targets]) -> Learned:
    """Matches of B images together."""
    places = [(each.kind == 1).nonzero().squeeze(1) for each in matches]
    objects = [each.gt_index[place] for each, place in zip(matches, places, strict=True)]
    return Learned(
        takes_part=torch.stack([each.kind >= 0 for each in matches]),
        image=torch.cat([torch.full_like(place, number) for number, place in enumerate(places)]),
        place=torch.cat(places),
        boxes=torch.cat([truth.boxes[chosen] for truth, chosen in zip(targets, objects, strict=True)]),
        labels=torch.cat([truth.labels[chosen] for truth, chosen in zip(targets, objects, strict=True)]),
        counts=[len(place) for place in places],
    )


def focal_sums(maps: DenseMaps, learned: Learned, config: DenseConfig) -> Float[Tensor, " b"]:
    """Focal loss of each image, summed over places that take part and classes.

    Maps stay as they are: all is taken as background first, a sum over the classes a place, and what is an object's is
    put right behind. With 9 anchors and 80 classes at 800 x 1344 there are 19 million logits an image.
    """
    alpha, gamma = config.alpha, config.gamma
    every = [
        background_sums(logits, anchors=deltas.shape[1] // 4, alpha=alpha, gamma=gamma)
        for logits, deltas in zip(maps.logits, maps.deltas, strict=True)
    ]
    sums = (torch.cat(every, dim=1) * learned.takes_part).sum(dim=1)
    picked = logits_of(maps, learned)
    objects = focal_of_objects(picked, alpha=alpha, gamma=gamma) - focal_of_background(picked, alpha=alpha, gamma=gamma)
    return sums_by_image(objects, learned) + sums


def logits_of(maps: DenseMaps, learned: Learned) -> Float[Tensor, " p"]:
    """What each positive place says of its object's class."""
    found, start = learned.place.new_zeros(len(learned.place), dtype=torch.float32), 0
    for logits, deltas in zip(maps.logits, maps.deltas, strict=True):
        width, anchors = logits.shape[3], deltas.shape[1] // 4
        count = logits.shape[2] * width * anchors
        own = (learned.place - start).clamp(0, count - 1)
        cell, channel = own // anchors, own % anchors * (logits.shape[1] // anchors) + learned.labels
        here = logits[learned.image, channel, cell // width, cell % width].float()
        found = torch.where((learned.place >= start) & (learned.place < start + count), here, found)
        start += count
    return found


def flat(maps: Sequence[Tensor], size: int) -> Float[Tensor, "b n size"]:
    """(B, A*size, H, W) of all levels -> (B, N, size) in the order level, y, x, anchor."""
    each = [x.reshape(len(x), -1, size, *x.shape[2:]).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in maps]
    return torch.cat(each, dim=1).float()


def sums_by_image(values: Float[Tensor, " p"], learned: Learned) -> Float[Tensor, " b"]:
    """The sum of each image's positive places."""
    return torch.stack([part.sum() for part in torch.split(values, learned.counts)])


class Normalizer(nn.Module):
    """Divides sums of losses; see `DenseConfig.normalizer`.

    Attributes:
        mean: () the average that "ema" keeps from step to step, in training alone; None: another kind.
        share: images of a batch for each of them that this process has, if several train together; 1 alone.
    """

    mean: Tensor | None

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        self.kind = config.normalizer
        self.share = 1.0
        self.register_buffer("mean", torch.tensor(config.normalizer_start) if self.kind == "ema" else None)

    def see(self, counts: Sequence[int]) -> None:
        """Take a batch, with the parts of it that other processes have, into the average: how many places are positive.

        Args:
            counts: how many are, of each image that this process has.
        """
        self.share = 1.0
        if self.mean is not None and self.training:
            positives, images = _over_processes(sum(counts), len(counts), device=self.mean.device)
            self.share = images / max(len(counts), 1)
            with torch.no_grad():
                self.mean.mul_(_KEPT).add_((1 - _KEPT) * max(positives, 1))

    def forward(self, sums: Float[Tensor, " b"], counts: Sequence[int]) -> Float[Tensor, ""]:
        """Each image's sum -> one number."""
        match self.kind:
            case "batch":
                return sums.sum() / max(sum(counts), 1)
            case "images":
                return sums.sum() / sum(max(count, 1) for count in counts)
            case "image":
                return torch.stack([each / max(count, 1) for each, count in zip(sums, counts, strict=True)]).mean()
            case "ema":
                assert self.mean is not None, "made above"
                # The mean over processes, weighted by their images, then is what one with all images would have.
                return sums.sum() / self.mean * self.share

    def samples(self, counts: Sequence[int]) -> float | None:
        """How many samples `forward` gives the mean of; None: it is the mean over images."""
        match self.kind:
            case "batch":
                return float(max(sum(counts), 1))
            case "images":
                return float(sum(max(count, 1) for count in counts))
            case "image" | "ema":
                return None


def _over_processes(*numbers: int, device: torch.device) -> list[int]:
    """Their sums over all processes that train together; alone, they themselves."""
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return list(numbers)
    sums = torch.tensor(numbers, dtype=torch.int64, device=device)
    distributed.all_reduce(sums)
    return [int(each) for each in sums.tolist()]


def centre_offsets(points: Float[Tensor, "p 2"], boxes: Float[Tensor, "p 4"]) -> Float[Tensor, "p 4"]:
    """Distances of each point to the sides of its box: left, top, right, bottom, pixels."""
    return torch.cat([points - boxes[:, :2], boxes[:, 2:] - points], dim=1)


def centreness(offsets: Float[Tensor, "p 4"]) -> Float[Tensor, " p"]:
    """1 in the middle of a box, 0 at its rim.

    Source: Tian et al. 2019, arXiv:1904.01355, equation 3.
    """
    pairs = offsets.reshape(-1, 2, 2)  # (left, top), (right, bottom)
    ratios: Tensor = pairs.amin(dim=1) / pairs.amax(dim=1).clamp(min=1e-12)
    return ratios.clamp(min=0).prod(dim=1).sqrt()
