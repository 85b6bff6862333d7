from __future__ import annotations

import pytest
import torch

from fpn.ops import matrix_products
from fpn.ops.matrix_products import add_products, multiply, multiply_pairs


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
