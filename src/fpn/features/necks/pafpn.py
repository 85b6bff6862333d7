"""Path aggregation: after the top-down path a second one, from the finest map up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from fpn.errors import ConfigError
from fpn.features.blocks import initialize
from fpn.features.necks.config import NeckConfig
from fpn.features.necks.fpn import FeaturePyramid, pyramid_convolution
from fpn.structures import Features, Level


class PathAggregation(FeaturePyramid):
    """A feature pyramid, then the way back up: what is fine reaches the coarsest level in as many steps as levels.

    With N2 the pyramid's finest map, N(k+1) is the pyramid's map of level k+1 plus a stride-2 convolution of Nk. The
    finest comes out as it is, all others after one more convolution. Extra levels are made of what comes out.

    Submodules: those of `FeaturePyramid`; `downs` and `outputs` by p-name, from the second level on.

    Source: Liu et al. 2018, arXiv:1803.01534, section 3.1, as MMDetection has it, which leaves out the ReLUs.
    """

    def __init__(self, levels: Sequence[Level], *, config: NeckConfig) -> None:
        """Args:
            levels: of the maps that come in, finest first.
            config: how; see `FeaturePyramid`.

        Raises:
            ConfigError: as `FeaturePyramid`, or only the finest level shall come out.
        """
        if config.emitted != "all":
            raise ConfigError(f"neck.emitted {config.emitted!r}: pafpn climbs from the finest level up. Use 'all'.")
        super().__init__(levels, config=config)
        width = config.output_channels
        steps = zip(self.merged, self.merged[1:], strict=False)
        self.downs = nn.ModuleDict(
            {
                upper.name: pyramid_convolution(width, width, 3, config, stride=upper.stride // lower.stride)
                for lower, upper in steps
            }
        )
        self.outputs = nn.ModuleDict(
            {level.name: pyramid_convolution(width, width, 3, config) for level in self.merged[1:]}
        )
        for part in (self.downs, self.outputs):
            initialize(part)

    def forward(self, features: Features, *, release: bool = False) -> Features:
        """The maps of `levels`, finest first; `release`: see `Neck`."""
        top = features[self.incoming[-1].name]
        merged, lateral = self._merge(features if release else dict(features))
        finest = self.merged[0].name
        maps: Features = {finest: merged[finest]}
        climbed = merged[finest]
        for level in self.merged[1:]:
            climbed = merged[level.name] + cast(Tensor, self.downs[level.name](climbed))
            maps[level.name] = self.outputs[level.name](climbed)
        return maps | self._extend(top, lateral, maps)
