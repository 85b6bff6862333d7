"""Between original pixels and network pixels, both ways, in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fpn.errors import ConfigError
from fpn.ops import boxes as box_ops
from fpn.preprocessing.config import PixelsConfig
from fpn.preprocessing.frame import Frame
from fpn.preprocessing.resizing import network_frame, resize
from fpn.shapes import Size
from fpn.structures import Detections, ImageBatch, Masks, Targets

# A decoder's reduced image stays at least so many times as large as the network's. Pillow's `thumbnail` takes 2.
_GAP = 2.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """One image inside the preprocessor.

    Attributes:
        pixels: (3, h, w) float32, normalised, not yet padded to the batch.
        targets: the objects in network pixels, or None.
        frame: how to get back.
        normalised: False: `pixels` are RGB values of 0..255 as they came from `resize`, uint8 or float32.
    """

    pixels: Tensor
    targets: Targets | None
    frame: Frame
    normalised: bool = True


@dataclass(frozen=True)
class Preprocessor:
    """Resizes, normalises and pads on the way in; brings detections back on the way out.

    Attributes:
        config: how; its mean and std are given.
        deferred: what `prepare` gives is not normalised yet: `normalise` does it, on a device for which that is less
            than to be sent four times as many bytes.

    Raises:
        ConfigError: mean or std is left to the backbone.
    """

    config: PixelsConfig
    deferred: bool = False

    def __post_init__(self) -> None:
        if self.config.mean is None or self.config.std is None:
            raise ConfigError("pixels.mean and pixels.std are left to the backbone: fill them in first")

    @property
    def size_multiple(self) -> int:
        """Padded sides are multiples of this."""
        return self.config.size_multiple

    @property
    def padding(self) -> Tensor:
        """(3, 1, 1), what padding looks like to the network."""
        mean, std = _column(self.config.mean), _column(self.config.std)
        return -mean / std if self.config.pad_before_mean else torch.zeros_like(mean)

    def prepare(self, image: Image.Image, targets: Targets | None = None) -> Prepared:
        """One RGB image (and its objects) into network pixels.

        Args:
            image: upright, 8-bit RGB.
            targets: objects in pixels of that image.
        """
        array, frame = resize(image, **self.config.sizing)
        pixels = _planes(array) if self.deferred else self._normalised(array)
        return Prepared(pixels, None if targets is None else _move(targets, frame), frame, not self.deferred)

    def min_size(self, original: Size, *, zoom: float = 1.0) -> Size:
        """What must remain of an image that is decoded at a part of its size before `prepare` resizes it.

        Twice the network's size, so that an antialiased resize does the rest; everything, where the dialect's resize is
        another than "pillow".

        Args:
            original: the image's full size.
            zoom: how much larger than the network's size a part of it may be needed.
        """
        if self.config.resize != "pillow":
            return original
        frame = network_frame(original, **self.config.sizing)
        return Size(*(math.ceil(_GAP * zoom * side) for side in frame.network))

    def _normalised(self, array: np.ndarray) -> Tensor:
        """(h, w, 3) values of 0..255 as (3, h, w), in one new tensor: on a CPU each further one costs as much.

        By NumPy, which takes one thread: images are prepared by threads beside the network's, and PyTorch would have
        each of them start as many more as there are cores. Every bit is the one that PyTorch computes.
        """
        if self.config.channel_order == "bgr":
            array = array[:, :, ::-1]
        pixels = torch.empty(3, *array.shape[:2])
        values = pixels.numpy()
        np.copyto(values, array.transpose(2, 0, 1))
        values *= np.float32(self.config.value_range / 255)
        values -= _column(self.config.mean).numpy()
        values /= _column(self.config.std).numpy()
        return pixels

    def normalise(self, prepared: Prepared, device: torch.device) -> Tensor:
        """(3, h, w) float32 on `device`, of what is not normalised yet; every bit is as `prepare` computes it."""
        pixels = prepared.pixels.to(device)
        pixels = pixels.flip(0) if self.config.channel_order == "bgr" else pixels
        mean, std = (_column(values).to(device) for values in (self.config.mean, self.config.std))
        return (pixels.to(torch.float32) * (self.config.value_range / 255)).sub_(mean).div_(std)

    def collate(self, pixels: Sequence[Tensor], frames: Sequence[Frame] | None = None) -> ImageBatch:
        """Pad images (3, h, w) at the right and bottom to one size, a multiple of `size_multiple`.

        Args:
            pixels: normalised, of images that went through `prepare`, on one device.
            frames: theirs; detecting needs them where an image lies inside of padding, or NMS runs in its own pixels.
        """
        sizes = torch.tensor([list(p.shape[-2:]) for p in pixels], dtype=torch.int64)
        height, width = (_round_up(int(side), self.size_multiple) for side in sizes.amax(dim=0))
        batch = pixels[0].new_zeros(len(pixels), 3, height, width)
        if self.config.pad_before_mean:
            batch += self.padding.to(batch.device)
        for row, image in zip(batch, pixels, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = image
        if frames is None:
            return ImageBatch(batch, sizes)
        windows = torch.tensor([frame.window for frame in frames]) if any(f.content for f in frames) else None
        return ImageBatch(batch, sizes, windows, torch.tensor([frame.scale for frame in frames]))

    def restore(self, found: Detections, frame: Frame) -> Detections:
        """Detections in network pixels, back in pixels of the original image, boxes and masks clipped to it.

        What a mask head said of each box is pasted here, once, at the original's resolution. Where it said it of a
        region, the box is drawn tightly around the mask, and what has no pixel is left out.
        """
        boxes = frame.to_original(found.boxes)
        boxes = box_ops.clip(boxes, frame.original.height, frame.original.width)
        found = _restore_others(replace(found, boxes=boxes), frame)
        if self.config.whole_pixels:
            boxes = boxes.round()  # half to even, as numpy.around
            found = replace(found, boxes=boxes)[(boxes[:, 2:] > boxes[:, :2]).all(dim=1)]
        if found.mask_probabilities is None:
            return found
        if found.mask_regions is not None:
            return _from_regions(found, found.mask_probabilities, found.mask_regions, frame)
        masks = Masks.from_probabilities(found.mask_probabilities, found.boxes, frame.original)
        return replace(found, masks=masks, mask_probabilities=None)


def _move(targets: Targets, frame: Frame) -> Targets:
    return Targets(
        frame.to_network(targets.boxes),
        targets.labels,
        targets.ignore,
        None if targets.masks is None else frame.masks_to_network(targets.masks),
        None if targets.keypoints is None else frame.keypoints_to_network(targets.keypoints),
    )


def _restore_others(found: Detections, frame: Frame) -> Detections:
    return replace(
        found,
        masks=None if found.masks is None else frame.masks_to_original(found.masks),
        keypoints=None if found.keypoints is None else frame.keypoints_to_original(found.keypoints),
        origins=None if found.origins is None else frame.to_original(found.origins),
    )


def _from_regions(found: Detections, probabilities: Tensor, regions: Tensor, frame: Frame) -> Detections:
    masks = Masks.from_probabilities(probabilities, frame.to_original(regions), frame.original)
    whole = replace(found, boxes=masks.boxes(), masks=masks, mask_probabilities=None, mask_regions=None)
    return whole[masks.areas() > 0]


def _planes(array: np.ndarray) -> Tensor:
    """(h, w, 3) values as (3, h, w), without moving them in memory."""
    return torch.from_numpy(np.array(array)).permute(2, 0, 1)


def _column(values: tuple[float, float, float] | None) -> Tensor:
    assert values is not None, "checked when the preprocessor was made"
    return torch.tensor(values).view(3, 1, 1)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
