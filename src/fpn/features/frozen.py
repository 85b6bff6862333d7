"""Parts of a bottom-up path that training leaves alone."""

from __future__ import annotations

from collections.abc import Collection, Container
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class FrozenNorm(nn.Module):
    """A batch norm whose statistics and affine never change: one multiplication and one addition a channel.

    State names are a batch norm's (without `num_batches_tracked`, which it drops on loading), so a path can be trained
    with norms of either kind and loaded with the other.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, eps: float, tail: nn.Module | None = None) -> None:
        """Args:
        channels: C.
        eps: added to the variance.
        tail: what follows in the same module (timm's norms carry their activation).
        """
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.tail = tail

    @classmethod
    def of(cls, norm: _BatchNorm) -> FrozenNorm:
        """The frozen form of a batch norm, or of one of timm's norms with an activation inside."""
        assert norm.running_mean is not None, "a norm without statistics can't be frozen"
        frozen = cls(norm.num_features, eps=norm.eps, tail=_tail(norm)).to(norm.running_mean.device)
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(norm, name)
            if value is not None:
                getattr(frozen, name).copy_(value.detach())
        return frozen

    def affine(self) -> tuple[Tensor, Tensor]:
        """(scale, shift) a channel, float32: the norm is x * scale + shift."""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Float[Tensor, "B C H W"]) -> Tensor:
        """Scale and shift in the precision that `x` comes in, then the tail."""
        x = self.transform(x)
        if type(self.tail) is nn.ReLU6 and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            relu6: Tensor = _ReLU6.apply(x)
            return relu6
        return x if self.tail is None else self.tail(x)

    def transform(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """What `forward` does before the tail."""
        scale, shift = (value.to(x.dtype).view(1, -1, 1, 1) for value in self.affine())
        return torch.addcmul(shift, x, scale)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Shown by `print(module)`."""
        return f"{len(self.weight)}, eps={self.eps}"


class _ReLU6(torch.autograd.Function):
    """ReLU6 in place, which remembers its result, as ReLU does; torch's remembers its argument, a second map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(x.clamp_(0, 6))
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (result,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grad, result, 0.0, 6.0)  # type: ignore[no-any-return]


def _tail(norm: nn.Module) -> nn.Module | None:
    parts = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if part is not None]
    parts = [part for part in parts if not isinstance(part, nn.Identity)]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)


def freeze_norms(root: nn.Module, *, only: Container[nn.Module] | None = None) -> None:
    """Replace batch norms under `root` by their frozen forms. Layer and group norms have no statistics and stay.

    Args:
        root: searched for norms.
        only: the norms that may be replaced; None: all.
    """
    for parent in list(root.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm) and (only is None or child in only):
                # setattr, not parent._modules: some containers keep attributes in step.
                setattr(parent, name, FrozenNorm.of(child))


def freeze(root: nn.Module, modules: Collection[nn.Module]) -> None:
    """Take modules under `root` out of training: no gradients, and no change of their norms' statistics."""
    for module in modules:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
    freeze_norms(root, only=set(modules))
