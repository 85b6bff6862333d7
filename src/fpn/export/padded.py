"""Steps of a detector whose shapes no value decides: what is missing is padding of a score that says so."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import roi_align

from fpn.errors import ConfigError
from fpn.heads.box_coder import BoxCoder
from fpn.heads.roi_pooler import RoIPooler
from fpn.shapes import Size
from fpn.structures import Features

# Height of the bands in which RoIs are read from left to right, network pixels.
_BAND = 32
# No level gets more RoIs.
_MOST_ROIS = 2**31 - 1


class Frames(NamedTuple):
    """Where B images lie.

    Attributes:
        sizes: (B, 2) int64, height and width before padding, network pixels.
        padded: height and width of all, numbers that are still open.
    """

    sizes: Tensor
    padded: Size


class PaddedDetections(NamedTuple):
    """At most D detections of each of B images, best first; network pixels.

    Attributes:
        boxes: (B, D, 4) xyxy, 0 where there are no more.
        scores: (B, D), 0 where there are no more.
        labels: (B, D) int64, -1 where there are no more.
        masks: (B, D, S, S) what a mask head says on the grid of each box, or None.
        keypoints: (B, D, J, 3) x, y, score, or None.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None
    keypoints: Tensor | None = None

    @property
    def valid(self) -> Tensor:
        """(B, D) which there are."""
        return self.labels >= 0


class Compact(NamedTuple):
    """The RoIs that there are, of all images together.

    Attributes:
        place: (R,) of each among B * P.
        image: (R,) which image it is in.
        boxes: (R, 4).
    """

    place: Tensor
    image: Tensor
    boxes: Tensor

    def at(self, index: Tensor) -> Compact:
        """Some of them, or in another order."""
        return Compact(self.place[index], self.image[index], self.boxes[index])


def pick(values: Tensor, place: Tensor) -> Tensor:
    """(B, n, v) -> (B, k, v), those at (B, k) places."""
    return values.gather(1, place[..., None].expand(-1, -1, values.shape[2]))


def compact(boxes: Tensor, valid: Tensor) -> Compact:
    """Of (B, P, 4) boxes those that (B, P) are valid."""
    place = valid.flatten().nonzero().squeeze(1)
    return Compact(place, place // boxes.shape[1], boxes.flatten(0, 1)[place])


def by_place(chosen: Compact, padded: Size) -> Compact:
    """The same RoIs from top to bottom: neighbours are read one after the other, while their pixels are in the cache.

    ONNX Runtime reads 1000 RoIs of a map of 200x272 cells in half of the time so (two cores of an AMD EPYC).
    """
    across, down = (chosen.boxes[:, axis].to(torch.int64).clamp(min=0) for axis in (0, 1))
    bands = padded.height // _BAND + 1
    key = (chosen.image * bands + (down // _BAND).clamp(max=bands - 1)) * (padded.width + 1) + across
    return chosen.at(key.argsort())


def spread(values: Tensor, chosen: Compact, like: Tensor, fill: float = 0.0) -> Tensor:
    """(R, ...) values -> (B, P, ...) as `like` (B, P), `fill` where no RoI is."""
    images, boxes = like.shape[:2]
    whole = values.new_full((images * boxes, *values.shape[1:]), fill).index_copy(0, chosen.place, values)
    return whole.reshape(images, boxes, *values.shape[1:])


def clip_to_sizes(coder: BoxCoder, boxes: Tensor, sizes: Tensor) -> Tensor:
    """(..., 4) boxes cut off at the rim of images of `sizes` (..., 2)."""
    return coder.clip(boxes, sizes[..., 0], sizes[..., 1])


def check_pooler(pooler: RoIPooler, multiple: int) -> None:
    """Stop where RoIs are read in a way that no graph holds.

    Args:
        pooler: reads RoIs.
        multiple: padded sides of images are multiples of this.

    Raises:
        ConfigError: it reads them another way.
    """
    config = pooler.config
    if config.sampler != "align":
        raise ConfigError(f"roi.sampler is {config.sampler!r}: only RoIAlign (align) can be exported")
    if config.size_relative or config.scale == "first_height":
        raise ConfigError("roi.size_relative and roi.scale 'first_height' can't be exported: they depend on the batch")
    if any(multiple % level.stride for level in pooler.levels):
        raise ConfigError(
            f"pixels.size_multiple {multiple}: is no multiple of a stride that RoIs are read with, so the maps' sizes "
            "depend on the image's remainder. Export a detector with 32."
        )


def pool(pooler: RoIPooler, features: Features, chosen: Compact) -> tuple[Tensor, Compact, Tensor | None]:
    """Each RoI read from its level by the runtime's own RoIAlign.

    Returns:
        (R, C, S, S) of the RoIs, level after level: to put what was read back in their order would copy all of it
        twice; the RoIs in that order; and (R,) which of those that came each of them is, None: they stay as they are.
    """
    config = pooler.config
    side, ratio = config.output_size, config.sampling_ratio
    if len(pooler.levels) == 1:
        (level,) = pooler.levels
        pooled = _align(features[level.name], _rois(chosen), 1 / level.stride, side, ratio, config.aligned)
        return pooled, chosen, None
    assigned = pooler.assign(chosen.boxes)
    places = [(assigned == number).nonzero().squeeze(1) for number in range(len(pooler.levels))]
    for place in places:
        torch._check(place.shape[0] <= _MOST_ROIS)  # else their sum has no bound that fits into 64 bits
    parts = [
        _align(features[level.name], _rois(chosen.at(place)), 1 / level.stride, side, ratio, config.aligned)
        for level, place in zip(pooler.levels, places, strict=True)
    ]
    order = torch.cat(places)
    return torch.cat(parts), chosen.at(order), order


def _rois(chosen: Compact) -> Tensor:
    """(R, 5) number of the image, x1, y1, x2, y2."""
    return torch.cat([chosen.image[:, None].to(torch.float32), chosen.boxes], dim=1)


def _align(map_: Tensor, rois: Tensor, scale: float, side: int, ratio: int, aligned: bool) -> Tensor:
    pooled: Tensor = roi_align(map_, rois, side, scale, ratio, aligned)
    return pooled
