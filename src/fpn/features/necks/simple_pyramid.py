"""ViTDet's neck: all levels from one map, since a plain transformer has no other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from fpn.errors import ConfigError
from fpn.features.blocks import Norm, convolution, initialize, make_norm
from fpn.features.extractor import Neck
from fpn.features.necks.config import NeckConfig
from fpn.features.necks.fpn import extra_levels, subsample
from fpn.structures import Features, Level

# The coarsest level that is made of the map itself, as in the other pyramids: what is above it is an extra level.
_COARSEST = 5


class SimplePyramid(Neck):
    """The coarsest map that comes in, at several scales: by 2x2 transposed convolutions, as it is, or max-pooled.

    Each scale then has a 1x1 and a 3x3 convolution. Nothing flows between the levels. Levels finer than that map have
    a whole number of cells for each of its cells: where an image ends within one, they are larger than the image, and
    `FeatureExtractor` cuts them.

    Submodules: `scales` by p-name.

    Source: Li et al. 2022, arXiv:2203.16527, section 3 and appendix A.2.
    """

    def __init__(self, levels: Sequence[Level], *, config: NeckConfig) -> None:
        """Args:
            levels: of the maps that come in, of which the last is read.
            config: `output_channels`, `norm`, `finest_level`, and how many extra levels.

        Raises:
            ConfigError: no levels, or only the finest shall come out.
        """
        super().__init__(levels)
        self.incoming = self.incoming[-1:]
        if config.emitted != "all":
            raise ConfigError(f"neck.emitted {config.emitted!r}: simple_pyramid makes each level by itself. Use 'all'.")
        source = self.incoming[0]
        self.config = config
        numbers = range(min(config.finest_level, source.number), max(source.number, _COARSEST) + 1)
        merged = [Level(f"p{k}", config.output_channels, _scaled(source, k), k) for k in numbers]
        self.extra = extra_levels(merged[-1], config.extra_count)
        self.levels: tuple[Level, ...] = (*merged, *self.extra)
        self.scales = nn.ModuleDict(
            {level.name: _scale(source.channels, level.number - source.number, config) for level in merged}
        )
        initialize(self)

    def forward(self, features: Features) -> Features:
        """The maps of `levels`, finest first."""
        source = features[self.incoming[0].name]
        maps: Features = {name: scale(source) for name, scale in self.scales.items()}
        current = maps[next(reversed(maps))]
        for level in self.extra:
            current = subsample(current)
            maps[level.name] = current
        return maps


def _scaled(source: Level, number: int) -> int:
    return round(source.stride * 2.0 ** (number - source.number))


def _scale(channels: int, steps: int, config: NeckConfig) -> nn.Sequential:
    """A map at 2 ** -steps times its size, then the two convolutions."""
    norm, epsilon, width = config.norm or "layer", config.norm_epsilon, config.output_channels
    parts: list[nn.Module] = [nn.MaxPool2d(2, stride=2, ceil_mode=True) for _ in range(steps)]
    if steps < 0:
        parts, channels = _upwards(channels, -steps, norm, epsilon)
    parts += [convolution(channels, width, 1, norm=norm, epsilon=epsilon, bias=config.bias)]
    parts += [convolution(width, width, 3, norm=norm, epsilon=epsilon, bias=config.bias)]
    return nn.Sequential(*parts)


def _upwards(channels: int, steps: int, norm: Norm, epsilon: float | None) -> tuple[list[nn.Module], int]:
    """Transposed convolutions, each to half the width, with a norm and a GELU between two; and the last width."""
    widths = [max(channels // 2**step, 1) for step in range(steps + 1)]
    parts: list[nn.Module] = []
    for before, after in pairwise(widths):
        if parts:
            between = make_norm(norm, before, epsilon=epsilon)
            parts += [*([] if between is None else [between]), nn.GELU()]
        parts.append(nn.ConvTranspose2d(before, after, 2, stride=2))
    return parts, widths[-1]
