"""The feature pyramid: lateral, top-down, merge, smooth, and extra levels above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fpn.errors import ConfigError
from fpn.features.extractor import Neck
from fpn.features.necks.config import NeckConfig, TopDown
from fpn.structures import Features, Level


class FeaturePyramid(Neck):
    """A top-down path with lateral connections from the maps that come in, and levels added above.

    The merge of level k is lateral(c_k) + upsampled(k + 1), where what is upsampled is the *plain* merge of level k + 1
    (or its smoothed map: `smooth_before_merge`); a 3x3 convolution on the merge then gives p_k. Every other pyramid of
    the well-known implementations, and the rivals in the paper's tables, are options of this one mechanism.

    Submodules: `laterals` by c-name; `smooths` by p-name; `extras` by p-name (convolutions only).

    Source: Lin et al. 2017, arXiv:1612.03144, section 3; P6 by subsampling: section 4.1, footnote 2; P6 and P7 by
    convolutions: Lin et al. 2017, arXiv:1708.02002, section 4, footnote 2.
    """

    def __init__(self, levels: Sequence[Level], *, config: NeckConfig) -> None:
        """A pyramid with as many levels as maps come in, and extra ones.

        Args:
            levels: of the maps that come in, finest first; each becomes a level of the pyramid.
            config: how; its `finest_level` says which maps should come in, and is not read here.

        Raises:
            ConfigError: no levels, or two widths without the smoothing that would change one into the other.
        """
        super().__init__(levels)
        self.config = config
        merged = tuple(_merged(level, config.output_channels) for level in self.incoming)
        self.merged = merged if config.emitted == "all" else merged[:1]
        self.extra = _extra_levels(merged[-1], config.extra_count)
        self.levels: tuple[Level, ...] = self.merged + self.extra
        self.laterals = _laterals(self.incoming, config)
        self.smooths = _smooths(merged, config)
        source = self.incoming[-1] if config.extra_levels == "convolutions_on_c5" else merged[-1]
        self.extras = _extra_convolutions(self.extra if "convolutions" in config.extra_levels else (), source.channels)
        self._check_widths()
        for part in (self.laterals, self.smooths, self.extras):
            initialize(part)

    def forward(self, features: Features) -> Features:
        """The maps of `levels`, finest first."""
        merged = self._merge(features)
        return {level.name: merged[level.name] for level in self.merged} | self._extend(features, merged)

    def _merge(self, features: Features) -> Features:
        """Maps that come in to pyramid maps, finest first, without the extra levels."""
        maps: Features = {}
        coarser: Tensor | None = None
        for level in reversed(self.incoming):
            summed = self._sum(level.name, features[level.name], coarser)
            name = _merged_name(level)
            maps[name] = cast(Tensor, self.smooths[name](summed)) if name in self.smooths else summed
            coarser = maps[name] if self.config.smooth_before_merge else summed
        return dict(reversed(maps.items()))

    def _extend(self, features: Features, merged: Features) -> Features:
        """The levels above the coarsest merged one."""
        top = self.incoming[-1]
        on_c5 = self.config.extra_levels == "convolutions_on_c5"
        current = features[top.name] if on_c5 else merged[_merged_name(top)]
        maps: Features = {}
        for level in self.extra:
            if level.name in self.extras:
                current = self.extras[level.name](
                    functional.relu(current) if maps and self.config.extra_relu else current
                )
            else:
                current = subsample(current)
            maps[level.name] = current
        return maps

    def _sum(self, name: str, finer: Tensor, coarser: Tensor | None) -> Tensor:
        lateral = cast(Tensor, self.laterals[name](finer)) if name in self.laterals else None
        if coarser is None or self.config.top_down == "none":
            assert lateral is not None, f"{name} has neither a lateral nor a map above it"
            return lateral
        down = upsample(coarser, finer, self.config.top_down)
        return down if lateral is None else lateral + down

    def _check_widths(self) -> None:
        channels, output_channels = self.config.channels, self.config.output_channels
        all_smoothed = all(level.name in self.smooths for level in self.merged)
        if channels != output_channels and (not all_smoothed or self.config.smooth_before_merge):
            raise ConfigError(
                f"output_channels {output_channels} differs from channels {channels}, but only a smoothing convolution "
                "after the merge can change the width. Use smoothed='all' and smooth_before_merge=False."
            )


def upsample(coarser: Tensor, finer: Tensor, mode: TopDown) -> Tensor:
    """Bring `coarser` to the height and width of `finer`, whatever they are."""
    size = (finer.shape[-2], finer.shape[-1])
    if mode == "nearest":
        return functional.interpolate(coarser, size=size, mode="nearest")
    return functional.interpolate(coarser, size=size, mode="bilinear", align_corners=mode == "bilinear_corners")


def subsample(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
    """Every second cell, the first one included. Unlike a strided slice, max-pooling gives dense memory."""
    return functional.max_pool2d(x, kernel_size=1, stride=2)


def initialize(part: nn.Module) -> None:
    """Kaiming-uniform with a = 1 and zero biases, as the paper's successors do."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _merged_name(level: Level) -> str:
    return f"p{level.number}"


def _merged(level: Level, channels: int) -> Level:
    return Level(_merged_name(level), channels, level.stride, level.number)


def _laterals(incoming: tuple[Level, ...], config: NeckConfig) -> nn.ModuleDict:
    entering = incoming if config.lateral == "all" else incoming[-1:]
    kernels = [1] * (len(entering) - 1) + [config.top_kernel]
    return nn.ModuleDict(
        {
            level.name: nn.Conv2d(level.channels, config.channels, kernel, padding=kernel // 2, bias=config.bias)
            for level, kernel in zip(entering, kernels, strict=True)
        }
    )


def _smooths(merged: tuple[Level, ...], config: NeckConfig) -> nn.ModuleDict:
    names = [level.name for level in merged]
    chosen = {"all": names, "all_but_top": names[:-1], "none": []}[config.smoothed]
    return nn.ModuleDict(
        {
            name: nn.Conv2d(config.channels, config.output_channels, 3, padding=1, bias=config.bias)
            for name in (chosen if config.emitted == "all" else chosen[:1])
        }
    )


def _extra_levels(top: Level, count: int) -> tuple[Level, ...]:
    numbers = range(top.number + 1, top.number + count + 1)
    return tuple(Level(f"p{k}", top.channels, top.stride * 2 ** (k - top.number), k) for k in numbers)


def _extra_convolutions(levels: tuple[Level, ...], channels: int) -> nn.ModuleDict:
    convolutions = nn.ModuleDict()
    for level in levels:
        convolutions[level.name] = nn.Conv2d(channels, level.channels, 3, stride=2, padding=1)
        channels = level.channels
    return convolutions
