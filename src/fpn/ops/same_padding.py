"""Padding that depends on the size of the map, as TensorFlow's convolutions have it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """As many zeros as make ceil(size / stride) cells, the odd one at the right and bottom."""
    sides: list[int] = []
    for axis in (1, 0):
        size, step = x.shape[2 + axis], stride[axis]
        missing = max((-(-size // step) - 1) * step + (kernel[axis] - 1) * dilation[axis] + 1 - size, 0)
        sides += [missing // 2, missing - missing // 2]
    return functional.pad(x, sides) if any(sides) else x
