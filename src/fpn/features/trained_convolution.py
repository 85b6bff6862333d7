"""A bottom-up path in training, whose frozen norms, sums and ReLUs go into the convolutions before them, on a CPU.

A frozen norm is a number a channel: with it inside, a kernel gives maps that no further pass has to touch. Kernels
change with each step, so they are multiplied anew each time, which is far less than the maps are. Weights, buffers and
their names stay where they are, in the network that is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from fpn.features.frozen import FrozenNorm
from fpn.features.fused_graph import fused_graph
from fpn.ops.matrix_products import multiply, onednn_is_faster
from fpn.ops.onednn_convolution import NOTHING, ConvolutionOptions, FusedActivation, convolve_and, has_onednn
from fpn.ops.same_padding import pad_same
from fpn.ops.shared_convolution import has_hooks

# Those whose gradient follows from their result, which the next convolution remembers anyway.
_ACTIVATIONS: dict[type[nn.Module], FusedActivation] = {
    nn.ReLU: ("relu", [], None),
    nn.ReLU6: ("hardtanh", [0.0, 6.0], None),
}


class TrainedForms:
    """The form in which a network is trained, made when it first is, and again when its modules are others."""

    def __init__(self, wanted: Sequence[int]) -> None:
        """Args:
        wanted: positions of those of the network's maps that are read; see `fused_graph`.
        """
        self._wanted = tuple(wanted)
        self._modules: list[nn.Module] = []
        self._form: fx.GraphModule | None = None

    def __deepcopy__(self, memo: object) -> TrainedForms:
        return TrainedForms(self._wanted)

    def __reduce__(self) -> tuple[type[TrainedForms], tuple[tuple[int, ...]]]:
        return TrainedForms, (self._wanted,)

    def of(self, net: nn.Module, pixels: Tensor) -> nn.Module:
        """The form for these pixels; the network itself where there is none, or where it would not be the faster."""
        if not net.training or not torch.is_grad_enabled() or torch.compiler.is_compiling() or not _suits(pixels):
            return net
        modules = list(net.modules())
        if any(map(has_hooks, modules)):  # looked for first: a form is tried out, which would call them
            return net
        if len(modules) != len(self._modules) or any(a is not b for a, b in zip(modules, self._modules, strict=True)):
            self._modules, self._form = modules, _form(modules, self._wanted)
        return net if self._form is None else self._form


class TrainedConvolution(nn.Module):
    """act(norm(conv(x)) + other), with gradients."""

    def __init__(
        self, convolution: nn.Conv2d, *, norm: FrozenNorm | None, activation: nn.Module | None, same: bool
    ) -> None:
        """Args:
        convolution: whose weights are read each time.
        norm: that follows it; its tail is not looked at.
        activation: that follows; None: none.
        same: TensorFlow's padding, which depends on the size of the map.
        """
        super().__init__()
        self.convolution, self.norm, self.same = convolution, norm, same
        self.activation = NOTHING if activation is None else _ACTIVATIONS[type(activation)]

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """act(norm(conv(x)) + other)."""
        convolution = self.convolution
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        if self.same:
            x = pad_same(x, convolution.weight.shape[2:], convolution.stride, convolution.dilation)
        scale, bias = None, convolution.bias
        if self.norm is not None:
            scale, shift = self.norm.affine()
            bias = shift if bias is None else shift + bias * scale
        padding = (0, 0) if self.same else cast("tuple[int, int]", convolution.padding)
        options: ConvolutionOptions = (padding, convolution.stride, convolution.dilation, convolution.groups)
        y: Tensor = _Convolution.apply(x, convolution.weight, scale, bias, other, options, self.activation)
        return y


class _Convolution(torch.autograd.Function):
    """Remembers the map that comes in and, behind an activation, its result: both are other convolutions' maps, too."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        scale: Tensor | None,
        bias: Tensor | None,
        other: Tensor | None,
        options: ConvolutionOptions,
        activation: FusedActivation,
    ) -> Tensor:
        kernel = _scaled(weight, scale, x.dtype)
        shift = None if bias is None else bias.to(x.dtype)
        y = convolve_and(x, kernel, shift, options, other=other, activation=activation)
        ctx.save_for_backward(x, weight, scale, y if activation is not NOTHING else None)
        ctx.options, ctx.activation = options, activation
        ctx.types = None if bias is None else bias.dtype, None if other is None else other.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale, y = ctx.saved_tensors
        for_map, for_weight, _, for_bias, for_other = ctx.needs_input_grad[:5]
        grad = _through(grad.contiguous(memory_format=torch.channels_last), y, ctx.activation)
        shift = grad.sum(dim=(0, 2, 3), dtype=ctx.types[0]) if for_bias else None
        added = grad.to(ctx.types[1]) if for_other else None
        down, own = _gradients(grad, x, _scaled(weight, scale, x.dtype), ctx.options, (for_map, for_weight))
        if own is not None:
            result = torch.empty_like(weight)
            own = result.copy_(own) if scale is None else torch.mul(own, scale.view(-1, 1, 1, 1), out=result)
        return down, own, None, shift, added, None, None


def _form(modules: list[nn.Module], wanted: Sequence[int]) -> fx.GraphModule | None:
    """Of the first of these, which holds the others."""
    if any(isinstance(module, _BatchNorm) for module in modules):  # one that learns: trying out would change it
        return None
    if not any(isinstance(module, FrozenNorm) for module in modules):
        return None
    return fused_graph(modules[0], TrainedConvolution, tuple(_ACTIVATIONS), wanted=wanted)


def _suits(pixels: Tensor) -> bool:
    if pixels.device.type != "cpu" or not pixels.is_contiguous(memory_format=torch.channels_last):
        return False
    cast_to = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else pixels.dtype
    return cast_to in (torch.float32, torch.bfloat16) and has_onednn(cast_to)


def _scaled(weight: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    return (weight if scale is None else weight * scale.view(-1, 1, 1, 1)).to(dtype)


def _through(grad: Tensor, y: Tensor | None, activation: FusedActivation) -> Tensor:
    """What comes back through an activation with this result."""
    if y is None:
        return grad
    if activation[0] == "relu":
        return cast(Tensor, torch.ops.aten.threshold_backward(grad, y, 0))
    return cast(Tensor, torch.ops.aten.hardtanh_backward(grad, y, *activation[1]))


def _gradients(
    grad: Tensor, x: Tensor, kernel: Tensor, options: ConvolutionOptions, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Of the map and of the kernel, where they are wanted."""
    padding, stride, dilation, groups = options
    if not any(wanted):
        return None, None
    if _is_product(grad, kernel, options):
        return _product_gradients(grad, x, kernel, stride, wanted)
    where = (stride, padding, dilation, False, [0, 0], groups)
    down, own, _ = torch.ops.aten.convolution_backward(grad, x, kernel, None, *where, [*wanted, False])
    return down, own


def _is_product(grad: Tensor, kernel: Tensor, options: ConvolutionOptions) -> bool:
    """Whether oneDNN's products of matrices give a 1x1 kernel's gradients sooner than torch's convolution does.

    With one thread torch leaves such kernels to MKL. With more, oneDNN's own gradient of a kernel is the slower one
    where there are more channels than cells.
    """
    padding, _, _, groups = options
    if kernel.shape[2:] != (1, 1) or tuple(padding) != (0, 0) or groups != 1 or grad.dtype != torch.float32:
        return False
    few = grad.shape[0] * grad.shape[2] * grad.shape[3] < max(kernel.shape[:2])
    return onednn_is_faster() and (few or torch.get_num_threads() == 1)


def _product_gradients(
    grad: Tensor, x: Tensor, kernel: Tensor, stride: Any, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    down, own = None, None
    seen = x[:, :, :: stride[0], :: stride[1]].permute(0, 2, 3, 1)
    above, below = grad.permute(0, 2, 3, 1).reshape(-1, grad.shape[1]), seen.reshape(-1, x.shape[1])
    if wanted[0]:
        found = multiply(above, kernel.flatten(1)).view(seen.shape).permute(0, 3, 1, 2)
        down = found
        if found.shape != x.shape:
            down = torch.zeros_like(x, memory_format=torch.channels_last)
            down[:, :, :: stride[0], :: stride[1]] = found
    if wanted[1]:
        # One of them is turned, which costs a pass over it, and so does a result that is turned.
        if above.shape[1] <= 2 * below.shape[1]:
            own = multiply(above.t().contiguous(), below)
        else:
            own = multiply(below.t().contiguous(), above).t()
        own = own[:, :, None, None]
    return down, own
