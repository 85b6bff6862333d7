"""The feature pyramid: lateral, top-down, merge, smooth, and extra levels above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, cast, get_args

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fpn.errors import ConfigError
from fpn.features.extractor import Neck
from fpn.structures import Features, Level

TopDown: TypeAlias = Literal["nearest", "bilinear", "bilinear_corners", "none"]
Lateral: TypeAlias = Literal["all", "top"]
Smoothed: TypeAlias = Literal["all", "all_but_top", "none"]
ExtraLevels: TypeAlias = Literal["none", "subsample", "convolutions_on_c5", "convolutions_on_p5"]
Emitted: TypeAlias = Literal["all", "finest"]


class FeaturePyramid(Neck):
    """A top-down path with lateral connections from the maps that come in, and levels added above.

    The merge of level k is lateral(c_k) + upsampled(k + 1), where what is upsampled is the *plain* merge of level k + 1
    (or its smoothed map: `smooth_before_merge`); a 3x3 convolution on the merge then gives p_k. Every other pyramid of
    the well-known implementations, and the rivals in the paper's tables, are options of this one mechanism.

    Submodules: `laterals` by c-name; `smooths` by p-name; `extras` by p-name (convolutions only).

    Source: Lin et al. 2017, arXiv:1612.03144, section 3; P6 by subsampling: section 4.1, footnote 2; P6 and P7 by
    convolutions: Lin et al. 2017, arXiv:1708.02002, section 4, footnote 2.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        *,
        channels: int = 256,
        output_channels: int | None = None,
        top_down: TopDown = "nearest",
        lateral: Lateral = "all",
        smoothed: Smoothed = "all",
        smooth_before_merge: bool = False,
        top_kernel: int = 1,
        bias: bool = True,
        extra_levels: ExtraLevels = "subsample",
        num_extra: int | None = None,
        extra_relu: bool = True,
        emitted: Emitted = "all",
    ) -> None:
        """A pyramid with as many levels as maps come in, and extra ones.

        Args:
            levels: of the maps that come in, finest first; each becomes a level of the pyramid.
            channels: width of laterals and merges.
            output_channels: width of the emitted maps; None: `channels`.
            top_down: how the coarser map is brought to the lateral's size, which need not be the double; "none": it is
                not added, so each level stands alone.
            lateral: which bottom-up maps enter; "top": the coarsest only, the rest is upsampled from it.
            smoothed: which merges get a 3x3 convolution.
            smooth_before_merge: the smoothed map goes further down, instead of the plain merge (fpn.pytorch).
            top_kernel: kernel of the coarsest lateral: 1, or 3 (the three-level teaching pyramid).
            bias: whether laterals and smoothing convolutions have biases.
            extra_levels: how levels above the coarsest are made: every second cell of it, or 3x3 convolutions of
                stride 2 on the coarsest map that comes in or on the pyramid's.
            num_extra: how many; None: 1 by subsampling, 2 (P6 and P7) by convolutions.
            extra_relu: whether there is a ReLU before P7's convolution (MMDetection's RetinaNet has none).
            emitted: "finest": only the finest level comes out, and only it is smoothed.

        Raises:
            ConfigError: an unknown option, or options that contradict each other.
        """
        super().__init__(levels)
        _check_choices(
            top_down=top_down, lateral=lateral, smoothed=smoothed, extra_levels=extra_levels, emitted=emitted
        )
        _check_contradictions(top_down=top_down, lateral=lateral, extra_levels=extra_levels, emitted=emitted)
        output_channels = output_channels or channels
        self.top_down: TopDown = top_down
        self.smooth_before_merge = smooth_before_merge
        self.extra_levels: ExtraLevels = extra_levels
        self.extra_relu = extra_relu
        merged = tuple(_merged(level, output_channels) for level in self.incoming)
        self.merged = merged if emitted == "all" else merged[:1]
        self.extra = _extra_levels(merged[-1], _num_extra(extra_levels, num_extra))
        self.levels: tuple[Level, ...] = self.merged + self.extra
        entering = self.incoming if lateral == "all" else self.incoming[-1:]
        self.laterals = _laterals(entering, channels, top_kernel, bias)
        chosen = _smoothed_names(merged, smoothed)
        self.smooths = _smooths(chosen if emitted == "all" else chosen[:1], channels, output_channels, bias)
        source = self.incoming[-1] if extra_levels == "convolutions_on_c5" else merged[-1]
        self.extras = _extra_convolutions(self.extra if "convolutions" in extra_levels else (), source.channels)
        self._check_widths(channels, output_channels)
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
            coarser = maps[name] if self.smooth_before_merge else summed
        return dict(reversed(maps.items()))

    def _extend(self, features: Features, merged: Features) -> Features:
        """The levels above the coarsest merged one."""
        top = self.incoming[-1]
        current = features[top.name] if self.extra_levels == "convolutions_on_c5" else merged[_merged_name(top)]
        maps: Features = {}
        for level in self.extra:
            if level.name in self.extras:
                current = self.extras[level.name](functional.relu(current) if maps and self.extra_relu else current)
            else:
                current = subsample(current)
            maps[level.name] = current
        return maps

    def _sum(self, name: str, finer: Tensor, coarser: Tensor | None) -> Tensor:
        lateral = cast(Tensor, self.laterals[name](finer)) if name in self.laterals else None
        if coarser is None or self.top_down == "none":
            assert lateral is not None, f"{name} has neither a lateral nor a map above it"
            return lateral
        down = upsample(coarser, finer, self.top_down)
        return down if lateral is None else lateral + down

    def _check_widths(self, channels: int, output_channels: int) -> None:
        all_smoothed = all(level.name in self.smooths for level in self.merged)
        if channels != output_channels and (not all_smoothed or self.smooth_before_merge):
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


def _check_choices(**got: str) -> None:
    choices = {
        "top_down": TopDown,
        "lateral": Lateral,
        "smoothed": Smoothed,
        "extra_levels": ExtraLevels,
        "emitted": Emitted,
    }
    for option, value in got.items():
        if value not in get_args(choices[option]):
            raise ConfigError(f"{option} is {value!r}; choose one of {', '.join(get_args(choices[option]))}")


def _check_contradictions(*, top_down: str, lateral: str, extra_levels: str, emitted: str) -> None:
    if top_down == "none" and lateral == "top":
        raise ConfigError("top_down='none' and lateral='top' leave the finer levels without a source. Change one.")
    if emitted == "finest" and extra_levels != "none":
        raise ConfigError(f"emitted='finest' leaves no place for extra_levels={extra_levels!r}. Use 'none'.")


def _merged_name(level: Level) -> str:
    return f"p{level.number}"


def _merged(level: Level, channels: int) -> Level:
    return Level(_merged_name(level), channels, level.stride, level.number)


def _laterals(levels: tuple[Level, ...], channels: int, top_kernel: int, bias: bool) -> nn.ModuleDict:
    kernels = [1] * (len(levels) - 1) + [top_kernel]
    return nn.ModuleDict(
        {
            level.name: nn.Conv2d(level.channels, channels, kernel, padding=kernel // 2, bias=bias)
            for level, kernel in zip(levels, kernels, strict=True)
        }
    )


def _smoothed_names(levels: tuple[Level, ...], smoothed: Smoothed) -> list[str]:
    names = [level.name for level in levels]
    return {"all": names, "all_but_top": names[:-1], "none": []}[smoothed]


def _smooths(names: list[str], channels: int, out: int, bias: bool) -> nn.ModuleDict:
    return nn.ModuleDict({name: nn.Conv2d(channels, out, 3, padding=1, bias=bias) for name in names})


def _num_extra(extra_levels: ExtraLevels, num_extra: int | None) -> int:
    if extra_levels == "none":
        if num_extra:
            raise ConfigError(f"num_extra is {num_extra}, but extra_levels is 'none'. Say how they are to be made.")
        return 0
    return num_extra if num_extra is not None else (1 if extra_levels == "subsample" else 2)


def _extra_levels(top: Level, count: int) -> tuple[Level, ...]:
    numbers = range(top.number + 1, top.number + count + 1)
    return tuple(Level(f"p{k}", top.channels, top.stride * 2 ** (k - top.number), k) for k in numbers)


def _extra_convolutions(levels: tuple[Level, ...], channels: int) -> nn.ModuleDict:
    convolutions = nn.ModuleDict()
    for level in levels:
        convolutions[level.name] = nn.Conv2d(channels, level.channels, 3, stride=2, padding=1)
        channels = level.channels
    return convolutions
