from __future__ import annotations

import torch
from timm.layers import BatchNormAct2d
from torch import nn

from fpn.features.frozen import FrozenNorm, freeze, freeze_norms


def norm_with_statistics(norm: nn.Module) -> nn.Module:
    """Channel 0: mean 1, variance 4, weight 2, bias 10. Channel 1: mean 0, variance 1, weight 1, bias -5."""
    with torch.no_grad():
        norm.running_mean.copy_(torch.tensor([1.0, 0.0]))
        norm.running_var.copy_(torch.tensor([4.0, 1.0]))
        norm.weight.copy_(torch.tensor([2.0, 1.0]))
        norm.bias.copy_(torch.tensor([10.0, -5.0]))
    return norm


X = torch.tensor([[[[3.0]], [[2.0]]]])


def test_a_frozen_norm_uses_the_stored_statistics_in_training_too() -> None:
    # (3 - 1) / 2 * 2 + 10 = 12 and 2 - 5 = -3
    frozen = FrozenNorm.of(norm_with_statistics(nn.BatchNorm2d(2, eps=0.0))).train()
    torch.testing.assert_close(frozen(X).flatten(), torch.tensor([12.0, -3.0]))
    assert not list(frozen.parameters())


def test_epsilon_is_added_to_the_variance() -> None:
    # (3 - 1) / sqrt(4 + 12) * 2 + 10 = 11
    frozen = FrozenNorm.of(norm_with_statistics(nn.BatchNorm2d(2, eps=12.0)))
    assert float(frozen(X)[0, 0, 0, 0]) == 11.0


def test_it_is_where_the_norm_was() -> None:
    frozen = FrozenNorm.of(nn.BatchNorm2d(2, device="meta"))
    assert {value.device.type for value in frozen.buffers()} == {"meta"}


def test_an_activation_inside_a_norm_is_kept() -> None:
    frozen = FrozenNorm.of(norm_with_statistics(BatchNormAct2d(2, eps=0.0, act_layer=nn.ReLU)))
    torch.testing.assert_close(frozen(X).flatten(), torch.tensor([12.0, 0.0]))


def test_a_frozen_norm_stays_in_the_precision_of_its_input() -> None:
    frozen = FrozenNorm.of(norm_with_statistics(nn.BatchNorm2d(2, eps=0.0)))
    out = frozen(X.bfloat16())
    assert out.dtype == torch.bfloat16
    assert out.flatten().tolist() == [12.0, -3.0]


def test_a_trained_norms_state_loads_into_a_frozen_one_and_back() -> None:
    trained = norm_with_statistics(nn.BatchNorm2d(2))
    frozen = FrozenNorm(2, eps=1e-5)
    frozen.load_state_dict(trained.state_dict())
    torch.testing.assert_close(frozen(X), trained.eval()(X))
    back = nn.BatchNorm2d(2)
    back.load_state_dict(frozen.state_dict())
    torch.testing.assert_close(back.eval()(X), trained(X))


def test_only_batch_norms_are_replaced() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.Sequential(nn.BatchNorm2d(4)))
    freeze_norms(net)
    assert [type(module).__name__ for module in net[1:3]] == ["FrozenNorm", "GroupNorm"]
    assert isinstance(net[3][0], FrozenNorm)


def test_freezing_some_modules_leaves_the_others_in_training() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    freeze(net, [net[0], net[1]])
    assert isinstance(net[1], FrozenNorm)
    assert isinstance(net[3], nn.BatchNorm2d)
    assert [name for name, value in net.named_parameters() if value.requires_grad] == [
        "2.weight",
        "2.bias",
        "3.weight",
        "3.bias",
    ]


def test_relu6_behind_a_norm_has_torchs_gradient_and_remembers_its_result_alone() -> None:
    norm = FrozenNorm(3, eps=1e-5, tail=nn.ReLU6(inplace=True))
    norm.weight.copy_(torch.tensor([4.0, -2.0, 9.0]))
    norm.bias.copy_(torch.tensor([0.0, 1.0, 3.0]))
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    saved: list[tuple[int, int]] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved.append((tensor.numel(), tensor.data_ptr()))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = norm(x)
    scale, shift = (value.view(1, -1, 1, 1) for value in norm.affine())
    expected = nn.functional.relu6(x * scale + shift)
    assert torch.allclose(y, expected)
    assert 0 < (y == 0).sum() < y.numel()
    assert (y == 6).any()
    slope = torch.rand(y.shape, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(torch.autograd.grad(y, x, slope)[0], torch.autograd.grad(expected, x, slope)[0])
    assert [size for size, _ in saved if size == y.numel()] == [y.numel()]
    assert (y.numel(), y.data_ptr()) in saved
