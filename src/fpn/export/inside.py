"""The preprocessor as a graph: 8-bit RGB images of one size to what the network sees, bit for bit as Pillow resizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import PIL
import torch
from torch import Tensor, nn

from fpn.errors import ConfigError
from fpn.preprocessing.preprocessor import Preprocessor

# Pillow's weights are whole 2 ** -22ths. Here they are two halves of eleven bits, so that float32 adds them up exactly
# (up to 32 taps of a sample, that is, images up to fifteen times as large as in the network).
_HALF = 2.0**11
_PILLOW = int(PIL.__version__.partition(".")[0])
# Longest side of which a table says whether float64 makes it a pixel less than its limit.
_TOLD_SIDES = 8192
# So many samples of an axis are made of one window of pixels.
_BLOCK = 32


class NetworkImages(NamedTuple):
    """What `InsidePreprocessor` gives.

    Attributes:
        pixels: (B, 3, H, W) float32, normalised and padded.
        sizes: (B, 2) int64, height and width before padding.
        scales: (4,) float32, network pixels an original pixel: x, y, x, y.
        limits: (4,) float32, the original's width, height, width, height.
        point_scales: (3,) float32, network pixels an original pixel: x, y, and 1 for a score.
    """

    pixels: Tensor
    sizes: Tensor
    scales: Tensor
    limits: Tensor
    point_scales: Tensor


class InsidePreprocessor(nn.Module):
    """(B, H, W, 3) uint8 RGB -> `NetworkImages`.

    Args:
        preprocessor: the detector's.

    Raises:
        ConfigError: it resizes in a way that no graph holds.
    """

    def __init__(self, preprocessor: Preprocessor) -> None:
        super().__init__()
        config = self.config = preprocessor.config
        if config.resize not in ("pillow", "torch") or config.whole_pixels:
            raise ConfigError(
                f"pixels.resize is {config.resize!r}: only pillow and torch can be inside of a file. Export with "
                "--bare, and let fpn prepare the images."
            )
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1), persistent=False)
        self.register_buffer("padding", preprocessor.padding, persistent=False)
        self.register_buffer("less_by_one", _less_by_one(config.short_side, config.long_side), persistent=False)

    mean: Tensor
    std: Tensor
    padding: Tensor
    less_by_one: Tensor

    def forward(self, images: Tensor) -> NetworkImages:
        """Resize, normalise and pad."""
        config = self.config
        sides = torch.stack([torch.ones((), dtype=torch.int64) * images.shape[axis] for axis in (1, 2)])
        inside, outside = sides.to(torch.float64), self._network(sides)
        blocks = (outside + (config.size_multiple - 1)) // config.size_multiple
        counts = [cast(int, blocks[axis].item()) for axis in (0, 1)]  # still open: int() would ask for them
        for count in counts:
            torch._check(count >= 1)  # else a trace can't tell whether there are pixels
        padded = [count * config.size_multiple for count in counts]
        pixels = images.permute(0, 3, 1, 2)  # (B, H, W, 3) -> (B, 3, H, W)
        if config.resize == "torch":
            pixels = _by_axes(self._bilinear, pixels, outside, padded, (1, 0))
        else:
            # All images are of one size, so that one of both orders gets all of them, and the other none.
            first = cast(int, (_down_first(images, outside) * images.shape[0]).item())
            torch._check(first >= 0)
            torch._check(first <= images.shape[0])
            down, across = torch.split(pixels, [first, images.shape[0] - first])
            pixels = torch.cat(
                [
                    _by_axes(self._pillow, down, outside, padded, (0, 1)),
                    _by_axes(self._pillow, across, outside, padded, (1, 0)),
                ]
            )
        rows, columns = torch.arange(pixels.shape[2]), torch.arange(pixels.shape[3])
        within = (rows < outside[0])[:, None] & (columns < outside[1])
        sizes = outside[None].expand(images.shape[0], 2)
        scales = (outside.to(torch.float64) / inside).to(torch.float32).flip(0).repeat(2)
        normal = torch.where(within, self._normalised(pixels), self.padding)
        limits = inside.to(torch.float32).flip(0).repeat(2)
        return NetworkImages(normal, sizes, scales, limits, torch.cat([scales[:2], scales.new_ones(1)]))

    def _network(self, sides: Tensor) -> Tensor:
        """(2,) int64, height and width in the network, of those of the image: by the arithmetic of `scale_for`.

        OpenVINO has float32 for float64, in which 61 * (64 / 61) is less than 64. There whole numbers decide, which are
        exact where float64 is not (in 0.02 % of all sizes), but for the side that a limit is for: a table says of it
        where float64 leaves a pixel of the limit out.
        """
        config = self.config
        more = 0.5 if config.resize == "pillow" else 0.0
        short, long = sides.min(), sides.max()
        limited = torch.zeros_like(short, dtype=torch.bool)
        if config.long_side is not None:
            limited = long * config.short_side > short * config.long_side
        side = torch.where(limited, long, short)
        limit = torch.where(limited, config.long_side or 0, config.short_side)
        scale = limit.to(torch.float64) / side.to(torch.float64)
        doubles = sides.to(torch.float64)
        exact = torch.floor(doubles * scale + more).to(torch.int64)
        if more:
            whole = (2 * sides * limit + side) // (2 * side)
        else:
            less = self.less_by_one[limited.to(torch.int64), side.clamp(max=_TOLD_SIDES)]
            whole = sides * limit // side - torch.where(sides == side, less, 0)
        has_doubles = doubles * (2**24 + 1) > doubles * 2**24  # float32 has no number between them
        return torch.where(has_doubles, exact, whole).clamp(min=1)

    def _normalised(self, pixels: Tensor) -> Tensor:
        if self.config.channel_order == "bgr":
            pixels = pixels.flip(1)
        return (pixels * (self.config.value_range / 255) - self.mean) / self.std

    def _pillow(self, pixels: Tensor, outside: Tensor, padded: int) -> Tensor:
        """Axis 2 with `outside` samples, and zeros up to `padded`: antialiased bilinear, rounded to 8 bits.

        Samples are made in blocks, each of those rows alone that it needs: a product with all of them takes a fifth of
        the time of a ResNet-50 in int8.
        """
        side = math.gcd(self.config.size_multiple, _BLOCK)
        index, samples = _windows(pixels.shape[2], outside, padded // side, side)
        rows = pixels[:, :, index.clamp(max=pixels.shape[2] - 1)]  # (B, 3, blocks, L, others)
        high, low = _pillow_weights(pixels.shape[2], outside, index[:, None], samples[:, :, None])
        rest = torch.floor((low @ rows + _HALF * _HALF / 2) / _HALF)
        return torch.floor((high @ rows + rest) / _HALF).clamp(0.0, 255.0).flatten(2, 3)

    def _bilinear(self, pixels: Tensor, outside: Tensor, padded: int) -> Tensor:
        """As `_pillow`, neither antialiased nor rounded; with the weights of PyTorch's own, to the bit.

        It divides the sides in float32, and rounds a place once, when half a pixel has been taken away.
        """
        inside = torch.ones(()) * pixels.shape[2]
        step = inside / outside.to(torch.float32)  # a number over a tensor would be its reciprocal, times the number
        place = ((torch.arange(padded) + 0.5).to(torch.float64) * step.to(torch.float64) - 0.5).to(torch.float32)
        place = torch.minimum(place.clamp(min=0.0), inside - 1)[:, None]
        columns = torch.arange(pixels.shape[2])
        return torch.minimum(1 - (place - columns), place - (columns - 1)).clamp(min=0.0) @ pixels


def _less_by_one(short_side: int, long_side: int | None) -> Tensor:
    """(2, sides) int64: 1 where side * (limit / side) is less than the shorter side's limit, and the longer one's."""
    sides = torch.arange(_TOLD_SIDES + 1, dtype=torch.float64).clamp(min=1)
    limits = torch.tensor([[short_side], [long_side or 0]], dtype=torch.float64)
    return (torch.floor(sides * (limits / sides)) < limits).to(torch.int64)


def _down_first(images: Tensor, outside: Tensor) -> Tensor:
    """1 where Pillow makes (B, H, W, 3) images lower before it makes them narrower, else 0.

    From 13 on it does where that takes away more than twice as many rows as columns: no page says so, but of 4000
    random pairs of sizes each was resized so. Before, it never does.
    """
    rows, columns = (images.shape[axis] - outside[axis - 1] for axis in (1, 2))
    lower = (rows > 0) & (rows > 2 * columns)
    return lower.to(torch.int64) * int(_PILLOW >= 13)


def _by_axes(
    weigh: Callable[[Tensor, Tensor, int], Tensor],
    pixels: Tensor,
    outside: Tensor,
    padded: Sequence[int],
    order: tuple[int, int],
) -> Tensor:
    """(B, 3, H, W), one axis after the other."""
    pixels = pixels.to(torch.float32)
    for axis in order:
        pixels = weigh(pixels.transpose(2, axis + 2), outside[axis], padded[axis]).transpose(2, axis + 2)
    return pixels


def _windows(inside: int, outside: Tensor, blocks: int, side: int) -> tuple[Tensor, Tensor]:
    """Which input pixels (blocks, L), some behind the last one, each block of output samples (blocks, side) needs."""
    samples = torch.arange(blocks)[:, None] * side + torch.arange(side)
    longer = torch.clamp(outside, min=inside)
    # A weight is above 0 where |(2 * pixel + 1) * outside - (2 * sample + 1) * inside| < 2 * longer.
    first = (2 * samples[:, 0] + 1) * inside - 2 * longer - outside
    first = torch.div(first, 2 * outside, rounding_mode="floor").clamp(min=0)
    length = torch.div(2 * (side - 1) * inside + 4 * longer, 2 * outside, rounding_mode="floor") + 2
    return first[:, None] + torch.arange(cast(int, length.item())), samples


def _pillow_weights(inside: int, outside: Tensor, pixels: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Upper and lower eleven bits of Pillow's weights of pixels (n, 1, L) in samples (n, s, 1), each (n, s, L).

    A weight is a triangle over the distance of two pixels' centres: with both in units of half a pixel over
    `inside * outside`, it is 2 * longer - distance, and the sum of a sample's weights divides it. All in whole numbers.
    """
    longer = torch.clamp(outside, min=inside)
    rest = (2 * longer - ((2 * pixels + 1) * outside - (2 * samples + 1) * inside).abs()).clamp(min=0)
    rest = rest * (pixels < inside)
    total = rest.sum(dim=-1, keepdim=True).clamp(min=1)
    # Long division, so that no number passes 31 bits, which is what some runtimes have.
    digits = []
    for base in (2**8, 2**7, 2**7):
        digit = torch.div(rest * base, total, rounding_mode="trunc")
        rest = rest * base - digit * total
        digits.append(digit)
    weight = (digits[0] * 2**7 + digits[1]) * 2**7 + digits[2] + (rest * 2 >= total).to(torch.int64)
    high = torch.div(weight, 2**11, rounding_mode="trunc")
    return high.to(torch.float32), (weight - high * 2**11).to(torch.float32)
