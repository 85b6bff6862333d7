"""The feature pyramid: lateral, top-down, merge, smooth, and extra levels above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fpn.errors import ConfigError
from fpn.features.blocks import Norm, convolution, initialize
from fpn.features.extractor import Neck
from fpn.features.necks.config import NeckConfig, TopDown
from fpn.ops.shared_convolution import convolve_levels
from fpn.structures import Features, Level


class FeaturePyramid(Neck):
    """A top-down path with lateral connections from the maps that come in, and levels added above.

    The merge of level k is lateral(c_k) + upsampled(k + 1), where what is upsampled is the *plain* merge of level k + 1
    (or its smoothed map: `smooth_before_merge`); a 3x3 convolution on the merge then gives p_k. Every other pyramid of
    the well-known implementations, and the rivals in the paper's tables, are options of this one mechanism.

    A norm or an activation of the section stands behind each lateral and each smoothing convolution, in one sequence
    with it; extra levels have neither, as in Detectron2 and torchvision.

    Submodules: `laterals` by c-name; `smooths` by p-name; `extras` by p-name (convolutions only).

    Source: Lin et al. 2017, arXiv:1612.03144, section 3; P6 by subsampling: section 4.1, footnote 2; P6 and P7 by
    convolutions: Lin et al. 2017, arXiv:1708.02002, section 4, footnote 2.
    """

    releases = True

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
        self.extra = extra_levels(merged[-1], config.extra_count)
        self.levels: tuple[Level, ...] = self.merged + self.extra
        self.laterals = _laterals(self.incoming, config)
        self.smooths = _smooths(merged, config)
        convolved = self.extra if "convolutions" in config.extra_levels else ()
        self.extras = _extra_convolutions(convolved, self._extra_source_channels())
        self._check_widths()
        for part in (self.laterals, self.smooths, self.extras):
            initialize(part)

    def forward(self, features: Features, *, release: bool = False) -> Features:
        """The maps of `levels`, finest first; `release`: see `Neck`."""
        top = features[self.incoming[-1].name]
        merged, lateral = self._merge(features if release else dict(features))
        return {level.name: merged[level.name] for level in self.merged} | self._extend(top, lateral, merged)

    def _merge(self, features: Features) -> tuple[Features, Tensor]:
        """Maps that come in, taken out one by one, to pyramid maps without extra levels; and the coarsest's lateral."""
        maps: Features = {}
        coarser: Tensor | None = None
        lateral = features[self.incoming[-1].name]
        for level in reversed(self.incoming):
            summed = self._sum(level.name, features.pop(level.name), coarser)
            lateral = summed if coarser is None else lateral
            name = _merged_name(level)
            maps[name] = convolve_levels(self.smooths[name], [summed])[0] if name in self.smooths else summed
            coarser = maps[name] if self.config.smooth_before_merge else summed
        return dict(reversed(maps.items())), lateral

    def _extra_source_channels(self) -> int:
        """Width of the map that the first extra level is made of."""
        if self.config.extra_levels == "convolutions_on_c5":
            return self.incoming[-1].channels
        on_lateral = self.config.extra_levels == "convolutions_on_lateral"
        return self.config.channels if on_lateral else self.config.output_channels

    def _extend(self, top: Tensor, lateral: Tensor, merged: Features) -> Features:
        """The levels above the coarsest merged one; given are the coarsest map that came in, and its lateral."""
        sources = {"convolutions_on_c5": top, "convolutions_on_lateral": lateral}
        current = sources.get(self.config.extra_levels, merged[_merged_name(self.incoming[-1])])
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
        if lateral is None:
            return upsample(coarser, finer, self.config.top_down)
        del finer  # as high and wide as its lateral; where nobody else needs it, its memory is free now
        return _add(lateral, upsample(coarser, lateral, self.config.top_down))

    def _check_widths(self) -> None:
        channels, output_channels = self.config.channels, self.config.output_channels
        all_smoothed = all(level.name in self.smooths for level in self.merged)
        if channels != output_channels and (not all_smoothed or self.config.smooth_before_merge):
            raise ConfigError(
                f"output_channels {output_channels} differs from channels {channels}, but only a smoothing convolution "
                "after the merge can change the width. Use smoothed='all' and smooth_before_merge=False."
            )


def _add(own: Tensor, other: Tensor) -> Tensor:
    """Their sum; where no gradients are wanted it takes the place of the first, which nobody else has."""
    in_place = own.dtype == other.dtype and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return own.add_(other) if in_place else own + other


def upsample(coarser: Tensor, finer: Tensor, mode: TopDown) -> Tensor:
    """Bring `coarser` to the height and width of `finer`, whatever they are."""
    size = (finer.shape[-2], finer.shape[-1])
    if mode == "nearest":
        return functional.interpolate(coarser, size=size, mode="nearest")
    return functional.interpolate(coarser, size=size, mode="bilinear", align_corners=mode == "bilinear_corners")


def subsample(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
    """Every second cell, the first one included. Unlike a strided slice, max-pooling gives dense memory."""
    return functional.max_pool2d(x, kernel_size=1, stride=2)


def _merged_name(level: Level) -> str:
    return f"p{level.number}"


def _merged(level: Level, channels: int) -> Level:
    return Level(_merged_name(level), channels, level.stride, level.number)


def _laterals(incoming: tuple[Level, ...], config: NeckConfig) -> nn.ModuleDict:
    entering = incoming if config.lateral == "all" else incoming[-1:]
    kernels = [1] * (len(entering) - 1) + [config.top_kernel]
    norm: Norm | None = None if config.norm_on_lateral else "none"
    return nn.ModuleDict(
        {
            level.name: pyramid_convolution(level.channels, config.channels, kernel, config, norm=norm)
            for level, kernel in zip(entering, kernels, strict=True)
        }
    )


def _smooths(merged: tuple[Level, ...], config: NeckConfig) -> nn.ModuleDict:
    names = [level.name for level in merged]
    chosen = {"all": names, "all_but_top": names[:-1], "none": []}[config.smoothed]
    return nn.ModuleDict(
        {
            name: pyramid_convolution(config.channels, config.output_channels, 3, config)
            for name in (chosen if config.emitted == "all" else chosen[:1])
        }
    )


def pyramid_convolution(
    inputs: int, outputs: int, kernel: int, config: NeckConfig, *, stride: int = 1, norm: Norm | None = None
) -> nn.Module:
    """A convolution with the norm and activation that a section asks for, or with another norm."""
    return convolution(
        inputs,
        outputs,
        kernel,
        stride=stride,
        bias=config.bias,
        norm=norm or config.norm or "none",
        epsilon=config.norm_epsilon,
        activation=nn.ReLU() if config.relu else None,
    )


def extra_levels(top: Level, count: int) -> tuple[Level, ...]:
    """Levels above `top`, each of twice the stride of the one below."""
    numbers = range(top.number + 1, top.number + count + 1)
    return tuple(Level(f"p{k}", top.channels, top.stride * 2 ** (k - top.number), k) for k in numbers)


def _extra_convolutions(levels: tuple[Level, ...], channels: int) -> nn.ModuleDict:
    convolutions = nn.ModuleDict()
    for level in levels:
        convolutions[level.name] = nn.Conv2d(channels, level.channels, 3, stride=2, padding=1)
        channels = level.channels
    return convolutions
