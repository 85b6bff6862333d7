"""Between original pixels and network pixels, both ways, in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fpn.detectors.dialect import Dialect
from fpn.errors import ConfigError
from fpn.ops import boxes as box_ops
from fpn.preprocessing.frame import Frame
from fpn.preprocessing.resizing import network_frame, resize
from fpn.shapes import Size
from fpn.structures import Detections, ImageBatch, Targets

# A decoder's reduced image stays at least so many times as large as the network's. Pillow's `thumbnail` takes 2.
_GAP = 2.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """One image inside the preprocessor.

    Attributes:
        pixels: (3, h, w) float32, normalised, not yet padded to the batch.
        targets: the objects in network pixels, or None.
        frame: how to get back.
    """

    pixels: Tensor
    targets: Targets | None
    frame: Frame


@dataclass(frozen=True, kw_only=True)
class Preprocessor:
    """Resizes, normalises and pads on the way in; brings detections back on the way out.

    Attributes: as the fields of `Dialect` with the same names.
    """

    channel_order: str
    value_range: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    short_side: int
    long_side: int | None
    resize: str
    size_multiple: int
    pad_before_mean: bool
    whole_pixels: bool = False

    @classmethod
    def of(cls, dialect: Dialect) -> Preprocessor:
        """The preprocessor that a dialect describes.

        Raises:
            ConfigError: mean or std is left to the backbone, or a side is not positive.
        """
        if dialect.mean is None or dialect.std is None:
            raise ConfigError(f"dialect {dialect.name} leaves mean and std to the backbone: fill them in first")
        if dialect.short_side < 1 or (dialect.long_side is not None and dialect.long_side < 1):
            raise ConfigError(f"short side {dialect.short_side}, long side {dialect.long_side}: must be at least 1")
        fields = {name: getattr(dialect, name) for name in cls.__dataclass_fields__}
        return cls(**fields)

    def prepare(self, image: Image.Image, targets: Targets | None = None) -> Prepared:
        """One RGB image (and its objects) into network pixels.

        Args:
            image: upright, 8-bit RGB.
            targets: objects in pixels of that image.
        """
        array, frame = resize(image, method=self.resize, short_side=self.short_side, long_side=self.long_side)
        return Prepared(self._normalised(array), None if targets is None else self._move(targets, frame), frame)

    def enough(self, original: Size, *, zoom: float = 1.0) -> Size:
        """What must remain of an image that is decoded at a part of its size before `prepare` resizes it.

        Twice the network's size, so that an antialiased resize does the rest; everything, where the dialect's resize is
        another than "pillow".

        Args:
            original: the image's full size.
            zoom: how much larger than the network's size a part of it may be needed.
        """
        if self.resize != "pillow":
            return original
        frame = network_frame(original, method=self.resize, short_side=self.short_side, long_side=self.long_side)
        return Size(*(math.ceil(_GAP * zoom * side) for side in frame.network))

    def _normalised(self, array: np.ndarray) -> Tensor:
        """(h, w, 3) values of 0..255 as (3, h, w), in one new tensor: on a CPU each further one costs as much."""
        if self.channel_order == "bgr":
            array = array[:, :, ::-1]
        pixels = torch.empty(3, *array.shape[:2])
        np.copyto(pixels.numpy(), array.transpose(2, 0, 1))
        return pixels.mul_(self.value_range / 255).sub_(_column(self.mean)).div_(_column(self.std))

    def collate(self, pixels: Sequence[Tensor], frames: Sequence[Frame] | None = None) -> ImageBatch:
        """Pad images (3, h, w) at the right and bottom to one size, a multiple of `size_multiple`.

        Args:
            pixels: of images that went through `prepare`.
            frames: theirs; detecting needs them where an image lies inside of padding, or NMS runs in its own pixels.
        """
        sizes = torch.tensor([list(p.shape[-2:]) for p in pixels], dtype=torch.int64)
        height, width = (_round_up(int(side), self.size_multiple) for side in sizes.amax(dim=0))
        batch = torch.zeros(len(pixels), 3, height, width)
        if self.pad_before_mean:
            batch -= (_column(self.mean) / _column(self.std))[None]
        for row, image in zip(batch, pixels, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = image
        if frames is None:
            return ImageBatch(batch, sizes)
        windows = torch.tensor([frame.window for frame in frames]) if any(f.content for f in frames) else None
        return ImageBatch(batch, sizes, windows, torch.tensor([frame.scale for frame in frames]))

    def restore(self, found: Detections, frame: Frame) -> Detections:
        """Detections in network pixels, back in pixels of the original image, clipped to it."""
        boxes = frame.to_original(found.boxes)
        boxes = box_ops.clip(boxes, frame.original.height, frame.original.width)
        if not self.whole_pixels:
            return replace(found, boxes=boxes)
        boxes = boxes.round()  # half to even, as numpy.around
        return replace(found, boxes=boxes)[(boxes[:, 2:] > boxes[:, :2]).all(dim=1)]

    def _move(self, targets: Targets, frame: Frame) -> Targets:
        masks = targets.masks
        if masks is not None:
            masks = _resize_masks(masks, frame.network)
        return Targets(frame.to_network(targets.boxes), targets.labels, targets.ignore, masks)


def _resize_masks(masks: Tensor, size: Size) -> Tensor:
    resized = torch.nn.functional.interpolate(masks[None].float(), size=tuple(size), mode="bilinear")
    return resized[0] >= 0.5


def _column(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
