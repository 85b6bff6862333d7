"""A convolution for inference: norm, sum and activation inside, in the fastest form that the device has."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fpn.features.frozen import FrozenNorm
from fpn.ops import winograd

# With 64 channels and less, moving patches into the other basis costs what the products save.
_WINOGRAD_CHANNELS = 128
# And memory that a transformed kernel is worth: with 512 channels it takes 36 MiB, to save 5 ms of 15 on 25 x 34 cells.
_WINOGRAD_BYTES = 32 << 20
# The transformed kernel is read as a whole: it has to pay for this many tiles at least.
_WINOGRAD_TILES = 20


class FusedConvolution(nn.Module):
    """act(conv(x) + other), without gradients.

    Args:
        convolution: what to compute; left as it is.
        norm: that follows it, folded into weight and bias.
        activation: that follows it; None: none.
        same: TensorFlow's padding, which depends on the size of the map.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        convolution: nn.Conv2d,
        *,
        norm: FrozenNorm | None = None,
        activation: nn.Module | None = None,
        same: bool = False,
    ) -> None:
        super().__init__()
        weight, bias = fold(convolution, norm)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.options: tuple[Any, ...] = (convolution.padding, convolution.stride, convolution.dilation)
        self.groups, self.same, self.activation = convolution.groups, same, activation
        self._native = False
        self._packed: tuple[torch.Size, Tensor | None] | None = None
        self.transformed: Tensor | None = None
        self._name, self._scalars, self._algorithm = _known(activation)

    def prepare(self) -> None:
        """Put the weights into the form that this machine's CPU multiplies fastest."""
        weight = self.weight
        if weight.device.type != "cpu":
            return
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        # In bf16 its sums would lose digits that the plain convolution keeps, and its transforms would cost more.
        if weight.dtype == torch.float32 and self._suits_winograd(weight):
            self.transformed = winograd.transform_weight(weight)
        self._native = _has_onednn(weight.dtype)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """act(conv(x) + other)."""
        if self.same:
            x = _pad_same(x, self.weight.shape[2:], self.options[1], self.options[2])
        if self._native and x.dtype != self.weight.dtype and torch.is_autocast_enabled(x.device.type):
            x = x.to(self.weight.dtype)
        if x.dtype == self.weight.dtype and not torch.compiler.is_compiling():
            if self.transformed is not None and other is None and self._worth_tiles(x):
                relu = self._name == "relu"
                y = winograd.convolve(x, self.transformed, self.bias, relu=relu)
                return y if relu or self.activation is None else cast(Tensor, self.activation(y))
            if self._native and self._name is not None:
                return self._onednn(x, other)
        padding, stride, dilation = self.options
        y = functional.conv2d(x, self.weight, self.bias, stride, padding, dilation, self.groups)
        y = y if other is None else y.add_(other)
        return y if self.activation is None else cast(Tensor, self.activation(y))

    def _onednn(self, x: Tensor, other: Tensor | None) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        where = (self._weight_for(x.shape), self.bias, *self.options, self.groups)
        if other is None:
            arguments = (x, *where, self._name, self._scalars, self._algorithm)
            return cast(Tensor, torch.ops.mkldnn._convolution_pointwise(*arguments))
        other = other.to(x.dtype, memory_format=torch.channels_last)
        after = (None if self._name == "none" else self._name, self._scalars, self._algorithm)
        return cast(Tensor, torch.ops.mkldnn._convolution_pointwise.binary(x, other, *where, "add", 1.0, *after))

    def _weight_for(self, shape: torch.Size) -> Tensor:
        """The weight in oneDNN's order for maps of that shape, once two in a row had it; the last one is kept.

        The order depends on the shape, and one of another shape is far worse than none: 512 to 512 channels, 3x3, on
        3x4 cells takes 0.8 ms in its own order, 1.8 from channels-last, and 146 in the order of larger maps. To put it
        into its order takes longer than a small map: not for levels that take turns, as those of a head do.
        """
        kept = self._packed
        if kept is None or kept[0] != shape:
            self._packed = shape, None  # at once: another thread may look
            return self.weight
        if kept[1] is not None:
            return kept[1]
        padding, stride, dilation = self.options
        reorder = cast(Any, torch._C._nn).mkldnn_reorder_conv2d_weight  # the stub lacks the shape
        weight: Tensor = reorder(self.weight.to_mkldnn(), padding, stride, dilation, self.groups, list(shape))
        self._packed = shape, weight
        return weight

    def _suits_winograd(self, weight: Tensor) -> bool:
        plain = self.options == ((1, 1), (1, 1), (1, 1)) and self.groups == 1 and not self.same
        if not plain or tuple(weight.shape[2:]) != (3, 3) or min(weight.shape[:2]) < _WINOGRAD_CHANNELS:
            return False
        return weight[..., 0, 0].numel() * winograd.PATCH**2 * weight.element_size() <= _WINOGRAD_BYTES

    def _worth_tiles(self, x: Tensor) -> bool:
        batch, _, height, width = x.shape
        together = batch if batch >= winograd.MANY and height * width <= winograd.SMALL else 1
        return together * winograd.count_tiles(height, width) >= _WINOGRAD_TILES


def fold(convolution: nn.Conv2d, norm: FrozenNorm | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a convolution with the norm behind it inside."""
    weight = convolution.weight.detach()
    bias = None if convolution.bias is None else convolution.bias.detach()
    if norm is None:
        return weight.clone(), None if bias is None else bias.clone()
    scale, shift = norm.affine()
    return weight * scale.view(-1, 1, 1, 1), shift if bias is None else shift + bias * scale


def plain_convolution(module: nn.Module) -> bool:
    """Whether it is a convolution that `FusedConvolution` computes as it does."""
    return type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _known(activation: nn.Module | None) -> tuple[str | None, list[Any], str | None]:
    """How oneDNN calls an activation: name, numbers, variant. Name None: it does not know it."""
    if activation is None:
        return "none", [], None
    if isinstance(activation, nn.ReLU6):
        return "hardtanh", [0.0, 6.0], None
    names = {nn.ReLU: "relu", nn.SiLU: "swish", nn.Hardswish: "hardswish", nn.Sigmoid: "sigmoid"}
    return names.get(type(activation)), [], None


@lru_cache(maxsize=2)
def _has_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN's fused convolution works here, as a small one shows; bf16 needs AVX-512 or AMX."""
    if not (torch._C._has_mkldnn and torch.backends.mkldnn.enabled):
        return False
    convolution = FusedConvolution(nn.Conv2d(3, 8, 3, padding=1), activation=nn.ReLU())
    x = torch.linspace(-1, 1, 3 * 8 * 8).view(1, 3, 8, 8).to(dtype)
    with torch.inference_mode():
        convolution.to(dtype)
        plain = convolution(x)
        try:
            near = torch.allclose(convolution._onednn(x, None), plain, rtol=0.02, atol=0.02)
            return near and torch.allclose(convolution._onednn(x, plain), convolution(x, plain), rtol=0.02, atol=0.02)
        except (AttributeError, RuntimeError):
            return False


def _pad_same(x: Tensor, kernel: torch.Size, stride: tuple[int, ...], dilation: tuple[int, ...]) -> Tensor:
    """As many zeros as make ceil(size / stride) cells, the odd one at the right and bottom."""
    sides: list[int] = []
    for axis in (1, 0):
        size, step = x.shape[2 + axis], stride[axis]
        missing = max((-(-size // step) - 1) * step + (kernel[axis] - 1) * dilation[axis] + 1 - size, 0)
        sides += [missing // 2, missing - missing // 2]
    return functional.pad(x, sides) if any(sides) else x
