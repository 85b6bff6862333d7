"""What every features module is: pixels in, named levels out, and a declaration of those levels."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from fpn.structures import Features, Level


class FeatureExtractor(nn.Module):
    """pixels (B, 3, H, W) -> Features.

    Attributes:
        levels: what `forward` emits, finest first. A map of a level has ceil(H / stride) rows and ceil(W / stride)
            columns, whatever H and W are (the one exception: `stem_pool="ceil"` of a ResNet loses a row at some sizes).
    """

    levels: tuple[Level, ...]

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Features:
        """The maps of all levels, finest first, keyed by level name."""
        raise NotImplementedError


def declared_levels(body: nn.Module) -> tuple[Level, ...]:
    """The levels that a part declares; a part that declares none is no bottom-up path."""
    levels = getattr(body, "levels", None)
    assert isinstance(levels, Sequence), f"{type(body).__name__} declares no levels"
    assert all(isinstance(level, Level) for level in levels), f"{type(body).__name__}.levels: {levels}"
    return tuple(levels)


def level_number(level: Level) -> int:
    """2 for "c2" and "p2"."""
    return int(level.name[1:])
