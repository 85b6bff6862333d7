"""The designs that the paper compares (figure 1, tables 1 to 3): all of them pixels -> the same kind of Features.

Every level of every design is 256 (`channels`) wide, which heads that are shared by all levels need; so heads cannot
tell the designs apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fpn.errors import ConfigError
from fpn.features.extractor import FeatureExtractor, declared_levels
from fpn.features.pyramid import FeaturePyramid, initialize, subsample
from fpn.structures import Features, Level


@dataclass(frozen=True)
class Source:
    """Where an image pyramid reads a level: which map of the body, on a picture of which scale."""

    scale: float
    level: str


# A body's c4 on the doubled, the same and the halved picture has strides 8, 16 and 32. Stride 4 would need a picture
# four times as large in each direction; it is read one stage earlier instead.
IMAGE_PYRAMID_SOURCES: dict[str, Source] = {
    "p2": Source(2.0, "c3"),
    "p3": Source(2.0, "c4"),
    "p4": Source(1.0, "c4"),
    "p5": Source(0.5, "c4"),
}


class ImagePyramid(FeatureExtractor):
    """Figure 1a, the featurized image pyramid: one body runs over the picture at several scales.

    Three passes over 2, 1 and 1/2 times the picture cost 4 + 1 + 1/4 times the body.

    Submodules: `body`; `laterals` and `smooths` by c-name, since all scales share them, as they share the body.
    """

    def __init__(
        self, *, body: nn.Module, channels: int = 256, sources: dict[str, Source] | None = None, extra: bool = True
    ) -> None:
        """Args:
        body: bottom-up path that declares c3 and c4.
        channels: width of the emitted maps.
        sources: where each level is read, finest first; None: `IMAGE_PYRAMID_SOURCES`.
        extra: whether p6 is added by subsampling p5.
        """
        super().__init__()
        self.body = body
        self.sources = dict(sources or IMAGE_PYRAMID_SOURCES)
        self.extra = extra
        available = {level.name: level for level in declared_levels(body)}
        wanted = sorted({source.level for source in self.sources.values()})
        if not set(wanted) <= set(available):
            raise ConfigError(
                f"an image pyramid reads {', '.join(wanted)}, its body emits {', '.join(available)}. "
                "Build the body with out=(3, 4)."
            )
        widths = {name: level.channels for name, level in available.items()}
        self.laterals = nn.ModuleDict({name: nn.Conv2d(width, channels, 1) for name, width in widths.items()})
        self.smooths = nn.ModuleDict({name: nn.Conv2d(channels, channels, 3, padding=1) for name in widths})
        levels = [
            Level(name, channels, round(available[source.level].stride / source.scale))
            for name, source in self.sources.items()
        ]
        if extra:
            levels.append(Level("p6", channels, 2 * levels[-1].stride))
        self.levels: tuple[Level, ...] = tuple(levels)
        initialize(self.laterals)
        initialize(self.smooths)

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Features:
        """The maps of `levels`, finest first."""
        scales = dict.fromkeys(source.scale for source in self.sources.values())
        passes: dict[float, Features] = {scale: self.body(rescale(pixels, scale)) for scale in scales}
        features: Features = {}
        for name, source in self.sources.items():
            bottom_up = passes[source.scale][source.level]
            features[name] = self.smooths[source.level](self.laterals[source.level](bottom_up))
        if self.extra:
            features["p6"] = subsample(list(features.values())[-1])
        return features


def rescale(pixels: Float[Tensor, "B 3 H W"], scale: float) -> Float[Tensor, "B 3 h w"]:
    """A picture at another scale; a remaining part of a pixel counts as one."""
    if scale == 1.0:
        return pixels
    height, width = (-int(-side * scale // 1) for side in pixels.shape[-2:])
    return functional.interpolate(
        pixels, size=(height, width), mode="bilinear", align_corners=False, antialias=scale < 1.0
    )


def single_map(body: nn.Module, channels: int) -> FeatureExtractor:
    """Figure 1b: one map of one picture, here through the same two convolutions as every level of a pyramid."""
    return FeaturePyramid(body=body, channels=channels, extra_levels="none")


def hierarchy(body: nn.Module, channels: int) -> FeatureExtractor:
    """Figure 1c: predictions from each bottom-up map; a 1x1 convolution brings them to one width, no more."""
    return FeaturePyramid(body=body, channels=channels, top_down="none", smoothed="none")


def feature_pyramid(body: nn.Module, channels: int) -> FeatureExtractor:
    """Figure 1d: the paper's Feature Pyramid Network."""
    return FeaturePyramid(body=body, channels=channels)


def lateral_without_top_down(body: nn.Module, channels: int) -> FeatureExtractor:
    """Tables 1d and 2d: 1x1 laterals and 3x3 convolutions on the bottom-up maps, and nothing comes down."""
    return FeaturePyramid(body=body, channels=channels, top_down="none")


def top_down_without_lateral(body: nn.Module, channels: int) -> FeatureExtractor:
    """Tables 1e and 2e: what comes down from c5 meets nothing, and has lost where things are."""
    return FeaturePyramid(body=body, channels=channels, lateral="top")


def finest_level(body: nn.Module, channels: int) -> FeatureExtractor:
    """Tables 1f and 2f: the whole pyramid is computed, and only P2 is used."""
    return FeaturePyramid(body=body, channels=channels, extra_levels="none", emitted="finest")


def image_pyramid(body: nn.Module, channels: int) -> FeatureExtractor:
    """Figure 1a."""
    return ImagePyramid(body=body, channels=channels)


@dataclass(frozen=True)
class Design:
    """A row of the paper's comparison.

    Attributes:
        name: key in `DESIGNS`.
        title: what the paper calls it.
        place: where in the paper.
        out: which levels its body must emit.
        build: body and channels -> features.
        lateral: whether it has the lateral connections, as the tables' columns say.
        top_down: whether it has the top-down path.
    """

    name: str
    title: str
    place: str
    out: tuple[int, ...]
    build: Callable[[nn.Module, int], FeatureExtractor]
    lateral: bool
    top_down: bool


_ALL = (2, 3, 4, 5)

DESIGNS: dict[str, Design] = {
    design.name: design
    for design in (
        Design("c4", "baseline on conv4", "figure 1b, tables 1a to 3a", (4,), single_map, False, False),
        Design("c5", "baseline on conv5", "figure 1b, tables 1b to 3b", (5,), single_map, False, False),
        Design("fpn", "FPN", "figure 1d, tables 1c to 3c", _ALL, feature_pyramid, True, True),
        Design("hierarchy", "pyramidal feature hierarchy", "figure 1c", _ALL, hierarchy, False, False),
        Design("lateral_only", "bottom-up pyramid", "tables 1d and 2d", _ALL, lateral_without_top_down, True, False),
        Design(
            "top_down_only",
            "top-down pyramid, w/o lateral",
            "tables 1e and 2e",
            _ALL,
            top_down_without_lateral,
            False,
            True,
        ),
        Design("p2_only", "only finest level", "tables 1f and 2f", _ALL, finest_level, True, True),
        Design("image_pyramid", "featurized image pyramid", "figure 1a", (3, 4), image_pyramid, False, False),
    )
}
