"""A batch of images at the network's preprocessor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fpn.shapes import Size


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """Images in network pixels.

    Attributes:
        pixels: (B, 3, H, W) float, normalised and padded at the right and bottom.
        sizes: (B, 2) int64, each image's (height, width) before padding.
        windows: (B, 4) float32 xyxy, where the image's content lies, if not at the top left; or None.
        scales: (B, 2) float32, network pixels an original pixel (y, x); None: not known.
    """

    pixels: Tensor
    sizes: Tensor
    windows: Tensor | None = None
    scales: Tensor | None = None

    def __post_init__(self) -> None:
        assert self.pixels.ndim == 4, f"pixels must be (B, 3, H, W), got {tuple(self.pixels.shape)}"
        count = self.pixels.shape[0]  # not len(): in a trace it is no number yet
        assert self.sizes.shape == (count, 2), f"sizes must be (B, 2), got {tuple(self.sizes.shape)}"
        assert self.windows is None or self.windows.shape == (count, 4), "one window an image"
        assert self.scales is None or self.scales.shape == (count, 2), "one scale an image and axis"

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def padded_size(self) -> Size:
        """Height and width that all images of the batch share, padding included."""
        return Size(*self.pixels.shape[-2:])

    def to(self, device: torch.device | str, *, memory_format: torch.memory_format | None = None) -> ImageBatch:
        """The same batch on another device (and, if given, in another memory format)."""
        pixels = self.pixels.to(device, non_blocking=True)
        if memory_format is not None:
            pixels = pixels.contiguous(memory_format=memory_format)
        sizes = self.sizes.to(device, non_blocking=True)
        windows = None if self.windows is None else self.windows.to(device, non_blocking=True)
        scales = None if self.scales is None else self.scales.to(device, non_blocking=True)
        return ImageBatch(pixels, sizes, windows, scales)
