"""One 3x3 convolution of the maps of all levels, whose gradients take as few multiplications as its results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from fpn.ops import winograd
from fpn.ops.matrix_products import plain_float32

# Below these, moving patches and the kernel into the other basis costs what the products save.
_CHANNELS, _OUTPUTS = 128, 64
# Of a map, and of all maps that go together, which the kernel is moved for once.
_TILES, _TILES_TOGETHER = 64, 160


def convolve_levels(convolution: nn.Module, maps: Sequence[Tensor]) -> list[Tensor]:
    """What `convolution` makes of each map (B, C, H, W); of large ones up to rounding, if a CPU is to give gradients.

    There Winograd's form is the faster one: the kernel is moved into the other basis once for all levels, and so is its
    gradient back.
    """
    tiles = [len(x) * winograd.count_tiles(x.shape[2], x.shape[3]) if _suits(convolution, x) else 0 for x in maps]
    large = [count >= _TILES for count in tiles]
    if sum(count for count in tiles if count >= _TILES) < _TILES_TOGETHER:
        return [convolution(x) for x in maps]
    assert isinstance(convolution, nn.Conv2d), "looked at above"
    chosen = [x for x, pays in zip(maps, large, strict=True) if pays]
    found = iter(cast("tuple[Tensor, ...]", _Convolution.apply(convolution.weight, convolution.bias, *chosen)))
    return [next(found) if pays else convolution(x) for x, pays in zip(maps, large, strict=True)]


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of the module does more than compute: then its weights are not for others to compute with."""
    own = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(own or _has_any_global_hook())  # type: ignore[no-untyped-call]


def _suits(convolution: nn.Module, x: Tensor) -> bool:
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or type(convolution) is not nn.Conv2d:
        return False
    if has_hooks(convolution):
        return False
    shape = (convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation)
    if shape != ((3, 3), (1, 1), (1, 1), (1, 1)) or convolution.groups != 1 or convolution.padding_mode != "zeros":
        return False
    if convolution.in_channels < _CHANNELS or convolution.out_channels < _OUTPUTS:
        return False
    return plain_float32(convolution.weight, x)


class _Convolution(torch.autograd.Function):
    """Remembers the maps, as the plain one does, and nothing in the other basis, which would be twice that."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, *maps: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight, *maps)
        kernel = winograd.transform_weight(weight, exact=False)
        return tuple(winograd.convolve(x, kernel, bias) for x in maps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, *maps = ctx.saved_tensors
        for_weight, for_bias, *for_maps = ctx.needs_input_grad
        down: list[Tensor | None] = [None for _ in maps]
        if any(for_maps):
            # What goes back through a convolution of stride 1 is one again, with the kernel turned around.
            kernel = winograd.transform_weight(weight.flip(2, 3).transpose(0, 1), exact=False)
            down = [winograd.convolve(g, kernel) if need else None for g, need in zip(grads, for_maps, strict=True)]
        own = winograd.weight_gradient(maps, grads) if for_weight else None
        shift = torch.stack([grad.sum(dim=(0, 2, 3)) for grad in grads]).sum(dim=0) if for_bias else None
        return own, shift, *down
