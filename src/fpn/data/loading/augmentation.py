"""Random flips, zoom and colour for training: the same images for the same (seed, epoch, index), whoever asks.

Zooming in cuts out a part, zooming out lays the image on a larger ground; neither resamples, because the detector's
preprocessor resizes to the network's size right after. So one interpolation happens, not two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageStat
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as transforms

from fpn.data.dataset import Sample
from fpn.errors import ConfigError
from fpn.shapes import Size
from fpn.structures import Skeleton, Targets
from fpn.structures.keypoints import cut_keypoints, flip_keypoints, map_keypoints


def random_for(seed: int, epoch: int, index: int) -> torch.Generator:
    """The source of randomness of one image in one epoch. Neither the worker nor what came before matters."""
    # Neighbouring seeds must not give related streams: SeedSequence mixes all bits of all three numbers.
    mixed = np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Changes a labelled image at random; boxes, masks and ignore flags follow.

    Attributes:
        flip: probability of a left-right flip, 0..1.
        vertical_flip: probability of an upside-down flip, 0..1. For cells, aerial tiles: things without an up.
        scale: least and greatest zoom; above 1 objects get larger (a part is cut out around one of the objects), below
            1 smaller (the image lies somewhere on a ground of its mean colour). All ratios are equally likely.
        colour: strength of brightness, contrast, saturation and hue changes, 0 (none) to 1 (wild).
        min_visible: an object of which the cut leaves less than this part becomes `ignore`: it is neither an example
            of its class nor of the background.

    Raises:
        ConfigError: a setting is out of range.
    """

    flip: float = 0.5
    vertical_flip: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    colour: float = 0.0
    min_visible: float = 0.3

    def __post_init__(self) -> None:
        for name in ("flip", "vertical_flip", "colour", "min_visible"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"augmentation {name}={value}: must be between 0 and 1")
        low, high = self.scale
        if not 0.1 <= low <= high <= 10:
            raise ConfigError(
                f"augmentation scale={low, high}: expected least and greatest zoom between 0.1 and 10, "
                "such as (0.8, 1.25)"
            )

    def __call__(self, sample: Sample, random: torch.Generator) -> Sample:
        """Another version of the sample.

        Args:
            sample: left as it is.
            random: where all chances come from, see `random_for`. The number of draws doesn't depend on the image.
        """
        chance = _Draws(*torch.rand(len(_Draws._fields), generator=random, dtype=torch.float64).tolist())
        image, targets = self._zoom(sample.image, sample.targets, chance)
        image, targets = self._flip(image, targets, chance, sample.skeleton)
        return replace(sample, image=self._recolour(image, chance), targets=targets)

    def _zoom(self, image: Image.Image, targets: Targets, chance: _Draws) -> tuple[Image.Image, Targets]:
        low, high = (math.log(bound) for bound in self.scale)
        zoom = math.exp(low + chance.zoom * (high - low))
        if zoom == 1:
            return image, targets
        size = Size(max(1, round(image.height / zoom)), max(1, round(image.width / zoom)))
        if zoom < 1:
            return _lay_out(image, targets, size, chance)
        return self._cut_out(image, targets, size, chance)

    def _cut_out(self, image: Image.Image, targets: Targets, size: Size, chance: _Draws) -> tuple[Image.Image, Targets]:
        centre = _some_centre(targets, chance.object)
        top = _cut_start(image.height, size.height, None if centre is None else centre[1], chance.y)
        left = _cut_start(image.width, size.width, None if centre is None else centre[0], chance.x)
        cut = transforms.crop(image, top, left, size.height, size.width)
        return cut, _cut_targets(targets, top, left, size, self.min_visible)

    def _flip(
        self, image: Image.Image, targets: Targets, chance: _Draws, skeleton: Skeleton | None
    ) -> tuple[Image.Image, Targets]:
        size = Size(image.height, image.width)
        if chance.flip < self.flip:
            image, targets = transforms.horizontal_flip(image), flip_targets(targets, size, skeleton)
        if chance.vertical_flip < self.vertical_flip:
            image, targets = transforms.vertical_flip(image), flip_targets(targets, size, skeleton, vertical=True)
        return image, targets

    def _recolour(self, image: Image.Image, chance: _Draws) -> Image.Image:
        if self.colour == 0:
            return image
        mean = float(_LUMA @ ImageStat.Stat(image.reduce(8)).mean)
        matrix, shift = _colour_map(self.colour, chance, mean)
        # (3, 3) and (3,) -> twelve numbers, row by row
        return image.convert("RGB", tuple(np.column_stack([matrix, shift]).ravel().tolist()))


class _Draws(NamedTuple):
    """All chances of one image, uniform in 0..1, drawn at once: switching one change off leaves the others alone."""

    zoom: float
    object: float
    x: float
    y: float
    flip: float
    vertical_flip: float
    brightness: float
    contrast: float
    saturation: float
    hue: float


# How bright each of red, green and blue looks (ITU-R BT.601), and two axes of colour without brightness.
_LUMA = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def _colour_map(strength: float, chance: _Draws, mean: float) -> tuple[np.ndarray, np.ndarray]:
    """Hue, saturation, contrast and brightness as one linear map of RGB (matrix, shift).

    One pass over the pixels takes 1 ms at 640 x 480, where torchvision's four take 35, hue by way of HSV almost all of
    them.
    """
    turn = 0.1 * strength * 2 * math.pi * (2 * chance.hue - 1)
    cosine, sine = math.cos(turn), math.sin(turn)
    hue = np.linalg.inv(_TO_YIQ) @ [[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]] @ _TO_YIQ
    # Saturation may change most: people notice it least.
    saturation = _factor(0.6 * strength, chance.saturation)
    grey = np.outer(np.ones(3), _LUMA)
    contrast, brightness = _factor(0.4 * strength, chance.contrast), _factor(0.4 * strength, chance.brightness)
    matrix = brightness * contrast * ((1 - saturation) * grey + saturation * hue)
    return matrix, np.full(3, brightness * (1 - contrast) * mean)


def _factor(strength: float, drawn: float) -> float:
    return 1 + strength * (2 * drawn - 1)


def _as_boxes(boxes: Tensor, size: Size) -> tv_tensors.BoundingBoxes:
    return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=tuple(size))


def flip_targets(targets: Targets, size: Size, skeleton: Skeleton | None, *, vertical: bool = False) -> Targets:
    """The objects of the image mirrored left to right, or upside down.

    Raises:
        ConfigError: they have keypoints, and no skeleton says which of these change places.
    """
    flip = transforms.vertical_flip if vertical else transforms.horizontal_flip
    keypoints = targets.keypoints
    if keypoints is not None:
        if skeleton is None:
            raise ConfigError(
                "flipping keypoints needs a skeleton that says which are left and right of each other: give the "
                "dataset one (dataset.skeleton), or switch the flips off"
            )
        keypoints = flip_keypoints(keypoints, size, skeleton, vertical=vertical)
    return replace(
        targets,
        boxes=flip(_as_boxes(targets.boxes, size)).as_subclass(Tensor),
        masks=None if targets.masks is None else targets.masks.flipped(vertical=vertical),
        keypoints=keypoints,
    )


def _some_centre(targets: Targets, drawn: float) -> tuple[float, float] | None:
    """The middle of one object that counts, as x and y; None if there is none."""
    boxes = targets.boxes[~targets.ignore]
    if len(boxes) == 0:
        return None
    x1, y1, x2, y2 = boxes[int(drawn * len(boxes))].tolist()
    return (x1 + x2) / 2, (y1 + y2) / 2


def _cut_start(whole: int, part: int, keep: float | None, drawn: float) -> int:
    """Where a cut of `part` of `whole` pixels starts so that it holds the coordinate `keep`."""
    first, last = 0, whole - part
    if keep is not None:
        first, last = max(first, math.ceil(keep) - part), min(last, math.floor(keep))
    # A box that reaches out of the image may have its middle there too.
    first, last = min(first, whole - part), max(last, 0)
    return min(first, last) + int(drawn * (abs(last - first) + 1))


def _cut_targets(targets: Targets, top: int, left: int, size: Size, min_visible: float) -> Targets:
    """The objects as seen in a cut: clipped, those mostly cut away ignored, those outside dropped."""
    canvas = _as_boxes(targets.boxes, size)
    moved = transforms.crop(canvas, top, left, size.height, size.width)
    boxes = transforms.clamp_bounding_boxes(moved).as_subclass(Tensor)
    masks, keypoints = targets.masks, targets.keypoints
    before, after = _areas(targets.boxes), _areas(boxes)
    if masks is not None:
        cut = masks.shifted(top=-top, left=-left, size=size).clipped()
        tight, touched = cut.boxes(), after < before
        before, after, masks = masks.areas(), cut.areas(), cut
        # A box that the cut touched fits what its mask still shows.
        boxes = torch.where((touched & (after > 0))[:, None], tight, boxes)
    if keypoints is not None:
        keypoints = cut_keypoints(map_keypoints(keypoints, scale=(1.0, 1.0), offset=(-float(top), -float(left))), size)
    mostly_gone = after < min_visible * before
    # Less than a pixel is no object, and coders divide by width and height.
    remains = (after > 0) & ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(dim=1)
    return Targets(boxes, targets.labels, targets.ignore | mostly_gone, masks, keypoints)[remains]


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)


def _lay_out(image: Image.Image, targets: Targets, size: Size, chance: _Draws) -> tuple[Image.Image, Targets]:
    """Put the image somewhere on a larger ground of its mean colour."""
    below, right = size.height - image.height, size.width - image.width
    top, left = int(chance.y * (below + 1)), int(chance.x * (right + 1))
    mean = [round(value) for value in ImageStat.Stat(image).mean]
    padding = [left, top, right - left, below - top]
    laid = transforms.pad(image, padding, fill=mean)
    boxes = transforms.pad(_as_boxes(targets.boxes, Size(image.height, image.width)), padding)
    moved = replace(
        targets,
        boxes=boxes.as_subclass(Tensor),
        masks=None if targets.masks is None else targets.masks.shifted(top=top, left=left, size=size),
        keypoints=None
        if targets.keypoints is None
        else map_keypoints(targets.keypoints, scale=(1.0, 1.0), offset=(float(top), float(left))),
    )
    return laid, moved
