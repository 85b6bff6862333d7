"""Where chances come from: a function of (seed, epoch, index), apart for each kind of change."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch


def random_for(seed: int, epoch: int, index: int) -> torch.Generator:
    """The source of randomness of one image in one epoch. Neither the worker nor what came before matters."""
    # Neighbouring seeds must not give related streams: SeedSequence mixes all bits of all three numbers.
    mixed = np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))


class Draws(NamedTuple):
    """What zoom, flips and colour need, uniform in 0..1."""

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


@dataclass(frozen=True, kw_only=True)
class Chances:
    """All chances of one image. What one change draws, or whether it is on, leaves the others' chances alone.

    Attributes:
        draws: of zoom, flips and colour.
        root: what the other changes' streams are seeded from.
    """

    draws: Draws
    root: int

    @classmethod
    def drawn(cls, random: torch.Generator) -> Chances:
        """From a source that `random_for` made. The number of draws doesn't depend on the image."""
        draws = Draws(*torch.rand(len(Draws._fields), generator=random, dtype=torch.float64).tolist())
        return cls(draws=draws, root=int(torch.randint(2**63 - 1, (), generator=random)))

    def of(self, change: str) -> np.random.Generator:
        """The stream of one change, from its beginning."""
        return np.random.default_rng((self.root, zlib.crc32(change.encode())))

    @classmethod
    def of_partner(cls, random: np.random.Generator) -> Chances:
        """Those of an image that a change draws beside the first one."""
        return cls.drawn(torch.Generator().manual_seed(int(random.integers(2**63))))
