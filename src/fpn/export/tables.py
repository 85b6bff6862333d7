"""Tables of positions, resampled to the image at hand by products with matrices, which every runtime has.

OpenVINO's cubic resize of an ONNX file has no antialiasing, and PyTorch's own can't be traced to a size that a tensor
says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# The cubic kernel's number: Pillow's with antialiasing, OpenCV's without.
_PILLOW, _OPENCV = -0.5, -0.75
# No kernel reaches further, in samples.
_REACH = 2


class TablesByProducts(TorchFunctionMode):
    """While it holds, `functional.interpolate` is two products where it is cubic, and one where it is linear.

    Maps are enlarged otherwise (nearest, bilinear), and stay as they are.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """See the class."""
        kwargs = dict(kwargs or {})
        if func is functional.interpolate and kwargs.get("mode") in ("bicubic", "linear"):
            assert not kwargs.get("align_corners"), "no table is read so"
            return resampled(*args, size=kwargs["size"], mode=kwargs["mode"], antialias=kwargs.get("antialias", False))
        return func(*args, **kwargs)


def resampled(table: Tensor, *, size: Sequence[int] | int, mode: str, antialias: bool) -> Tensor:
    """As `functional.interpolate`, with `align_corners=False`.

    Args:
        table: (1, C, h, w) for "bicubic", (1, C, n) for "linear".
        size: as many samples of each axis, or of all; they may be open.
        mode: which kernel.
        antialias: whether it is as wide as a sample of the result, where that is wider.
    """
    axes = range(2, table.ndim)
    for axis, count in zip(axes, [size] * len(axes) if isinstance(size, int | torch.SymInt) else size, strict=True):
        weights = _weights(table.shape[axis], count, mode, antialias).to(table)
        table = (table.movedim(axis, -1) @ weights.T).movedim(-1, axis)
    return table


def _weights(old: int, new: int, mode: str, antialias: bool) -> Tensor:
    """(new, old): how much of each sample is in each new one."""
    step = old / (torch.ones(()) * new)
    centres = (torch.arange(new) + 0.5) * step - 0.5
    outside = 0 if antialias else _REACH  # what lies behind the rim repeats it, or is left out
    places = torch.arange(-outside, old + outside)
    far = (places - centres[:, None]).abs()
    if mode == "linear":
        weights = (1 - far).clamp(min=0)
    elif antialias:
        weights = _cubic(far / step.clamp(min=1), _PILLOW)
        weights = weights / weights.sum(dim=1, keepdim=True)
    else:
        weights = _cubic(far, _OPENCV)
    return weights @ functional.one_hot(places.clamp(0, old - 1), old).to(weights)


def _cubic(far: Tensor, a: float) -> Tensor:
    """Keys' kernel at distances of 0 or more."""
    near = ((a + 2) * far - (a + 3)) * far * far + 1
    beyond = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    return torch.where(far <= 1, near, torch.where(far < _REACH, beyond, 0.0))
