from __future__ import annotations

import torch
from torch import nn

from fpn.features.blocks import convolution, make_norm

# Two channels of a 1x2 map: 1, 3 and 10, 30.
X = torch.tensor([[[[1.0, 3.0]], [[10.0, 30.0]]]])


def test_a_convolution_alone_is_no_sequence() -> None:
    assert type(convolution(2, 4, 3)) is nn.Conv2d
    with_norm = convolution(2, 4, 3, norm="batch", activation=nn.ReLU())
    assert type(with_norm[0]) is nn.Conv2d
    assert with_norm[0].bias is None
    assert isinstance(with_norm[1], nn.BatchNorm2d)
    assert isinstance(with_norm[2], nn.ReLU)


def test_a_norm_is_over_the_batch_the_groups_or_the_channels_of_a_cell() -> None:
    over_batch = make_norm("batch", 2, epsilon=1e-12)(X)
    torch.testing.assert_close(over_batch, torch.tensor([[[[-1.0, 1.0]], [[-1.0, 1.0]]]]))
    over_channels = make_norm("layer", 2, epsilon=1e-12)(X)
    torch.testing.assert_close(over_channels, torch.tensor([[[[-1.0, -1.0]], [[1.0, 1.0]]]]))
    # Two channels are two groups of one (the largest number that divides both 2 and 32).
    over_groups = make_norm("group", 2, epsilon=1e-12)(X)
    torch.testing.assert_close(over_groups, torch.tensor([[[[-1.0, 1.0]], [[-1.0, 1.0]]]]))
    assert make_norm("none", 2) is None


def test_a_batch_norm_takes_one_value_by_the_statistics_so_far() -> None:
    norm = make_norm("batch", 1, epsilon=1e-12).train()
    norm.running_mean.fill_(2.0)
    norm.running_var.fill_(4.0)
    torch.testing.assert_close(norm(torch.full((1, 1, 1, 1), 8.0)), torch.full((1, 1, 1, 1), 3.0))
    assert norm.running_mean.item() == 2.0
    assert norm(torch.zeros(0, 1, 7, 7)).shape == (0, 1, 7, 7)


def test_a_group_norm_goes_back_alike_in_either_order_of_memory():
    """torch's own way back through bf16 in channels-last order is slow, so that a norm takes another there."""
    torch.manual_seed(0)
    norm = make_norm("group", 64)
    assert norm is not None
    nn.init.normal_(norm.weight)
    x, grad = (torch.randn(2, 64, 5, 7).bfloat16() for _ in range(2))
    found = []
    for order in (torch.contiguous_format, torch.channels_last):
        own = x.contiguous(memory_format=order).requires_grad_()
        y = norm(own)
        found.append((y, *torch.autograd.grad(y, (own, norm.weight, norm.bias), grad.contiguous(memory_format=order))))
    assert found[1][0].is_contiguous(memory_format=torch.channels_last)
    for wanted, got in zip(*found, strict=True):
        assert got.dtype == wanted.dtype
        torch.testing.assert_close(got, wanted, rtol=0.01, atol=0.01)
