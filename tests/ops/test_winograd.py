from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from fpn.ops import winograd


@pytest.mark.parametrize("size", [(4, 4), (1, 1), (5, 9), (3, 200), (17, 12)])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("side", [3, 5, 7])
def test_it_is_a_convolution_that_keeps_the_maps_size(size: tuple[int, int], relu: bool, side: int) -> None:
    random = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 8, *size, generator=random), torch.randn(6, 8, side, side, generator=random)
    bias = torch.randn(6, generator=random)
    wanted = functional.conv2d(x.double(), weight.double(), bias.double(), padding=side // 2)
    wanted = wanted.relu() if relu else wanted
    got = winograd.convolve(x, winograd.transform_weight(weight), bias, relu=relu)
    assert got.shape == wanted.shape
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol={3: 1e-4, 5: 5e-4, 7: 4e-3}[side])  # sums up to 75


@pytest.mark.parametrize(("side", "bound"), [(3, 5e-6), (5, 2e-5), (7, 1e-4)])
def test_it_rounds_little_worse_than_the_plain_sum(side: int, bound: float) -> None:
    random = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 128, 16, 16, generator=random), torch.randn(32, 128, side, side, generator=random)
    exact = functional.conv2d(x.double(), weight.double(), padding=side // 2)
    got = winograd.convolve(x, winograd.transform_weight(weight))
    assert float((got - exact).abs().max() / exact.abs().max()) < bound  # 3x3 with points 0, 1, -1, 2, -2: 1e-5


def test_a_image_does_not_see_its_neighbour() -> None:
    x = torch.randn(3, 4, 30, 50, generator=torch.Generator().manual_seed(0))
    weight = winograd.transform_weight(torch.ones(4, 4, 3, 3))
    together = winograd.convolve(x, weight)
    for number in range(3):
        assert torch.equal(together[number], winograd.convolve(x[number : number + 1], weight)[0])


def test_tiles_are_counted_with_those_at_the_rim() -> None:
    assert winograd.count_tiles(8, 8) == 4
    assert winograd.count_tiles(9, 8) == 6
    assert winograd.count_tiles(9, 8, kernel=7) == 6


def test_many_small_maps_are_convolved_together() -> None:
    # 7x7 and 14x14 as in heads on RoIs, and 4x4, where a row of zeros is a tile more.
    torch.manual_seed(0)
    bias = torch.randn(5)
    for side, kernel in ((7, 3), (14, 3), (4, 3), (7, 5), (9, 7)):
        weight = torch.randn(5, 3, kernel, kernel)
        x = torch.randn(20, 3, side, side).contiguous(memory_format=torch.channels_last)
        wanted = functional.conv2d(x, weight, bias, padding=kernel // 2).relu()
        found = winograd.convolve(x, winograd.transform_weight(weight), bias, relu=True)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 if kernel == 3 else 2e-3)


def test_a_kernels_gradient_is_that_of_the_plain_convolution() -> None:
    # Three levels of two images, and 20 RoIs of 14x14, which go through as one tall image.
    torch.manual_seed(0)
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    for sizes in ([(2, 3, 17, 30), (2, 3, 8, 15), (2, 3, 1, 2)], [(20, 3, 14, 14)]):
        maps = [torch.randn(size) for size in sizes]
        results = [functional.conv2d(x.double(), weight, padding=1) for x in maps]
        grads = [torch.randn(result.shape) for result in results]
        wanted = torch.autograd.grad(results, weight, [grad.double() for grad in grads])[0]
        found = winograd.weight_gradient(maps, grads)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-3)  # sums of 3900 products, up to 150
