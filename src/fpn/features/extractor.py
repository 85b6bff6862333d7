"""What features are made of: a bottom-up path, a neck, and the two together as what heads read from.

Each part declares the levels that it emits. A neck is built from the levels of the maps it receives and knows nothing
else of where they come from, so every neck goes on every bottom-up path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor, nn

from fpn.errors import ConfigError
from fpn.structures import Features, Level

# A network and the positions of those of its maps that are read -> a faster form that gives these, others or None in
# the other places; None: there is no such form.
Fold: TypeAlias = Callable[[nn.Module, Sequence[int]], nn.Module | None]


class BottomUp(nn.Module):
    """A backbone: pixels (B, 3, H, W) -> the maps "c2", "c3", ... of its stages.

    Attributes:
        levels: what `forward` emits, finest first. A map of a level has ceil(H / stride) rows and ceil(W / stride)
            columns, whatever H and W are (the one exception: `stem_pool="ceil"` of a ResNet loses a row at some sizes).
    """

    levels: tuple[Level, ...]

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Features:
        """The maps of all levels, finest first, keyed by level name."""
        raise NotImplementedError

    def rewrite(self, change: Fold) -> bool:
        """Put what `change` makes of the network inside in its place, such as a faster form that computes the same.

        Returns:
            Whether it was replaced. Not, where `change` gives None, or where there is no such network: then all stays
            as it was.
        """
        return False


class Neck(nn.Module):
    """Features -> Features: reads maps that come in, emits those of the levels it declares.

    Attributes:
        incoming: the levels it reads, finest first; there may be more in what it is given.
        levels: what `forward` emits, finest first, of the same sizes as those of `BottomUp`, or larger: what is read
            ends with a whole cell, and a finer map may have more rows and columns than the image.
        releases: whether `forward` takes `release=True` as well: the maps are the neck's own, and it takes each out of
            `features` where it reads it, so that its memory is free for what comes.
    """

    levels: tuple[Level, ...]
    releases = False

    def __init__(self, levels: Sequence[Level]) -> None:
        """Args:
            levels: of the maps that come in, finest first.

        Raises:
            ConfigError: there are none.
        """
        super().__init__()
        if not levels:
            raise ConfigError(f"{type(self).__name__} got no levels: a neck needs at least one map to read")
        self.incoming = tuple(levels)

    def forward(self, features: Features) -> Features:
        """The maps of all levels, finest first, keyed by level name."""
        raise NotImplementedError


class Extractor(nn.Module):
    """What heads read from: pixels (B, 3, H, W) -> Features, over one backbone.

    Attributes:
        backbone: its bottom-up path.
        levels: what `forward` emits, finest first, of the same sizes as those of `BottomUp`.
    """

    levels: tuple[Level, ...]

    def __init__(self, backbone: BottomUp) -> None:
        """Args:
        backbone: a bottom-up path.
        """
        super().__init__()
        self.backbone = backbone

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Features:
        """The maps of all levels, finest first, keyed by level name."""
        raise NotImplementedError

    def backbone_parameters(self) -> list[nn.Parameter]:
        """The weights that are not new: training may give them a lower rate than what is built on top of them."""
        return list(self.backbone.parameters())


class FeatureExtractor(Extractor):
    """A backbone, then a neck on its maps.

    Submodules: `backbone`, `neck`.
    """

    def __init__(self, *, backbone: BottomUp, neck: Neck) -> None:
        """Args:
            backbone: a bottom-up path.
            neck: built from levels of that path.

        Raises:
            ConfigError: the neck reads what the backbone does not emit.
        """
        super().__init__(backbone)
        foreign = [level for level in neck.incoming if level not in backbone.levels]
        if foreign:
            raise ConfigError(
                f"{type(neck).__name__} was built for {foreign[0]}, its backbone emits "
                f"{', '.join(map(str, backbone.levels))}. Build the neck from levels of this backbone."
            )
        self.neck = neck
        self.levels: tuple[Level, ...] = neck.levels

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Features:
        """The neck's maps, finest first."""
        return self.read(self.backbone(pixels), (pixels.shape[-2], pixels.shape[-1]), release=True)

    def read(self, bottom_up: Features, size: tuple[int, int], *, release: bool = False) -> Features:
        """What the neck makes of the backbone's maps of pixels of this size, height and width.

        A neck that makes finer maps than it reads can't know where the image ends: such a map is cut to the size that
        its level declares.

        Args:
            bottom_up: the maps.
            size: height and width of the pixels.
            release: nobody else needs the maps; see `Neck`.
        """
        release = release and self.neck.releases
        maps: Features = self.neck(bottom_up, release=True) if release else self.neck(bottom_up)
        return {level.name: _cut(maps[level.name], level.stride, size) for level in self.levels}


def _cut(map_: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    height, width = (-(-side // stride) for side in size)
    whole = map_.shape[-2] <= height and map_.shape[-1] <= width
    return map_ if whole else map_[..., :height, :width]
