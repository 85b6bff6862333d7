"""How many network pixels a cell of a map sees: exact, read off the graph of operations, for any network.

Every tensor carries, for each of its elements, the first and the last image column that it depends on. The network
runs on the meta device, where tensors have shapes and no values, and each operation hands these two numbers on: a
convolution takes the smallest and the largest under its taps, a sum those of both terms, a mean over the map those of
the whole map. Nothing is estimated: neither from kernel sizes listed by hand, which forget top-down paths and
attention, nor from gradients, which fade long before the theoretical rim (Luo et al. 2016, arXiv:1701.04128).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fpn.studies.explain.receptive_field_rules import OPERATION_RULES, Columns, UnknownOperationError, follow

# Wide enough that some cell of the deepest common network, a ResNet-152's P5 with 1600, meets neither rim.
WIDTHS = (2048, 8192)
HEIGHT = 64


def receptive_fields(maps_of: Callable[[Tensor], Mapping[str, Tensor]]) -> dict[str, int | None]:
    """The width in pixels of what a cell sees, for each named map.

    Cells of one map may differ, for after upsampling it matters which half of a coarser cell they are: the largest
    counts. Pixels that a cell sees are counted, not the padding around the image.

    Args:
        maps_of: pixels (1, 3, H, W) -> maps (1, C, h, w) by name, its weights on the meta device.

    Returns:
        Pixels by name; None for a map whose cells look at the whole image, such as after a squeeze-and-excite gate.
        Nothing at all if the network holds an operation whose rule is not known.
    """
    found: dict[str, int | None] = {}
    for width in WIDTHS:
        try:
            found = _measure(maps_of, width)
        except UnknownOperationError:
            return {}
        if None not in found.values():
            break
    return found


def _measure(maps_of: Callable[[Tensor], Mapping[str, Tensor]], width: int) -> dict[str, int | None]:
    pixels = torch.empty(1, 3, HEIGHT, width, device="meta")
    with torch.inference_mode(), _Follower(pixels) as follower:
        maps = maps_of(pixels)
    return {name: _largest(follower.known(each), width) for name, each in maps.items()}


def _largest(columns: Columns | None, width: int) -> int | None:
    """The largest extent among cells that do not meet the image's rim."""
    if columns is None:
        return None
    free = (columns.first > 0) & (columns.last < width - 1)
    extent = (columns.last - columns.first + 1)[free]
    return int(extent.max()) if extent.numel() else None


class _Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Hands the columns of tensors on from operation to operation."""

    def __init__(self, pixels: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Tensors are kept, since the id of a tensor that is gone may be given to another one. They hold no memory.
        self._kept: dict[int, tuple[Tensor, Columns]] = {}
        self._remember(pixels, Columns.of_image(pixels.shape[-1]))

    def known(self, tensor: object) -> Columns | None:
        """What a tensor depends on; None: on no pixel."""
        kept = self._kept.get(id(tensor))
        return None if kept is None else kept[1]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket not in OPERATION_RULES:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        made = func(*args, **kwargs)
        found = follow(func, args, kwargs, made, self.known)
        outputs = made if isinstance(made, (tuple, list)) else (made,)
        for tensor, columns in zip(outputs, found, strict=False):
            self._remember(tensor, columns)
        return made

    def _remember(self, tensor: Any, columns: Columns | None) -> None:
        if isinstance(tensor, Tensor) and columns is not None:
            self._kept[id(tensor)] = (tensor, columns)
