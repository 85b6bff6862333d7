"""Changes that bring several images together: mosaic, mix-up, copy-paste.

The other images are drawn by the first one's chances, so that they are a function of (seed, epoch, index), too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image, ImageFilter

from fpn.data.dataset import Sample
from fpn.data.loading.augmentation import objects
from fpn.data.loading.augmentation.chances import Chances
from fpn.data.loading.augmentation.config import AugmentationConfig, Range
from fpn.data.loading.augmentation.geometric import cut_start, size_of, some_centre
from fpn.ops.boxes import clip
from fpn.shapes import Size
from fpn.structures import Targets

# Of the image's sides: where the four parts of a mosaic meet (YOLOv4: the middle half).
_MEET = (0.25, 0.75)
# Pixels beside a pasted object over which it fades; boxes fade over more, since they bring a ground of their own.
_MASK_RIM, _BOX_RIM = 1, 6


@dataclass(frozen=True)
class Partners:
    """The labelled images that may come together with one.

    Attributes:
        count: how many there are.
        read: from a number below to an image, with masks where `Augment.wants_masks`.
    """

    count: int
    read: Callable[[int], Sample]

    def draw(self, random: np.random.Generator) -> Sample:
        """One of them, all as likely; the first one's own image may come, too."""
        return self.read(int(random.integers(self.count)))


# What an image goes through before it comes to another one: its own jitter, crop, flips.
Move = Callable[[Sample, Chances], Sample]


def mosaic(sample: Sample, config: AugmentationConfig, chances: Chances, partners: Partners) -> Sample:
    """Parts of four images, the first one's among them, around a point in the middle half, in the first one's size.

    Source: Bochkovskiy et al. 2020, arXiv:2004.10934, section 3.3.
    """
    random, size = chances.of("mosaic"), size_of(sample.image)
    if random.random() >= config.mosaic or min(size) < 4:
        return sample
    y, x = (round(side * random.uniform(*_MEET)) for side in size)
    places = [(0, 0, y, x), (0, x, y, size.width), (y, 0, size.height, x), (y, x, size.height, size.width)]
    members = [sample, *(partners.draw(random) for _ in range(3))]
    canvas, parts = Image.new("RGB", sample.image.size), []
    for member, place in zip(members, random.permutation(4), strict=True):
        top, left, bottom, right = places[place]
        part = Size(bottom - top, right - left)
        shown = _view(member, part, size, config.mosaic_scale, random, config.min_visible)
        canvas.paste(shown.image, (left, top))
        parts.append(objects.lay(shown.targets, offset=(float(top), float(left)), size=size))
    return replace(sample, image=canvas, targets=objects.join(parts, size))


def mix_up(
    sample: Sample, config: AugmentationConfig, chances: Chances, partners: Partners, *, prepare: Move
) -> Sample:
    """Another image shines through, with all its objects; both images' objects count in full.

    Source: Zhang et al. 2019, arXiv:1902.04103, section 3.1, for objects; without its weights of the losses.
    """
    random, size = chances.of("mix_up"), size_of(sample.image)
    if random.random() >= config.mix_up:
        return sample
    other = prepare(partners.draw(random), Chances.of_partner(random))
    shown = _view(other, size, size, (1.0, 1.0), random, config.min_visible)
    image = Image.blend(sample.image, shown.image, float(random.uniform(*config.mix_up_share)))
    return replace(sample, image=image, targets=objects.join([sample.targets, shown.targets], size))


def copy_paste(
    sample: Sample, config: AugmentationConfig, chances: Chances, partners: Partners, *, prepare: Move
) -> Sample:
    """Some objects of another image, each at some place, at the size that they would have in this image.

    Source: Ghiasi et al. 2021, arXiv:2012.07177, section 3, but for the places, which are there the objects' own.
    """
    random = chances.of("copy_paste")
    if random.random() >= config.copy_paste:
        return sample
    other = prepare(partners.draw(random), Chances.of_partner(random))
    numbers = torch.nonzero(~other.targets.ignore).flatten().numpy()
    most = int(random.integers(1, config.copy_paste_objects + 1))
    size, pasted = size_of(sample.image), []
    for number in random.permutation(numbers)[:most].tolist():
        y, x = random.random(2)
        piece = _Piece.of(other, number, size, y, x)
        if piece is not None:
            pasted.append(piece)
    return _with_pieces(sample, pasted, config.min_visible) if pasted else sample


# --- a part of an image ---


def _view(
    sample: Sample, size: Size, canvas: Size, zoom: Range, random: np.random.Generator, min_visible: float
) -> Sample:
    """A part of an image around one of its objects, resized to `size`, which is a part of `canvas`, and fills it."""
    whole = size_of(sample.image)
    low, high = (math.log(bound) for bound in zoom)
    fitting = min(canvas.height / whole.height, canvas.width / whole.width)
    factor = max(fitting * math.exp(random.uniform(low, high)), *(s / w for s, w in zip(size, whole, strict=True)))
    part = Size(*(min(w, max(1, round(s / factor))) for s, w in zip(size, whole, strict=True)))
    chosen, y, x = random.random(3)
    centre = some_centre(sample.targets, chosen)
    top = cut_start(whole.height, part.height, None if centre is None else centre[1], y)
    left = cut_start(whole.width, part.width, None if centre is None else centre[0], x)
    box = (left, top, left + part.width, top + part.height)
    image = sample.image.resize((size.width, size.height), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    scale = (size.height / part.height, size.width / part.width)
    offset = (-top * scale[0], -left * scale[1])
    shown = objects.cut(sample.targets, scale=scale, offset=offset, size=size, min_visible=min_visible)
    return replace(sample, image=image, targets=shown)


# --- objects onto another image ---


@dataclass(frozen=True)
class _Piece:
    """An object on its way to another image.

    Attributes:
        image: where it is cut out.
        box: xyxy around it there, with a rim.
        shape: (h, w) which pixels of its box in the other image it fills.
        start: top and left of its box in the other image.
        rim: pixels over which it fades there.
        targets: itself as an object there, whole.
    """

    image: Image.Image
    box: tuple[float, float, float, float]
    shape: np.ndarray
    start: tuple[int, int]
    rim: int
    targets: Targets

    @classmethod
    def of(cls, sample: Sample, number: int, size: Size, y: float, x: float) -> _Piece | None:
        """Object `number` of an image, to be laid onto one of that size; nothing, where less than a pixel is left.

        y, x: 0..1 of the way that it may go there.
        """
        whole, one = size_of(sample.image), sample.targets[number : number + 1]
        x1, y1, x2, y2 = clip(one.boxes, *whole)[0].tolist()
        fitting = min(size.height / whole.height, size.width / whole.width)
        patch = Size(round((y2 - y1) * fitting), round((x2 - x1) * fitting))
        if min(patch) < 1:
            return None
        scale = (patch.height / (y2 - y1), patch.width / (x2 - x1))
        top, left = int(y * (size.height - patch.height + 1)), int(x * (size.width - patch.width + 1))
        offset = (top - y1 * scale[0], left - x1 * scale[1])
        placed = objects.lay(one, scale=scale, offset=offset, size=size)
        shape = _shape(placed, top, left, patch)
        if not shape.any():
            return None
        rim = _BOX_RIM if placed.masks is None else _MASK_RIM
        around = (x1 - rim / scale[1], y1 - rim / scale[0], x2 + rim / scale[1], y2 + rim / scale[0])
        return cls(sample.image, around, shape, (top, left), rim, placed)

    def laid_on(self, image: Image.Image) -> None:
        """Draw it, fading over the rim around its shape."""
        height, width = (side + 2 * self.rim for side in self.shape.shape)
        x1, y1, x2, y2 = self.box
        within = (max(0.0, x1), max(0.0, y1), min(float(self.image.width), x2), min(float(self.image.height), y2))
        across, down = width / (x2 - x1), height / (y2 - y1)
        # Where the object ends at its image's edge, there is nothing beyond to fade into.
        steps = zip(within, self.box, (across, down, across, down), strict=True)
        left, top, right, bottom = (round((inner - outer) * scale) for inner, outer, scale in steps)
        inner = (left, top, width + right, height + bottom)
        pixels = self.image.resize(
            (inner[2] - inner[0], inner[3] - inner[1]), Image.Resampling.BILINEAR, box=within, reducing_gap=2.0
        )
        place = (self.start[1] - self.rim + left, self.start[0] - self.rim + top)
        image.paste(pixels, place, self._veil().crop(inner))

    def _veil(self) -> Image.Image:
        """How opaque its pixels are, 0..255: fully on its shape."""
        grown = self.rim // 2
        opaque = Image.fromarray(np.pad(self.shape.astype(np.uint8) * 255, self.rim))
        if grown:  # a filter of one pixel does nothing, and in some releases of Pillow divides by zero
            opaque = opaque.filter(ImageFilter.MaxFilter(2 * grown + 1))
        return opaque.filter(ImageFilter.BoxBlur(self.rim / 2))


def _with_pieces(sample: Sample, pieces: Sequence[_Piece], min_visible: float) -> Sample:
    """The image with all pieces on it, the first lowest; what they lie on is covered."""
    size, image = size_of(sample.image), sample.image.copy()
    for piece in pieces:
        piece.laid_on(image)
    over, seen = np.zeros(size, dtype=np.bool_), []
    for piece in reversed(pieces):
        seen.append(objects.cover(piece.targets, over, min_visible=min_visible))
        (top, left), (height, width) = piece.start, piece.shape.shape
        over[top : top + height, left : left + width] |= piece.shape
    rest = objects.cover(sample.targets, over, min_visible=min_visible)
    return replace(sample, image=image, targets=objects.join([rest, *reversed(seen)], size))


def _shape(placed: Targets, top: int, left: int, patch: Size) -> np.ndarray:
    """Which pixels of its box an object fills; all, where it has no mask."""
    if placed.masks is None:
        return np.ones(patch, dtype=np.bool_)
    return placed.masks.shifted(top=-top, left=-left, size=patch).dense()[0].numpy()
