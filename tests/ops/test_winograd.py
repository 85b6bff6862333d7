from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from fpn.ops import winograd


@pytest.mark.parametrize("size", [(4, 4), (1, 1), (5, 9), (3, 200), (17, 12)])
@pytest.mark.parametrize("relu", [False, True])
def test_it_is_a_3x3_convolution_of_padding_1(size: tuple[int, int], relu: bool) -> None:
    random = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 8, *size, generator=random), torch.randn(6, 8, 3, 3, generator=random)
    bias = torch.randn(6, generator=random)
    wanted = functional.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    wanted = wanted.relu() if relu else wanted
    got = winograd.convolve(x, winograd.transform_weight(weight), bias, relu=relu)
    assert got.shape == wanted.shape
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=1e-4)  # sums of 72 products, up to 30


def test_it_rounds_no_worse_than_the_plain_sum() -> None:
    random = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 128, 16, 16, generator=random), torch.randn(32, 128, 3, 3, generator=random)
    exact = functional.conv2d(x.double(), weight.double(), padding=1)
    got = winograd.convolve(x, winograd.transform_weight(weight))
    assert float((got - exact).abs().max() / exact.abs().max()) < 5e-6  # points 0, 1, -1, 2, -2 reach 1e-5


def test_a_image_does_not_see_its_neighbour() -> None:
    x = torch.randn(3, 4, 30, 50, generator=torch.Generator().manual_seed(0))
    weight = winograd.transform_weight(torch.ones(4, 4, 3, 3))
    together = winograd.convolve(x, weight)
    for number in range(3):
        assert torch.equal(together[number], winograd.convolve(x[number : number + 1], weight)[0])


def test_tiles_are_counted_with_those_at_the_rim() -> None:
    assert winograd.count_tiles(8, 8) == 4
    assert winograd.count_tiles(9, 8) == 6


def test_many_small_maps_are_convolved_together() -> None:
    # 7x7 and 14x14 as in heads on RoIs, and 4x4, where a row of zeros is a tile more.
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 3, 3, 3), torch.randn(5)
    for side in (7, 14, 4):
        x = torch.randn(20, 3, side, side).contiguous(memory_format=torch.channels_last)
        wanted = functional.conv2d(x, weight, bias, padding=1).relu()
        found = winograd.convolve(x, winograd.transform_weight(weight), bias, relu=True)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


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
