"""Batch norms by what they have gathered, as a product and a sum, which don't ask whether there is anything to norm.

No trace could decide whether a number of RoIs, or sides that a tensor says, are 0.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class _PlainNorm(nn.Module):
    """One of them.

    Args:
        norm: the batch norm.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None, "gathered"
        assert norm.running_var is not None, "gathered"
        scale = (norm.running_var + norm.eps).rsqrt() * norm.weight
        self.register_buffer("scale", scale.detach()[:, None, None])
        self.register_buffer("shift", (norm.bias - norm.running_mean * scale).detach()[:, None, None])

    scale: Tensor
    shift: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), the same."""
        return x * self.scale + self.shift


def with_plain_norms(network: M) -> M:
    """A copy; timm's norms stay: they have an activation in them, and sides that are known not to be 0 before them."""
    made = copy.deepcopy(network)
    for parent in list(made.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and not hasattr(child, "act"):
                setattr(parent, name, _PlainNorm(child))
    return made
