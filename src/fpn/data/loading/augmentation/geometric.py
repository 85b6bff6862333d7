"""Changes that move pixels, and boxes, masks and keypoints with them: jitter, zoom, crop, quarter turns, flips.

Zooming in cuts out a part, zooming out lays the image on a larger ground; neither resamples, because the detector's
preprocessor resizes to the network's size right after. So one interpolation happens, not two. Jitter resamples where it
makes the image smaller: its ground would become a hundred times as large instead.
"""

from __future__ import annotations

import math
from dataclasses import replace

from PIL import Image, ImageStat

from fpn.data.dataset import Sample
from fpn.data.loading.augmentation import objects
from fpn.data.loading.augmentation.chances import Chances
from fpn.data.loading.augmentation.config import AugmentationConfig
from fpn.shapes import Size
from fpn.structures import Targets

_TURNS = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}


def jitter(sample: Sample, config: AugmentationConfig, chances: Chances) -> Sample:
    """Resize, then cut or fill up to the image's own size, anywhere.

    Source: Ghiasi et al. 2021, arXiv:2012.07177, section 3 (large-scale jittering), there to a fixed square.
    """
    if config.jitter == (1.0, 1.0):
        return sample
    random = chances.of("jitter")
    zoom, y, x = float(random.uniform(*config.jitter)), random.random(), random.random()
    size = size_of(sample.image)
    if zoom >= 1:
        part = _divided(size, zoom)
        return cut_out(sample, part, _start(size, part, y, x), config.min_visible)
    small = _divided(size, 1 / zoom)
    top, left = _start(size, small, y, x)
    canvas = Image.new("RGB", sample.image.size, _mean(sample.image))
    canvas.paste(sample.image.resize((small.width, small.height), Image.Resampling.BILINEAR), (left, top))
    scale = (small.height / size.height, small.width / size.width)
    shown = objects.cut(
        sample.targets, scale=scale, offset=(float(top), float(left)), size=size, min_visible=config.min_visible
    )
    return replace(sample, image=canvas, targets=shown)


def zoom(sample: Sample, config: AugmentationConfig, chances: Chances) -> Sample:
    """Cut out a part around one of the objects, or lay the image somewhere on a larger ground."""
    low, high = (math.log(bound) for bound in config.scale)
    draws, size = chances.draws, size_of(sample.image)
    factor = math.exp(low + draws.zoom * (high - low))
    if factor == 1:
        return sample
    if factor < 1:
        return _lay_out(sample, _divided(size, factor), draws.y, draws.x)
    part, centre = _divided(size, factor), some_centre(sample.targets, draws.object)
    top = cut_start(size.height, part.height, None if centre is None else centre[1], draws.y)
    left = cut_start(size.width, part.width, None if centre is None else centre[0], draws.x)
    return cut_out(sample, part, (top, left), config.min_visible)


def crop_around(sample: Sample, config: AugmentationConfig, chances: Chances) -> Sample:
    """Cut out a part that holds one of the objects as a whole; anywhere, where there is none."""
    random = chances.of("crop")
    if random.random() >= config.crop:
        return sample
    size = size_of(sample.image)
    shares, places = random.uniform(*config.crop_sides, size=2), random.random(3)
    kept = _some_box(sample.targets, places[0])
    spans = [(None, None), (None, None)] if kept is None else [(kept[1], kept[3]), (kept[0], kept[2])]
    starts, sides = [], []
    for side, share, place, (first, last) in zip(size, shares, places[1:], spans, strict=True):
        start, length = _around(side, max(1, round(side * share)), first, last, place)
        starts.append(start)
        sides.append(length)
    return cut_out(sample, Size(*sides), (starts[0], starts[1]), config.min_visible)


def rotate(sample: Sample, config: AugmentationConfig, chances: Chances) -> Sample:
    """Turn by one, two or three quarters."""
    random = chances.of("rotate")
    if random.random() >= config.rotate:
        return sample
    quarters = int(random.integers(1, 4))
    turned = objects.turn(sample.targets, size_of(sample.image), quarters)
    return replace(sample, image=sample.image.transpose(_TURNS[quarters]), targets=turned)


def flip(sample: Sample, config: AugmentationConfig, chances: Chances) -> Sample:
    """Mirror left to right, upside down, or both."""
    image, targets, size = sample.image, sample.targets, size_of(sample.image)
    if chances.draws.flip < config.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        targets = objects.flip(targets, size, sample.skeleton)
    if chances.draws.vertical_flip < config.vertical_flip:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        targets = objects.flip(targets, size, sample.skeleton, vertical=True)
    return replace(sample, image=image, targets=targets)


# --- what other kinds of changes use, too ---


def size_of(image: Image.Image) -> Size:
    """Height and width."""
    return Size(*reversed(image.size))


def cut_out(sample: Sample, part: Size, start: tuple[int, int], min_visible: float) -> Sample:
    """The part of that size that begins at (top, left)."""
    top, left = start
    image = sample.image.crop((left, top, left + part.width, top + part.height))
    shown = objects.cut(sample.targets, offset=(-float(top), -float(left)), size=part, min_visible=min_visible)
    return replace(sample, image=image, targets=shown)


def some_centre(targets: Targets, drawn: float) -> tuple[float, float] | None:
    """The middle of one object that counts, as x and y; None if there is none."""
    box = _some_box(targets, drawn)
    return None if box is None else ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)


def cut_start(whole: int, part: int, keep: float | None, drawn: float) -> int:
    """Where a cut of `part` of `whole` pixels starts so that it holds the coordinate `keep`."""
    first, last = 0, whole - part
    if keep is not None:
        first, last = max(first, math.ceil(keep) - part), min(last, math.floor(keep))
    # A box that reaches out of the image may have its middle there too.
    first, last = min(first, whole - part), max(last, 0)
    return min(first, last) + int(drawn * (abs(last - first) + 1))


def _some_box(targets: Targets, drawn: float) -> list[float] | None:
    boxes = targets.boxes[~targets.ignore]
    chosen: list[float] | None = boxes[int(drawn * len(boxes))].tolist() if len(boxes) else None
    return chosen


def _around(whole: int, part: int, first: float | None, last: float | None, drawn: float) -> tuple[int, int]:
    """Start and length of a cut of `part` of `whole` pixels, or as many more as holding `first` to `last` takes."""
    low, high = 0, whole
    if first is not None and last is not None:
        low, high = max(0, math.floor(first)), min(whole, math.ceil(last))
        part = max(part, high - low)
        low, high = max(0, high - part), min(low, whole - part)
        return low + int(drawn * (high - low + 1)), part
    return int(drawn * (whole - part + 1)), part


def _divided(size: Size, factor: float) -> Size:
    return Size(max(1, round(size.height / factor)), max(1, round(size.width / factor)))


def _start(whole: Size, part: Size, y: float, x: float) -> tuple[int, int]:
    """Somewhere, so that a part lies within the whole."""
    return int(y * (whole.height - part.height + 1)), int(x * (whole.width - part.width + 1))


def _mean(image: Image.Image) -> tuple[int, ...]:
    return tuple(round(value) for value in ImageStat.Stat(image).mean)


def _lay_out(sample: Sample, size: Size, y: float, x: float) -> Sample:
    """Put the image somewhere on a larger ground of its mean colour."""
    top, left = _start(size, size_of(sample.image), y, x)
    canvas = Image.new("RGB", (size.width, size.height), _mean(sample.image))
    canvas.paste(sample.image, (left, top))
    laid = objects.lay(sample.targets, offset=(float(top), float(left)), size=size)
    return replace(sample, image=canvas, targets=laid)
