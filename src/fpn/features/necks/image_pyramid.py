"""Figure 1a: one body over several scales of an image."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fpn.errors import ConfigError
from fpn.features.extractor import FeatureExtractor, declared_levels
from fpn.features.necks.fpn import initialize, subsample
from fpn.structures import Features, Level


@dataclass(frozen=True)
class Source:
    """Where an image pyramid reads a level: which map of the body, on an image of which scale."""

    scale: float
    level: str


# A body's c4 on the doubled, the same and the halved image has strides 8, 16 and 32. Stride 4 would need an image
# four times as large in each direction; it is read one stage earlier instead.
IMAGE_PYRAMID_SOURCES: dict[str, Source] = {
    "p2": Source(2.0, "c3"),
    "p3": Source(2.0, "c4"),
    "p4": Source(1.0, "c4"),
    "p5": Source(0.5, "c4"),
}


class ImagePyramid(FeatureExtractor):
    """Figure 1a, the featurized image pyramid: one body runs over the image at several scales.

    Three passes over 2, 1 and 1/2 times the image cost 4 + 1 + 1/4 times the body.

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
    """An image at another scale; a remaining part of a pixel counts as one."""
    if scale == 1.0:
        return pixels
    height, width = (-int(-side * scale // 1) for side in pixels.shape[-2:])
    return functional.interpolate(
        pixels, size=(height, width), mode="bilinear", align_corners=False, antialias=scale < 1.0
    )
