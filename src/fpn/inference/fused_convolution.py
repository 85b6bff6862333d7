"""A convolution for inference: norm, sum and activation inside, in the fastest form that the device has."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fpn.features.frozen import FrozenNorm
from fpn.ops import winograd
from fpn.ops.onednn_convolution import convolve_and, has_onednn
from fpn.ops.same_padding import pad_same

# With 64 channels and less, moving patches into the other basis costs what the products save.
_WINOGRAD_CHANNELS = 128
# And memory that a transformed kernel is worth, by its side: a 3x3 one of 512 channels takes 36 MiB, to save 5 ms of 15
# on 25 x 34 cells; larger ones save more.
_WINOGRAD_BYTES = {3: 32 << 20, 5: 64 << 20, 7: 64 << 20}
# The transformed kernel is read as a whole: it has to pay for this many tiles at least.
_WINOGRAD_TILES = 20
# Worked on together: 384 take 16 MiB more and are no faster.
_TILES = 256


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
        self._kept: tuple[torch.Size, Tensor] | None = None
        self.over = False  # set where nobody else needs the map that is added
        self.transformed: Tensor | None = None
        self._name, self._scalars, self._algorithm = _known(activation)

    def prepare(self, spare: int | None = None) -> int:
        """Put the weights into the form that this machine's CPU multiplies fastest.

        Args:
            spare: bytes that the weights of Winograd's form, which come on top of the plain ones, may take; None: any.

        Returns:
            The bytes that they take.
        """
        weight = self.weight
        if weight.device.type != "cpu":
            return 0
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self._native = has_onednn(weight.dtype)
        size = self._winograd_bytes(weight)
        if size == 0 or (spare is not None and size > spare):
            return 0
        self.transformed = winograd.transform_weight(weight)
        return size

    def __getstate__(self) -> dict[str, Any]:
        """For copies: in oneDNN's order a weight can neither be copied nor written down."""
        return {**self.__dict__, "_buffers": {**self._buffers, "weight": _plain(self.weight)}, "_kept": None}

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """act(conv(x) + other)."""
        if self.same:
            x = pad_same(x, self.weight.shape[2:], self.options[1], self.options[2])
        if self._native and x.dtype != self.weight.dtype and torch.is_autocast_enabled(x.device.type):
            x = x.to(self.weight.dtype)
        if x.dtype == self.weight.dtype and not torch.compiler.is_compiling():
            if self.transformed is not None and other is None and self._worth_tiles(x):
                relu = self._name == "relu"
                y = winograd.convolve(x, self.transformed, self.bias, relu=relu, tiles=_TILES)
                return y if relu or self.activation is None else cast(Tensor, self.activation(y))
            if self._native and self._name is not None:
                return self._onednn(x, other)
        padding, stride, dilation = self.options
        y = functional.conv2d(x, _plain(self.weight), self.bias, stride, padding, dilation, self.groups)
        y = y if other is None else y.add_(other)
        return y if self.activation is None else cast(Tensor, self.activation(y))

    def _onednn(self, x: Tensor, other: Tensor | None) -> Tensor:
        weight, activation = self._weight_for(x.shape), (cast(str, self._name), self._scalars, self._algorithm)
        options = (*self.options, self.groups)
        return convolve_and(x, weight, self.bias, options, other=other, activation=activation, over=self.over)

    def _weight_for(self, shape: torch.Size) -> Tensor:
        """The weight in oneDNN's order for maps of that shape, once two in a row had it, until another one comes.

        The order depends on the shape, and one of another shape is far worse than none: 512 to 512 channels, 3x3, on
        3x4 cells takes 0.8 ms in its own order, 1.8 from channels-last, and 146 in the order of larger maps. To put it
        into its order takes longer than a small map: not for levels that take turns, as those of a head do. It is kept
        in one order alone, and goes back without a loss.
        """
        kept = self._kept
        if kept is None or kept[0] != shape:
            # Both at once: another thread may look.
            self._kept = kept = shape, _plain(self.weight if kept is None else kept[1])
            self.weight = kept[1]
            return kept[1]
        if kept[1].is_mkldnn:
            return kept[1]
        padding, stride, dilation = self.options
        reorder = cast(Any, torch._C._nn).mkldnn_reorder_conv2d_weight  # the stub lacks the shape
        weight: Tensor = reorder(kept[1].to_mkldnn(), padding, stride, dilation, self.groups, list(shape))
        self._kept = shape, weight
        self.weight = weight
        return weight

    def _winograd_bytes(self, weight: Tensor) -> int:
        """What the weights of that form would take; 0: they would not be worth it."""
        # In bf16 its sums would lose digits that the plain convolution keeps, and its transforms would cost more.
        outputs, channels, side, width = weight.shape
        if weight.dtype != torch.float32 or side != width or side not in winograd.FORMS:
            return 0
        plain = self.options == ((side // 2, side // 2), (1, 1), (1, 1)) and self.groups == 1 and not self.same
        if not plain or min(outputs, channels) < _WINOGRAD_CHANNELS:
            return 0
        size = outputs * channels * winograd.FORMS[side].patch ** 2 * weight.element_size()
        return size if size <= _WINOGRAD_BYTES[side] else 0

    def _worth_tiles(self, x: Tensor) -> bool:
        # Fewer images go together in `winograd`, too, but do not count here: of 2 to 8 maps of 4 x 5 to 10 x 13 cells,
        # 128 and 256 channels, oneDNN took 0.06 to 0.84 of the time, with one thread and with two (AMD EPYC).
        batch, _, height, width = x.shape
        together = batch if batch >= winograd.MANY and height * width <= winograd.SMALL else 1
        return together * winograd.count_tiles(height, width, kernel=self.weight.shape[2]) >= _WINOGRAD_TILES


def fold(convolution: nn.Conv2d, norm: FrozenNorm | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a convolution with the norm behind it inside."""
    weight = convolution.weight.detach()
    bias = None if convolution.bias is None else convolution.bias.detach()
    if norm is None:
        return weight.clone(), None if bias is None else bias.clone()
    scale, shift = norm.affine()
    return weight * scale.view(-1, 1, 1, 1), shift if bias is None else shift + bias * scale


def _plain(weight: Tensor) -> Tensor:
    """In channels-last order, if it is in oneDNN's own."""
    return weight.to_dense().contiguous(memory_format=torch.channels_last) if weight.is_mkldnn else weight


def _known(activation: nn.Module | None) -> tuple[str | None, list[Any], str | None]:
    """How oneDNN calls an activation: name, numbers, variant. Name None: it does not know it."""
    if activation is None:
        return "none", [], None
    if isinstance(activation, nn.ReLU6):
        return "hardtanh", [0.0, 6.0], None
    names = {nn.ReLU: "relu", nn.SiLU: "swish", nn.Hardswish: "hardswish", nn.Sigmoid: "sigmoid"}
    return names.get(type(activation)), [], None
