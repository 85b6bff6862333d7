"""What networks are built of: a convolution with what stands behind it, a fully connected layer, and a pool."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from fpn.ops import matrix_products

Norm: TypeAlias = Literal["none", "batch", "group", "layer"]

# Wu & He 2018, arXiv:1803.08494, section 3; where the width is no multiple, as many as divide both.
_GROUPS = 32


def make_norm(kind: Norm, channels: int, *, epsilon: float | None = None) -> nn.Module | None:
    """A norm of maps (B, C, H, W): over the batch, over each group of channels, or over the channels of each cell.

    Args:
        kind: which; "none": None.
        channels: C.
        epsilon: added to the variance; None: 1e-5, and 1e-6 over the channels of a cell.
    """
    match kind:
        case "none":
            return None
        case "batch":
            return _OverBatch(channels, eps=epsilon or 1e-5)
        case "group":
            return LevelNorm(math.gcd(_GROUPS, channels), channels, eps=epsilon or 1e-5)
        case "layer":
            return _OverChannels(channels, eps=epsilon or 1e-6)


class LevelNorm(nn.GroupNorm):
    """A group norm that also takes the single cell which a coarse level of a small image has."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """See `torch.nn.GroupNorm`, which would refuse a group of one value."""
        if _slow_backwards(x):
            normed: Tensor = _GroupNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)
            return normed
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def _slow_backwards(x: Tensor) -> bool:
    """Whether torch (2.15) takes its slow way back through a group norm: a CPU's bf16 in channels-last order."""
    if x.device.type != "cpu" or x.dtype != torch.bfloat16 or torch.compiler.is_compiling():
        return False
    return torch.is_grad_enabled() and x.is_contiguous(memory_format=torch.channels_last)


class _GroupNorm(torch.autograd.Function):
    """Goes back in float32, in which torch counts there anyway: the same gradients in 0.4 of the time (2 x 256 x 60 x
    80 in 32 groups, one core of an AMD EPYC: 2.8 ms instead of 7.5)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, epsilon: float) -> Tensor:
        count, channels, height, width = x.shape
        ctx.sizes = count, channels, height * width, groups
        y, mean, scale = torch.ops.aten.native_group_norm(x, weight, bias, *ctx.sizes, epsilon)
        ctx.save_for_backward(x, weight, mean, scale)
        return cast(Tensor, y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        parts = (grad.float(), x.float(), mean.float(), scale.float(), weight.float())
        down, own, shift = torch.ops.aten.native_group_norm_backward(*parts, *ctx.sizes, wanted)
        return (None if down is None else down.to(x.dtype)), own, shift, None, None


class _OverBatch(nn.BatchNorm2d):
    """A batch norm that learns from one value a channel, too: a map of 1x1 of a single image, or no RoI at all.

    Such a value has no spread to be divided by; it is normed by the statistics that were gathered so far.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() <= x.shape[1]:
            return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class _OverChannels(nn.LayerNorm):
    """A layer norm over the channels of each cell of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def convolution(
    inputs: int,
    outputs: int,
    kernel: int,
    *,
    stride: int = 1,
    bias: bool = True,
    norm: Norm = "none",
    epsilon: float | None = None,
    activation: nn.Module | None = None,
) -> nn.Module:
    """A padded convolution, then a norm, then an activation; the convolution alone where nothing follows it.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        kernel: side of the kernel, odd.
        stride: of the convolution.
        bias: whether it has one where no norm follows; a norm has its own.
        norm: what follows it.
        epsilon: of the norm; see `make_norm`.
        activation: what follows the norm.
    """
    first = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=bias and norm == "none")
    after = [part for part in (make_norm(norm, outputs, epsilon=epsilon), activation) if part is not None]
    return nn.Sequential(first, *after) if after else first


class Linear(nn.Linear):
    """A fully connected layer, by whichever library of a CPU is the faster."""

    def forward(self, x: Float[Tensor, "*n k"]) -> Float[Tensor, "*n m"]:
        """See `torch.nn.Linear`."""
        return matrix_products.linear(x, self.weight, self.bias)


def quicken_linear(net: nn.Module) -> None:
    """Make the fully connected layers of a network `Linear`, with the weights that they have."""
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                layer = Linear(child.in_features, child.out_features, child.bias is not None, device="meta")
                layer.weight, layer.bias = child.weight, child.bias
                setattr(parent, name, layer.train(child.training))


def initialize(part: nn.Module) -> None:
    """Kaiming-uniform with a = 1 and zero biases in all convolutions, as the paper's successors do."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class SamePool(nn.Module):
    """3x3/2 max-pool to ceil(size / 2), padded as TensorFlow's 'same': an odd cell of padding goes right and below."""

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """(B, C, H, W) -> (B, C, ceil(H / 2), ceil(W / 2))."""
        (top, bottom), (left, right) = (_same_padding(size) for size in x.shape[-2:])
        return functional.max_pool2d(functional.pad(x, (left, right, top, bottom), value=-torch.inf), 3, stride=2)


def _same_padding(size: int) -> tuple[int, int]:
    """(ceil(size / 2) - 1) * 2 + 3 - size cells, the smaller half first; an ONNX file rounds -size // 2 upwards."""
    return size % 2, 1
