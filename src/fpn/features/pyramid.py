"""The feature pyramid: lateral, top-down, merge, smooth, and extra levels above."""

from __future__ import annotations

from typing import Literal, TypeAlias, cast, get_args

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fpn.errors import ConfigError
from fpn.features.extractor import FeatureExtractor, declared_levels, level_number
from fpn.structures import Features, Level

TopDown: TypeAlias = Literal["nearest", "bilinear", "bilinear_corners"]
Smoothed: TypeAlias = Literal["all", "all_but_top", "none"]
ExtraLevels: TypeAlias = Literal["none", "subsample", "convolutions_on_c5", "convolutions_on_p5"]


class FeaturePyramid(FeatureExtractor):
    """A bottom-up path with a top-down path and lateral connections, and levels added above.

    The merge of level k is lateral(c_k) + upsampled(k + 1), where what is upsampled is the *plain* merge of level k + 1
    (or its smoothed map: `smooth_before_merge`); a 3x3 convolution on the merge then gives p_k.

    Submodules: `body`; `laterals` by c-name; `smooths` by p-name; `extras` by p-name (convolutions only).

    Source: Lin et al. 2017, arXiv:1612.03144, section 3; P6 by subsampling: section 4.1, footnote 2; P6 and P7 by
    convolutions: Lin et al. 2017, arXiv:1708.02002, section 4, footnote 2.
    """

    def __init__(
        self,
        *,
        body: nn.Module,
        channels: int = 256,
        output_channels: int | None = None,
        top_down: TopDown = "nearest",
        smoothed: Smoothed = "all",
        smooth_before_merge: bool = False,
        top_kernel: int = 1,
        bias: bool = True,
        extra_levels: ExtraLevels = "subsample",
        num_extra: int | None = None,
    ) -> None:
        """Put a pyramid on a bottom-up path.

        Args:
            body: bottom-up path that declares its `levels`, all of which get a lateral.
            channels: width of laterals and merges.
            output_channels: width of the emitted maps; None: `channels`.
            top_down: how the coarser map is brought to the lateral's size, which need not be the double.
            smoothed: which merges get a 3x3 convolution.
            smooth_before_merge: the smoothed map goes further down, instead of the plain merge (fpn.pytorch).
            top_kernel: kernel of the coarsest lateral: 1, or 3 (the three-level teaching pyramid).
            bias: whether laterals and smoothing convolutions have biases.
            extra_levels: how levels above the coarsest are made: every second cell of it, or 3x3 convolutions of
                stride 2 on the body's or on the pyramid's coarsest map, with a ReLU between two of them.
            num_extra: how many; None: 1 by subsampling, 2 (P6 and P7) by convolutions.

        Raises:
            ConfigError: an unknown option, or options that contradict each other.
        """
        super().__init__()
        _check_choices(top_down=top_down, smoothed=smoothed, extra_levels=extra_levels)
        output_channels = output_channels or channels
        self.top_down: TopDown = top_down
        self.smooth_before_merge = smooth_before_merge
        self.extra_levels: ExtraLevels = extra_levels
        self.body = body
        bottom_up = declared_levels(body)
        self.laterals = _laterals(bottom_up, channels, top_kernel, bias)
        names = [_merged_name(level) for level in bottom_up]
        self.smooths = _smooths(names, smoothed, channels, output_channels, bias)
        merged = tuple(Level(_merged_name(level), output_channels, level.stride) for level in bottom_up)
        self.extra = _extra_levels(merged[-1], _num_extra(extra_levels, num_extra))
        source = bottom_up[-1] if extra_levels == "convolutions_on_c5" else merged[-1]
        self.extras = _extra_convolutions(self.extra, source.channels) if "convolutions" in extra_levels else _none()
        self.levels: tuple[Level, ...] = merged + self.extra
        self._check_widths(channels, output_channels)
        for part in (self.laterals, self.smooths, self.extras):
            initialize(part)

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Features:
        """The maps of `levels`, finest first."""
        bottom_up = cast(Features, self.body(pixels))
        merged = self.merge(bottom_up)
        return merged | self.extend(bottom_up, merged)

    def merge(self, bottom_up: Features) -> Features:
        """Bottom-up maps to pyramid maps, without the extra levels."""
        maps: Features = {}
        coarser: Tensor | None = None
        for name, lateral in reversed(list(self.laterals.items())):
            summed = lateral(bottom_up[name])
            if coarser is not None:
                summed = summed + upsample(coarser, summed, self.top_down)
            out = self._smooth(f"p{name[1:]}", summed)
            maps[f"p{name[1:]}"] = out
            coarser = out if self.smooth_before_merge else summed
        return dict(reversed(maps.items()))

    def extend(self, bottom_up: Features, merged: Features) -> Features:
        """The levels above the coarsest merged one."""
        top = bottom_up if self.extra_levels == "convolutions_on_c5" else merged
        current = list(top.values())[-1]
        maps: Features = {}
        for level in self.extra:
            if level.name in self.extras:
                # The ReLU is before P7's convolution only (RetinaNet's footnote 2).
                current = self.extras[level.name](functional.relu(current) if maps else current)
            else:
                current = subsample(current)
            maps[level.name] = current
        return maps

    def _smooth(self, name: str, summed: Tensor) -> Tensor:
        return cast(Tensor, self.smooths[name](summed)) if name in self.smooths else summed

    def _check_widths(self, channels: int, output_channels: int) -> None:
        all_smoothed = all(level.name in self.smooths for level in self.levels if level not in self.extra)
        if channels != output_channels and (not all_smoothed or self.smooth_before_merge):
            raise ConfigError(
                f"output_channels {output_channels} differs from channels {channels}, but only a smoothing convolution "
                "after the merge can change the width. Use smoothed='all' and smooth_before_merge=False."
            )


def upsample(coarser: Tensor, lateral: Tensor, mode: TopDown) -> Tensor:
    """Bring `coarser` to the height and width of `lateral`, whatever they are."""
    size = (lateral.shape[-2], lateral.shape[-1])
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


def _check_choices(*, top_down: str, smoothed: str, extra_levels: str) -> None:
    for option, got, choices in (
        ("top_down", top_down, get_args(TopDown)),
        ("smoothed", smoothed, get_args(Smoothed)),
        ("extra_levels", extra_levels, get_args(ExtraLevels)),
    ):
        if got not in choices:
            raise ConfigError(f"{option} is {got!r}; choose one of {', '.join(choices)}")


def _merged_name(level: Level) -> str:
    return f"p{level_number(level)}"


def _laterals(levels: tuple[Level, ...], channels: int, top_kernel: int, bias: bool) -> nn.ModuleDict:
    kernels = [1] * (len(levels) - 1) + [top_kernel]
    return nn.ModuleDict(
        {
            level.name: nn.Conv2d(level.channels, channels, kernel, padding=kernel // 2, bias=bias)
            for level, kernel in zip(levels, kernels, strict=True)
        }
    )


def _smooths(names: list[str], smoothed: Smoothed, channels: int, out: int, bias: bool) -> nn.ModuleDict:
    chosen = {"all": names, "all_but_top": names[:-1], "none": []}[smoothed]
    return nn.ModuleDict({name: nn.Conv2d(channels, out, 3, padding=1, bias=bias) for name in chosen})


def _num_extra(extra_levels: ExtraLevels, num_extra: int | None) -> int:
    if extra_levels == "none":
        if num_extra:
            raise ConfigError(f"num_extra is {num_extra}, but extra_levels is 'none'. Say how they are to be made.")
        return 0
    return num_extra if num_extra is not None else (1 if extra_levels == "subsample" else 2)


def _extra_levels(top: Level, count: int) -> tuple[Level, ...]:
    number = level_number(top)
    return tuple(Level(f"p{number + step}", top.channels, top.stride * 2**step) for step in range(1, count + 1))


def _extra_convolutions(levels: tuple[Level, ...], channels: int) -> nn.ModuleDict:
    widths = [channels] + [level.channels for level in levels[:-1]]
    return nn.ModuleDict(
        {
            level.name: nn.Conv2d(width, level.channels, 3, stride=2, padding=1)
            for level, width in zip(levels, widths, strict=True)
        }
    )


def _none() -> nn.ModuleDict:
    return nn.ModuleDict()
