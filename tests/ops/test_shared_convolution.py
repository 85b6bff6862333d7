from __future__ import annotations

import torch
from torch import nn

from fpn.ops.shared_convolution import convolve_levels

# 1 level of 100 tiles, 1 of 64, and a small one, which stays as it is.
SIZES = ((40, 40), (32, 32), (5, 7))


def test_results_and_gradients_are_those_of_the_convolution_alone() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(128, 64, 3, padding=1)
    maps = [torch.randn(1, 128, *size, requires_grad=True) for size in SIZES]
    found, wanted = convolve_levels(layer, maps), [layer(x) for x in maps]
    assert [torch.equal(*pair) for pair in zip(found, wanted, strict=True)] == [False, False, True]
    learned = [layer.weight, layer.bias, *maps]
    theirs = [torch.randn_like(each) for each in wanted]
    gradients = [torch.autograd.grad(each, learned, theirs) for each in (found, wanted)]
    for one, other in zip([*found, *gradients[0]], [*wanted, *gradients[1]], strict=True):
        scale = float(other.detach().abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * scale)


def test_a_part_with_hooks_is_called() -> None:
    layer = nn.Conv2d(128, 64, 3, padding=1)
    layer.register_forward_hook(lambda _layer, _given, found: 2 * found)
    maps = [torch.randn(1, 128, *size) for size in SIZES]
    assert all(torch.equal(*pair) for pair in zip(convolve_levels(layer, maps), map(layer, maps), strict=True))


def test_an_activation_may_work_in_place_behind_it() -> None:
    layer = nn.Conv2d(128, 64, 3, padding=1)
    (found,) = convolve_levels(layer, [torch.randn(1, 128, 60, 60)])
    nn.ReLU(inplace=True)(found).sum().backward()
    assert layer.weight.grad is not None
    assert float(layer.weight.grad.abs().sum()) > 0


def test_without_gradients_it_is_the_convolution_to_the_bit() -> None:
    layer = nn.Conv2d(128, 64, 3, padding=1)
    maps = [torch.randn(1, 128, *size) for size in SIZES]
    with torch.no_grad():
        assert all(torch.equal(*pair) for pair in zip(convolve_levels(layer, maps), map(layer, maps), strict=True))
