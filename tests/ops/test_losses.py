from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from fpn.ops.losses import binary_cross_entropy, giou_loss, sigmoid_focal, smooth_l1


def test_smooth_l1_is_a_square_up_to_beta_and_a_line_after() -> None:
    errors = torch.tensor([0.0, 0.5, -1.0, 2.0, -5.0])
    loss = smooth_l1(errors, torch.zeros(5), beta=2.0)
    # 0.5 ** 2 / 4 = 0.0625, 1 / 4 = 0.25, then |error| - 1.
    assert loss.tolist() == [0.0, 0.0625, 0.25, 1.0, 4.0]


def test_smooth_l1_with_beta_0_is_plain_l1() -> None:
    pred = torch.tensor([0.5, -3.0, 0.0], requires_grad=True)
    loss = smooth_l1(pred, torch.zeros(3), beta=0.0)
    assert loss.tolist() == [0.5, 3.0, 0.0]
    assert torch.autograd.grad(loss.sum(), pred)[0].tolist() == [1.0, -1.0, 0.0]


def test_focal_loss_weighs_by_error_and_class() -> None:
    # Logit 0: an error of 1/2 either way, and an entropy of log 2.
    loss = sigmoid_focal(torch.zeros(2), torch.tensor([1.0, 0.0]), alpha=0.25, gamma=2.0)
    torch.testing.assert_close(loss, torch.tensor([0.25, 0.75]) * 0.25 * math.log(2))
    plain = sigmoid_focal(torch.zeros(2), torch.tensor([1.0, 0.0]), alpha=-1.0, gamma=0.0)
    torch.testing.assert_close(plain, torch.full((2,), math.log(2)))


def test_giou_loss_of_boxes_apart_is_one_plus_the_empty_part_of_their_hull() -> None:
    pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
    target = torch.tensor([[20.0, 0.0, 30.0, 10.0], [0.0, 0.0, 10.0, 5.0]])
    torch.testing.assert_close(giou_loss(pred, target), torch.tensor([1 + 1 / 3, 0.5]))


def test_cross_entropy_of_certain_logits_is_their_error() -> None:
    loss = binary_cross_entropy(torch.tensor([0.0, 100.0, -100.0, 100.0]), torch.tensor([1.0, 1.0, 1.0, 0.5]))
    torch.testing.assert_close(loss, torch.tensor([math.log(2), 0.0, 100.0, 50.0]))


def test_losses_equal_torchvisions() -> None:
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(200, generator=random) * 5
    target = (torch.rand(200, generator=random) > 0.7).float()
    torch.testing.assert_close(sigmoid_focal(logits, target), sigmoid_focal_loss(logits, target), rtol=1e-4, atol=1e-6)
    low = torch.rand(2, 50, 2, generator=random) * 50
    one, two = torch.cat([low, low + 1 + torch.rand(2, 50, 2, generator=random) * 50], dim=-1)
    torch.testing.assert_close(giou_loss(one, two), generalized_box_iou_loss(one, two), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0])
def test_smooth_l1_has_the_gradient_of_finite_differences(beta: float) -> None:
    pred = torch.tensor([-2.0, -0.3, 0.05, 0.4, 3.0], dtype=torch.float64, requires_grad=True)
    target = torch.zeros(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: smooth_l1(x, target, beta=beta), pred)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_focal_loss_has_the_gradient_of_finite_differences(gamma: float) -> None:
    logits = torch.tensor([-4.0, -0.3, 0.0, 0.4, 3.0], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0])
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal(x, target, gamma=gamma), logits)
    assert torch.autograd.gradcheck(lambda x: binary_cross_entropy(x, target), logits)


def test_giou_loss_has_the_gradient_of_finite_differences() -> None:
    pred = torch.tensor([[0.0, 0, 5, 5], [1, 2, 9, 8], [20, 20, 30, 25]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[1.0, 1, 6, 7], [2, 3, 5, 6], [0, 0, 4, 4]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: giou_loss(x, target), pred)


def test_extreme_and_half_precision_input_stays_finite() -> None:
    extreme = torch.tensor([6e4, -6e4, 0.0], dtype=torch.float16, requires_grad=True)
    for target in (torch.zeros(3), torch.ones(3)):
        for loss in (
            sigmoid_focal(extreme, target),
            binary_cross_entropy(extreme, target),
            smooth_l1(extreme, target, beta=1.0),
        ):
            assert loss.dtype == torch.float32
            assert loss.isfinite().all()
            assert torch.autograd.grad(loss.sum(), extreme)[0].isfinite().all()


def test_boxes_without_area_have_a_finite_loss_and_gradient() -> None:
    point = torch.full((1, 4), 5.0, requires_grad=True)
    for target in (torch.full((1, 4), 5.0), torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[5.0, 5.0, 9.0, 5.0]])):
        loss = giou_loss(point, target)
        assert loss.isfinite().all()
        assert torch.autograd.grad(loss.sum(), point)[0].isfinite().all()


def test_nothing_has_no_loss() -> None:
    none = torch.zeros(0, 4, requires_grad=True)
    for loss in (giou_loss(none, torch.zeros(0, 4)), smooth_l1(none, torch.zeros(0, 4), beta=0.0)):
        assert loss.sum().item() == 0.0
