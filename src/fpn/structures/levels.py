"""A pyramid level, and the maps of a pyramid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

# Finest first; keys "p2".."p7" (bottom-up maps "c2".."c5"); each value (B, channels, H, W).
Features: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Level:
    """What one map of a feature extractor is.

    Attributes:
        name: key in `Features`, such as "p3".
        channels: number of channels of the map.
        stride: network pixels from one cell to the next. Level k has 2**k by convention; this number is the one that
            counts (fpn.pytorch's p5 has stride 16).
        number: k, by which equation 1 chooses a level: 3 for "c3" and "p3".
    """

    name: str
    channels: int
    stride: int
    number: int
