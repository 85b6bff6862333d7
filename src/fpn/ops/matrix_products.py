"""Products of float32 matrices by whichever library of a CPU is the faster, without gradients.

torch multiplies float32 matrices by MKL, which on a processor that is not Intel's uses AVX2 where there is AVX-512: on
one core of an AMD EPYC (family 26) 36 products of 192 x 256 by 256 x 256 run at 96 GFLOP/s, by oneDNN at 181. Which of
the two it is follows from the processor alone, so that a run gives the same bits whenever it is repeated there.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor


def multiply(first: Float[Tensor, "m k"], second: Float[Tensor, "k n"]) -> Float[Tensor, "m n"]:
    """first @ second."""
    if first.is_cuda or not onednn_is_faster():
        return first @ second
    return _by_onednn(first, second.t())


def multiply_pairs(first: Float[Tensor, "b m k"], second: Float[Tensor, "b k n"]) -> Float[Tensor, "b m n"]:
    """The product of each pair of matrices."""
    if first.is_cuda or not onednn_is_faster():
        return torch.bmm(first, second)
    return torch.stack([_by_onednn(a, b) for a, b in zip(first.unbind(), second.transpose(1, 2).unbind(), strict=True)])


def add_products(total: Float[Tensor, "b m n"], first: Float[Tensor, "b m k"], second: Float[Tensor, "b k n"]) -> None:
    """Add the product of each pair of matrices to `total`."""
    if first.is_cuda or not onednn_is_faster():
        total.baddbmm_(first, second)
    else:
        total += multiply_pairs(first, second)


def _by_onednn(first: Tensor, turned: Tensor) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise.default(first, turned, None, "none", [], "")
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
