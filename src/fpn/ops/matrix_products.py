"""Products of float32 matrices by whichever library of a CPU is the faster; those of `linear` have gradients.

torch multiplies float32 matrices by MKL, which on a processor that is not Intel's uses AVX2 where there is AVX-512: on
one core of an AMD EPYC (family 26) 36 products of 192 x 256 by 256 x 256 run at 96 GFLOP/s, by oneDNN at 181. Which of
the two it is follows from the processor alone, so that a run gives the same bits whenever it is repeated there.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def multiply(first: Float[Tensor, "m k"], second: Float[Tensor, "k n"]) -> Float[Tensor, "m n"]:
    """first @ second."""
    if first.is_cuda or not onednn_is_faster():
        return first @ second
    return _by_onednn(first, second.t())


def multiply_pairs(first: Float[Tensor, "b m k"], second: Float[Tensor, "b k n"]) -> Float[Tensor, "b m n"]:
    """The product of each pair of matrices."""
    if first.is_cuda or not onednn_is_faster():
        return torch.bmm(first, second)
    found = first.new_empty(len(first), first.shape[1], second.shape[2])
    for own, a, b in zip(found.unbind(), first.unbind(), second.transpose(1, 2).unbind(), strict=True):
        own.copy_(_by_onednn(a, b))  # one after the other: all at once would take their memory twice
    return found


def add_products(total: Float[Tensor, "b m n"], first: Float[Tensor, "b m k"], second: Float[Tensor, "b k n"]) -> None:
    """Add the product of each pair of matrices to `total`."""
    if first.is_cuda or not onednn_is_faster():
        total.baddbmm_(first, second)
        return
    # At once: oneDNN's product would bring each of them into this order alone, in twice the time.
    first = first.contiguous()
    for own, a, b in zip(total.unbind(), first.unbind(), second.transpose(1, 2).unbind(), strict=True):
        own += _by_onednn(a, b)


def linear(x: Float[Tensor, "*n k"], weight: Float[Tensor, "m k"], bias: Float[Tensor, " m"] | None) -> Tensor:
    """x @ weight.T + bias, (*n, m), as a fully connected layer has it; with gradients, and of any precision."""
    if torch.compiler.is_compiling() or x.numel() == 0 or not plain_float32(x, weight) or not onednn_is_faster():
        return functional.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in (x, weight, bias)):
        return cast(Tensor, _Linear.apply(x, weight, bias))
    return _by_onednn(x, weight, bias)


def plain_float32(*factors: Tensor) -> bool:
    """Whether a CPU multiplies them in float32, and autocast does not say otherwise."""
    if torch.is_autocast_enabled("cpu"):
        return False
    return all(each.device.type == "cpu" and each.dtype == torch.float32 for each in factors)


class _Linear(torch.autograd.Function):
    """Goes back by oneDNN, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _by_onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        flat = grad.flatten(0, -2)
        down = _by_onednn(flat, weight.t()).view(x.shape) if for_x else None
        own = _by_onednn(flat.t(), x.flatten(0, -2).t()) if for_weight else None
        return down, own, flat.sum(dim=0) if for_bias else None


def _by_onednn(first: Tensor, turned: Tensor, bias: Tensor | None = None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise.default(first, turned, bias, "none", [], "")
    return found


@lru_cache(maxsize=1)
def onednn_is_faster() -> bool:
    """Whether it is, of float32: with AVX-512 on a processor that is not Intel's, where torch has it."""
    if not (torch._C._has_mkldnn and torch.backends.mkldnn.enabled and torch._C.has_mkl):
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # before torch 2.12
        return False
    able = torch.cpu.get_capabilities()
    if able.get("architecture") != "x86_64" or not able.get("avx512_f") or "AMD" not in str(able.get("cpu_name")):
        return False
    first, second = torch.linspace(-1, 1, 12).view(3, 4), torch.linspace(1, -1, 20).view(4, 5)
    try:
        found = _by_onednn(first, second.t())
    except (AttributeError, RuntimeError):
        return False
    return torch.allclose(found, first @ second, rtol=1e-5, atol=1e-6)
