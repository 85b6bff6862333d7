"""EfficientDet's neck: cells that go down and up again, several times, and add maps by weights that they learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fpn.errors import ConfigError
from fpn.features.blocks import Norm, SamePool, convolution, initialize, make_norm
from fpn.features.extractor import Neck
from fpn.features.necks.config import Fusion, NeckConfig
from fpn.features.necks.fpn import extra_levels, upsample
from fpn.structures import Features, Level

# Keeps weights that are all 0 from being divided by 0; such a sum is 0 everywhere.
_NO_SUM = 1e-4


class BiFPN(Neck):
    """Repeated cells: each goes from the coarsest level down and from the finest up, with a sum on every step.

    The first extra level is a 1x1 convolution of the coarsest map that comes in, then a 3x3/2 max-pool; each further
    one is a pool of the one before. In the first cell every use of a map of another width has a 1x1 convolution of its
    own.

    Submodules: `entry` (a 1x1 convolution before the first extra level, where the widths differ), `cells`.

    Source: Tan et al. 2020, arXiv:1911.09070, section 3, as efficientdet-pytorch has it.
    """

    def __init__(self, levels: Sequence[Level], *, config: NeckConfig) -> None:
        """Args:
            levels: of the maps that come in, finest first; each becomes a level.
            config: `output_channels`, `norm`, `repeats`, `fusion`, and how many extra levels.

        Raises:
            ConfigError: fewer than two levels, or only the finest shall come out.
        """
        super().__init__(levels)
        width, top = config.output_channels, self.incoming[-1]
        self.config = config
        merged = [Level(f"p{level.number}", width, level.stride, level.number) for level in self.incoming]
        self.extra = extra_levels(merged[-1], config.extra_count)
        self.levels: tuple[Level, ...] = (*merged, *self.extra)
        if len(self.levels) < 2 or config.emitted != "all":
            raise ConfigError(
                f"bifpn goes down and up between levels, of which it would emit {len(self.levels)} "
                f"({', '.join(level.name for level in self.levels)}, neck.emitted {config.emitted!r}). "
                "Give it two maps, or extra levels, and emit all."
            )
        self.entry = _bring(top.channels, width, config) if self.extra else nn.Identity()
        self.pool = SamePool()
        incoming = [level.channels for level in self.incoming] + [width] * len(self.extra)
        widths = [incoming] + [[width] * len(self.levels)] * (config.repeats - 1)
        self.cells = nn.ModuleList(BiFPNCell(self.levels, each, config=config) for each in widths)
        initialize(self)

    def forward(self, features: Features) -> Features:
        """The maps of `levels`, finest first."""
        maps = [features[level.name] for level in self.incoming]
        current = cast(Tensor, self.entry(maps[-1]))
        for _ in self.extra:
            current = self.pool(current)
            maps.append(current)
        for cell in self.cells:
            maps = cell(maps)
        return {level.name: found for level, found in zip(self.levels, maps, strict=True)}


class BiFPNCell(nn.Module):
    """One way down and one way up.

    Submodules: `down`, the nodes of the way down, coarse to fine; `up`, those of the way up, fine to coarse.
    """

    def __init__(self, levels: Sequence[Level], channels: Sequence[int], *, config: NeckConfig) -> None:
        """Args:
        levels: what it emits, finest first.
        channels: of the maps that come in, in the same order.
        config: see `BiFPN`.
        """
        super().__init__()
        width, last = config.output_channels, len(levels) - 1
        # The coarsest map enters the way down as it came in, all finer ones as a node made them.
        above = [width] * (last - 1) + [channels[last]]
        self.down = nn.ModuleList(
            Node((channels[k], above[k]), pooled=None, config=config) for k in range(last - 1, -1, -1)
        )
        self.up = nn.ModuleList(
            Node(
                (channels[k], width, width) if k < last else (channels[k], width),
                pooled=levels[k].stride > levels[k - 1].stride,
                config=config,
            )
            for k in range(1, last + 1)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps of all levels, finest first, to as many."""
        down = list(maps)
        for node, k in zip(self.down, range(len(maps) - 2, -1, -1), strict=True):
            down[k] = node([maps[k], down[k + 1]])
        up = down[:1]
        for node, k in zip(self.up, range(1, len(maps)), strict=True):
            own = [maps[k], down[k]] if k < len(maps) - 1 else [maps[k]]
            up.append(node([*own, up[-1]]))
        return up


class Node(nn.Module):
    """Maps to one: brought to one width and size, added, then swish, a depthwise 3x3, a 1x1 convolution and a norm.

    Submodules: `brings` (what changes the width of each), `after`. Parameter: `weights` of the sum, one a map.
    """

    def __init__(self, channels: Sequence[int], *, pooled: bool | None, config: NeckConfig) -> None:
        """Args:
        channels: of the maps that come in; the first has the size of what comes out.
        pooled: whether the last is pooled to that size; None: it is coarser and is upsampled.
        config: see `BiFPN`.
        """
        super().__init__()
        width = config.output_channels
        self.fusion: Fusion = config.fusion
        self.pooled = pooled
        self.brings = nn.ModuleList(_bring(each, width, config) for each in channels)
        self.weights = None if config.fusion == "sum" else nn.Parameter(torch.ones(len(channels)))
        self.pool = SamePool()
        norm = make_norm(_norm(config), width, epsilon=_epsilon(config))
        self.after = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            nn.Conv2d(width, width, 1),
            *([] if norm is None else [norm]),
        )

    def forward(self, maps: Sequence[Float[Tensor, "B _ _ _"]]) -> Float[Tensor, "B C h w"]:
        """Maps of this level, and as the last one that of a neighbour -> (B, C, h, w)."""
        brought = [cast(Tensor, bring(each)) for bring, each in zip(self.brings, maps, strict=True)]
        if self.pooled is None:
            brought[-1] = upsample(brought[-1], brought[0], "nearest")
        elif self.pooled:
            brought[-1] = self.pool(brought[-1])
        return cast(Tensor, self.after(self._sum(brought)))

    def _sum(self, maps: Sequence[Tensor]) -> Tensor:
        if self.weights is None:
            return sum(maps[1:], start=maps[0])
        weights = self.weights.to(maps[0].dtype)
        if self.fusion == "softmax":
            weights = weights.softmax(dim=0)
        if self.fusion == "fast":
            positive = functional.relu(weights)
            weights = positive / (positive.sum() + _NO_SUM)
        parts = [each * weight for each, weight in zip(maps, weights.unbind(), strict=True)]
        return sum(parts[1:], start=parts[0])


def _norm(config: NeckConfig) -> Norm:
    return config.norm or "batch"


def _epsilon(config: NeckConfig) -> float:
    return config.norm_epsilon or 1e-3


def _bring(channels: int, width: int, config: NeckConfig) -> nn.Module:
    """A map of another width to this one; its convolution has a bias beside the norm, as in the original."""
    if channels == width:
        return nn.Identity()
    norm = make_norm(_norm(config), width, epsilon=_epsilon(config))
    return nn.Sequential(convolution(channels, width, 1), *([] if norm is None else [norm]))
