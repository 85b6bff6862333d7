"""A detector's features without what a graph needs no guard for."""

from __future__ import annotations

from torch import Tensor, nn

from fpn.export.same_padding import with_constant_padding
from fpn.features.extractor import Extractor, FeatureExtractor
from fpn.structures import Features


class UncutFeatures(nn.Module):
    """A backbone and a neck, whose maps are as large as their levels say wherever sides are multiples of strides.

    There is nothing to be cut then, and a trace with sides that a tensor says need not be able to prove it.

    Args:
        features: both.
    """

    def __init__(self, features: FeatureExtractor) -> None:
        super().__init__()
        self.backbone, self.neck, self.levels = features.backbone, features.neck, features.levels

    def forward(self, pixels: Tensor) -> Features:
        """See `Extractor.forward`."""
        maps: Features = self.neck(self.backbone(pixels))
        return {level.name: maps[level.name] for level in self.levels}


def features_for_graph(features: Extractor) -> nn.Module:
    """A copy with constant padding, uncut."""
    made = with_constant_padding(features)
    return UncutFeatures(made) if isinstance(made, FeatureExtractor) else made
