"""Convolutions in front of an output of a dense head, shared by all levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from fpn.features.blocks import make_norm
from fpn.heads.dense import DenseConfig
from fpn.ops.shared_convolution import convolve_levels


class Tower(nn.Module):
    """3x3 convolutions, each with a norm, if any, and a ReLU: maps (B, C, H, W) of all levels -> the same shapes.

    Submodules: `convolutions` and `norms` by number; without norms the latter is empty.

    Source: Lin et al. 2017, arXiv:1708.02002, section 4; group norms: Tian et al. 2019, arXiv:1904.01355.
    """

    def __init__(self, *, width: int, config: DenseConfig) -> None:
        super().__init__()
        grouped = config.norm == "group"
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, bias=config.norm_bias or not grouped)
            for _ in range(config.convolutions)
        )
        norms = [make_norm(config.norm, width) for _ in range(config.convolutions)]
        self.norms = nn.ModuleList(norm for norm in norms if norm is not None)
        self.activation: nn.Module = nn.ReLU(inplace=True)
        for layer in self.convolutions:
            initialize_output(layer)

    def forward(self, maps: Sequence[Float[Tensor, "b c _ _"]]) -> list[Float[Tensor, "b c _ _"]]:
        """All of them, one after the other, on the maps of all levels."""
        found = list(maps)
        for number, convolution in enumerate(self.convolutions):
            convolved = convolve_levels(convolution, found)
            found = [self.activation(self.norms[number](x) if len(self.norms) else x) for x in convolved]
        return found

    def rewrite(self, fuse: Callable[[nn.Conv2d, nn.Module], nn.Module]) -> None:
        """Put each activation into the convolution before it, unless a norm stands between the two."""
        if len(self.norms):
            return
        for number, layer in enumerate(self.convolutions):
            assert isinstance(layer, nn.Conv2d), "made above"
            self.convolutions[number] = fuse(layer, nn.ReLU(inplace=True))
        self.activation = nn.Identity()


def initialize_output(layer: nn.Module) -> None:
    """Small random weights, and biases of 0."""
    assert isinstance(layer, nn.Conv2d), type(layer)
    nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
