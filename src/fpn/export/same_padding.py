"""Convolutions whose padding depends on the image's size, made constant for sizes that divide by their strides."""

from __future__ import annotations

import copy
from typing import TypeVar, cast

from timm.layers import Conv2dSame
from torch import nn

M = TypeVar("M", bound=nn.Module)


def with_constant_padding(network: M) -> M:
    """A copy in which TensorFlow's "same" padding is a number: (kernel - 1) * dilation + 1 - stride, less of it first.

    It is, for every side that is a multiple of the stride; a size that is still open makes a long formula of it at each
    layer, which takes minutes to trace.
    """
    made = copy.deepcopy(network)
    for parent in list(made.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Conv2dSame):
                setattr(parent, name, _constant(child))
    return made


def _constant(convolution: nn.Conv2d) -> nn.Sequential:
    (below, above), (left, right) = (
        _halves(max((kernel - 1) * dilation + 1 - stride, 0))
        for kernel, dilation, stride in zip(
            convolution.kernel_size, convolution.dilation, convolution.stride, strict=True
        )
    )
    plain = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        cast(tuple[int, int], convolution.kernel_size),
        stride=cast(tuple[int, int], convolution.stride),
        dilation=cast(tuple[int, int], convolution.dilation),
        groups=convolution.groups,
        bias=convolution.bias is not None,
    )
    plain.weight, plain.bias = convolution.weight, convolution.bias
    return nn.Sequential(nn.ZeroPad2d((left, right, below, above)), plain)


def _halves(count: int) -> tuple[int, int]:
    return count // 2, count - count // 2
