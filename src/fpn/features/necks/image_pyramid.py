"""Figure 1a: one backbone over several scales of an image.

No neck, since it decides what the backbone sees: an extractor of its own, beside the backbone with a neck.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fpn.errors import ConfigError
from fpn.features.blocks import initialize
from fpn.features.extractor import BottomUp, Extractor
from fpn.features.necks.fpn import subsample
from fpn.structures import Features, Level


@dataclass(frozen=True)
class ScaledMap:
    """Where an image pyramid reads a level: which map of the backbone, on an image of which scale."""

    scale: float
    level: str


# A backbone's c4 on the doubled, the same and the halved image has strides 8, 16 and 32. Stride 4 would need an image
# four times as large in each direction; it is read one stage earlier instead.
# By the number of the level that is made of it.
IMAGE_PYRAMID_SOURCES: dict[int, ScaledMap] = {
    2: ScaledMap(2.0, "c3"),
    3: ScaledMap(2.0, "c4"),
    4: ScaledMap(1.0, "c4"),
    5: ScaledMap(0.5, "c4"),
}


class ImagePyramid(Extractor):
    """Figure 1a, the featurized image pyramid: one backbone runs over the image at several scales.

    Three passes over 2, 1 and 1/2 times the image cost 4 + 1 + 1/4 times the backbone.

    Submodules: `backbone`; `laterals` and `smooths` by c-name, since all scales share them, as they share the backbone.
    """

    def __init__(
        self,
        *,
        backbone: BottomUp,
        channels: int = 256,
        sources: dict[int, ScaledMap] | None = None,
        extra: bool = True,
    ) -> None:
        """Args:
        backbone: bottom-up path that emits c3 and c4.
        channels: width of the emitted maps.
        sources: where each level is read, by its number, finest first; None: `IMAGE_PYRAMID_SOURCES`.
        extra: whether a level is added by subsampling the coarsest.
        """
        super().__init__(backbone)
        self.sources = dict(sources or IMAGE_PYRAMID_SOURCES)
        self.extra = extra
        available = {level.name: level for level in backbone.levels}
        wanted = sorted({source.level for source in self.sources.values()})
        if not set(wanted) <= set(available):
            raise ConfigError(
                f"an image pyramid reads {', '.join(wanted)}, its backbone emits {', '.join(available)}. "
                "Build the backbone with out=(3, 4)."
            )
        widths = {name: level.channels for name, level in available.items()}
        self.laterals = nn.ModuleDict({name: nn.Conv2d(width, channels, 1) for name, width in widths.items()})
        self.smooths = nn.ModuleDict({name: nn.Conv2d(channels, channels, 3, padding=1) for name in widths})
        levels = [
            Level(f"p{number}", channels, round(available[source.level].stride / source.scale), number)
            for number, source in self.sources.items()
        ]
        if extra:
            top = levels[-1]
            levels.append(Level(f"p{top.number + 1}", channels, 2 * top.stride, top.number + 1))
        self.levels: tuple[Level, ...] = tuple(levels)
        initialize(self.laterals)
        initialize(self.smooths)

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Features:
        """The maps of `levels`, finest first."""
        scales = dict.fromkeys(source.scale for source in self.sources.values())
        passes: dict[float, Features] = {scale: self.backbone(rescale(pixels, scale)) for scale in scales}
        maps: list[Tensor] = []
        for source in self.sources.values():
            bottom_up = passes[source.scale][source.level]
            maps.append(self.smooths[source.level](self.laterals[source.level](bottom_up)))
        if self.extra:
            maps.append(subsample(maps[-1]))
        return {level.name: found for level, found in zip(self.levels, maps, strict=True)}


def rescale(pixels: Float[Tensor, "B 3 H W"], scale: float) -> Float[Tensor, "B 3 h w"]:
    """An image at another scale; a remaining part of a pixel counts as one."""
    if scale == 1.0:
        return pixels
    height, width = (-int(-side * scale // 1) for side in pixels.shape[-2:])
    return functional.interpolate(
        pixels, size=(height, width), mode="bilinear", align_corners=False, antialias=scale < 1.0
    )
