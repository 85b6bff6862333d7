"""How each toolkit scales a picture: from 8-bit RGB to an array of 0..255 values, and the frame that leads back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fpn.shapes import Size


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the original picture lies inside the network's.

    Attributes:
        original: size of the picture as it came.
        network: size inside the network, before padding to the batch.
        scale: network pixels an original pixel, (y, x).
        offset: network position of the original's corner, (y, x).
    """

    original: Size
    network: Size
    scale: tuple[float, float]
    offset: tuple[float, float] = (0.0, 0.0)

    def to_network(self, boxes: Tensor) -> Tensor:
        """(N, 4) xyxy boxes of the original, in network pixels."""
        return boxes * boxes.new_tensor(self._scales()) + boxes.new_tensor(self._offsets())

    def to_original(self, boxes: Tensor) -> Tensor:
        """(N, 4) xyxy boxes in network pixels, in pixels of the original."""
        return (boxes - boxes.new_tensor(self._offsets())) / boxes.new_tensor(self._scales())

    def _scales(self) -> list[float]:
        return [self.scale[1], self.scale[0]] * 2

    def _offsets(self) -> list[float]:
        return [self.offset[1], self.offset[0]] * 2


def resize(picture: Image.Image, *, method: str, short_side: int, long_side: int | None) -> tuple[np.ndarray, Frame]:
    """Scale a picture so that its shorter side is `short_side`, unless the longer one would exceed `long_side`.

    Args:
        picture: 8-bit RGB.
        method: a key of `RESIZERS`; see `Dialect.resize`.
        short_side, long_side: pixels.

    Returns:
        (h, w, 3) float32 or uint8 values in 0..255, RGB, and the frame.
    """
    return RESIZERS[method](picture, short_side, long_side)


def scale_for(size: Size, short_side: int, long_side: int | None) -> float:
    """The factor that brings the shorter side to `short_side`, bounded by the longer side's limit."""
    scale = short_side / min(size)
    return scale if long_side is None else min(scale, long_side / max(size))


def _pillow(picture: Image.Image, short_side: int, long_side: int | None) -> tuple[np.ndarray, Frame]:
    """8-bit, antialiased bilinear; sides rounded to the nearest pixel (Detectron2's ResizeShortestEdge)."""
    original = Size(picture.height, picture.width)
    scale = scale_for(original, short_side, long_side)
    network = Size(*(max(int(side * scale + 0.5), 1) for side in original))
    if network != original:
        picture = picture.resize((network.width, network.height), Image.Resampling.BILINEAR)
    return np.asarray(picture), _frame(original, network)


def _torch(picture: Image.Image, short_side: int, long_side: int | None) -> tuple[np.ndarray, Frame]:
    """Float, not antialiased, sides rounded down (torchvision's GeneralizedRCNNTransform)."""
    original = Size(picture.height, picture.width)
    # torchvision computes the factor in float32.
    factor = float(np.float32(short_side) / np.float32(min(original)))
    if long_side is not None:
        factor = min(factor, float(np.float32(long_side) / np.float32(max(original))))
    network = Size(*(max(int(side * factor), 1) for side in original))
    pixels = torch.from_numpy(np.array(picture, dtype=np.float32)).permute(2, 0, 1)[None]
    resized = functional.interpolate(pixels, size=tuple(network), mode="bilinear", align_corners=False)
    return resized[0].permute(1, 2, 0).numpy(), _frame(original, network)


def _frame(original: Size, network: Size) -> Frame:
    return Frame(original, network, (network.height / original.height, network.width / original.width))


RESIZERS: dict[str, Callable[[Image.Image, int, int | None], tuple[np.ndarray, Frame]]] = {
    "pillow": _pillow,
    "torch": _torch,
}
