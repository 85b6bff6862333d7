"""oneDNN's convolution with a sum and an activation inside: one pass over the result instead of three."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

# (padding, stride, dilation, groups), as oneDNN takes them.
ConvolutionOptions = tuple[Sequence[int], Sequence[int], Sequence[int], int]
# An activation as oneDNN calls it: name, numbers, variant.
FusedActivation = tuple[str, list[Any], str | None]
NOTHING: FusedActivation = ("none", [], None)


def convolve_and(
    x: Float[Tensor, "b c h w"],
    weight: Tensor,
    bias: Float[Tensor, " o"] | None,
    options: ConvolutionOptions,
    *,
    other: Float[Tensor, "b o _ _"] | None = None,
    activation: FusedActivation = NOTHING,
    over: bool = False,
) -> Float[Tensor, "b o _ _"]:
    """act(conv(x) + other), without gradients, in channels-last order.

    Args:
        x: of the weight's type.
        weight: plain or in oneDNN's own order.
        bias: added.
        options: of the convolution.
        other: a map that is added, of any type and order.
        activation: what follows.
        over: the result may be written over `other`, whose memory it then has.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    where = (weight, bias, *options)
    if other is None:
        return cast(Tensor, torch.ops.mkldnn._convolution_pointwise(x, *where, *activation))
    if options[3] > 1 and activation[0] in ("none", "relu"):  # bf16 in groups would be refused (torch 2.15)
        y = cast(Tensor, torch.ops.mkldnn._convolution_pointwise(x, *where, *NOTHING)).add_(other)
        return y if activation[0] == "none" else y.relu_()
    other = other.to(x.dtype, memory_format=torch.channels_last)
    after = (None if activation[0] == "none" else activation[0], *activation[1:])
    if over:
        return cast(Tensor, torch.ops.mkldnn._convolution_pointwise_.binary(other, x, *where, "add", 1.0, *after))
    return cast(Tensor, torch.ops.mkldnn._convolution_pointwise.binary(x, other, *where, "add", 1.0, *after))


@lru_cache(maxsize=2)
def has_onednn(dtype: torch.dtype) -> bool:
    """Whether it works here, as a small one shows; bf16 needs AVX-512 or AMX."""
    if not (torch._C._has_mkldnn and torch.backends.mkldnn.enabled):
        return False
    with torch.inference_mode():
        x = torch.linspace(-1, 1, 3 * 8 * 8).view(1, 3, 8, 8).to(dtype)
        weight = torch.linspace(-0.5, 0.5, 8 * 27).view(8, 3, 3, 3).to(dtype)
        plain = functional.conv2d(x, weight, padding=1)
        options: ConvolutionOptions = ((1, 1), (1, 1), (1, 1), 1)
        try:
            alone = convolve_and(x, weight, None, options, activation=("relu", [], None))
            added = convolve_and(x, weight, None, options, other=plain, activation=("relu", [], None))
            over = convolve_and(x, weight, None, options, other=plain.clone(), activation=("relu", [], None), over=True)
        except (AttributeError, RuntimeError):
            return False
        pairs = ((alone, plain.relu()), (added, (plain + plain).relu()), (over, added))
        return all(torch.allclose(found, wanted, rtol=0.02, atol=0.02) for found, wanted in pairs)
