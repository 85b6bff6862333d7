"""Bottom-up paths of the well-known implementations: a ResNet in their variant, and the teaching net."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from fpn.errors import ConfigError
from fpn.features.backbones.backbone import Backbone
from fpn.features.backbones.resnet_variants import BackboneConfig
from fpn.features.extractor import BottomUp
from fpn.structures import Features, Level

# timm's names by number of layers. 26 has two bottlenecks a stage: it is what kuangliu's FPN101() really builds.
BOTTLENECK_RESNETS = {26: "resnet26", 50: "resnet50", 101: "resnet101", 152: "resnet152"}


def resnet_backbone(
    depth: int,
    *,
    config: BackboneConfig | None = None,
    out: Sequence[int] = (2, 3, 4, 5),
    frozen_stages: int = 0,
    frozen_norm: bool = True,
) -> Backbone:
    """A bottleneck ResNet with random weights, in some toolkit's variant.

    Args:
        depth: 26, 50, 101 or 152. 26 is [2, 2, 2, 2] bottlenecks.
        config: what differs from timm's.
        out: levels to emit.
        frozen_stages: as in `Backbone`.
        frozen_norm: as in `Backbone`.

    Raises:
        ConfigError: another depth.
    """
    if depth not in BOTTLENECK_RESNETS:
        raise ConfigError(f"a bottleneck ResNet of depth {depth}: known are {', '.join(map(str, BOTTLENECK_RESNETS))}")
    return Backbone(
        BOTTLENECK_RESNETS[depth], config=config, out=out, frozen_stages=frozen_stages, frozen_norm=frozen_norm
    )


class ThreeLayerBackbone(BottomUp):
    """The teaching net under the three-level pyramid: three 3x3 convolutions of stride 2.

    As in the original there is no ReLU between them: it shows shapes and connections, and can't learn much.

    Submodules: `convolutions` by c-name.
    """

    def __init__(self, channels: Sequence[int] = (64, 128, 256)) -> None:
        """Args:
        channels: widths of c1, c2, ...
        """
        super().__init__()
        self.levels: tuple[Level, ...] = tuple(Level(f"c{k}", width, 2**k, k) for k, width in enumerate(channels, 1))
        inputs = [3, *channels]
        self.convolutions = nn.ModuleDict(
            {
                level.name: nn.Conv2d(width, level.channels, 3, stride=2, padding=1)
                for level, width in zip(self.levels, inputs, strict=False)
            }
        )

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Features:
        """The maps of c1, c2, c3."""
        features: Features = {}
        for name, convolution in self.convolutions.items():
            pixels = convolution(pixels)
            features[name] = pixels
        return features
