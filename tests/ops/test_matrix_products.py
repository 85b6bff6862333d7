from __future__ import annotations

import pytest
import torch

from fpn.ops import matrix_products
from fpn.ops.matrix_products import add_products, linear, multiply, multiply_pairs


@pytest.mark.parametrize("by_onednn", [False, True])
def test_products_are_those_of_torch_whoever_multiplies(by_onednn, monkeypatch) -> None:
    if by_onednn and not (torch._C._has_mkldnn and torch.backends.mkldnn.enabled):
        pytest.skip("torch was built without oneDNN")
    monkeypatch.setattr(matrix_products, "onednn_is_faster", lambda: by_onednn)
    random = torch.Generator().manual_seed(0)
    # Three pairs, one factor turned around, as the gradient of a kernel has it.
    first = torch.randn(3, 7, 5, generator=random).transpose(1, 2)
    second = torch.randn(3, 7, 4, generator=random)
    wanted = torch.einsum("bmk,bkn->bmn", first.double(), second.double()).float()
    total = torch.ones(3, 5, 4)
    add_products(total, first, second)
    for found, expected in (
        (multiply(first[0], second[0]), wanted[0]),
        (multiply_pairs(first, second), wanted),
        (total, wanted + 1),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("by_onednn", [False, True])
@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 4, 5), (1, 5), (0, 5)])
def test_a_linear_layer_is_that_of_torch_whoever_multiplies(by_onednn, shape, monkeypatch) -> None:
    if by_onednn and not (torch._C._has_mkldnn and torch.backends.mkldnn.enabled):
        pytest.skip("torch was built without oneDNN")
    monkeypatch.setattr(matrix_products, "onednn_is_faster", lambda: by_onednn)
    random = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(size, generator=random, requires_grad=True) for size in (shape, (6, 5), (6,)))
    other = torch.randn(*shape[:-1], 6, generator=random)
    found, wanted = linear(x, weight, bias), torch.nn.functional.linear(x, weight, bias)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad((y * other).sum(), (x, weight, bias)) for y in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight, None), wanted - bias, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16


def test_which_library_multiplies_is_a_matter_of_the_processor(monkeypatch) -> None:
    def on(**able: object) -> bool:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
        matrix_products.onednn_is_faster.cache_clear()
        return matrix_products.onednn_is_faster()

    usable = torch._C._has_mkldnn and torch.backends.mkldnn.enabled and torch._C.has_mkl
    wide = {"architecture": "x86_64", "avx512_f": True}
    try:
        assert on(**wide, cpu_name="AMD EPYC 9755") is usable
        assert on(**wide, cpu_name="Intel(R) Xeon(R)") is False
        assert on(architecture="x86_64", avx512_f=False, cpu_name="AMD EPYC 7763") is False
        assert on(architecture="aarch64") is False
    finally:
        matrix_products.onednn_is_faster.cache_clear()
