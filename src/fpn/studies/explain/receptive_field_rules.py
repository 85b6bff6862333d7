"""How each kind of operation hands on which image columns its elements depend on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


class UnknownOperationError(Exception):
    """An operation whose rule is not here."""


@dataclass(frozen=True)
class Columns:
    """First and last image column of each element of a tensor; a dimension of 1 stands for all of its elements.

    Nothing (a padding's zeros) is the empty range from +inf to -inf.
    """

    first: Tensor
    last: Tensor

    @classmethod
    def of_image(cls, width: int) -> Columns:
        """Each column depends on itself."""
        columns = torch.arange(width, dtype=torch.float32).view(1, 1, 1, width)
        return cls(columns, columns)

    def each(self, change: Callable[[Tensor], Tensor]) -> Columns:
        """The same change of places in both."""
        return Columns(change(self.first), change(self.last))

    def over(self, dims: Sequence[int]) -> Columns:
        """Elements that depend on all of `dims`."""
        dims = tuple(dims)
        return Columns(self.first.amin(dims, keepdim=True), self.last.amax(dims, keepdim=True)) if dims else self

    def __or__(self, other: Columns) -> Columns:
        return Columns(torch.minimum(self.first, other.first), torch.maximum(self.last, other.last))


# An operation, its arguments and named arguments, what it made, and what is known of a tensor.
Rule = Callable[[Any, Any, Any, Any, Any], "list[Columns]"]


def follow(
    func: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    made: Any,
    known: Callable[[object], Columns | None],
) -> list[Columns]:
    """The columns of what an operation made, output by output.

    Args:
        func: an ATen operation.
        args: its arguments.
        kwargs: its named arguments.
        made: what it returned.
        known: the columns of a tensor; None: it depends on no pixel.

    Raises:
        UnknownOperationError: no rule for it.
    """
    if all(known(tensor) is None for tensor in _tensors(args)):
        return []
    rule = OPERATION_RULES.get(func.overloadpacket)
    if rule is None and torch.Tag.pointwise in func.tags:
        rule = _pointwise
    if rule is None:
        raise UnknownOperationError(str(func))
    return rule(func, args, kwargs, made, known)


def _tensors(args: Sequence[Any]) -> Iterator[Tensor]:
    for arg in args:
        if isinstance(arg, Tensor):
            yield arg
        elif isinstance(arg, (tuple, list)):
            yield from _tensors(arg)


def _pointwise(func: Any, args: Any, kwargs: Any, made: Any, known: Any) -> list[Columns]:
    """All tensors meet element by element."""
    return [_union(known(tensor) for tensor in _tensors(args))]


def _union(parts: Iterator[Columns | None]) -> Columns:
    some = [part for part in parts if part is not None]
    total = some[0]
    for part in some[1:]:
        total = total | part
    return total


def _first_alone(func: Any, args: Any, kwargs: Any, made: Any, known: Any) -> list[Columns]:
    """Only the first argument counts, element by element: norms with statistics of their own."""
    return [known(args[0])]


def _moved(func: Any, args: Any, kwargs: Any, made: Any, known: Any) -> list[Columns]:
    """Elements change places: the same operation moves the numbers."""
    columns = _full(args[0], known(args[0]))
    moved = (func(part, *args[1:], **kwargs) for part in (columns.first, columns.last))
    if isinstance(made, (tuple, list)):
        return [Columns(first, last) for first, last in zip(*moved, strict=True)]
    return [Columns(*moved)]


def _viewed(func: Any, args: Any, kwargs: Any, made: Any, known: Any) -> list[Columns]:
    """As `made`. A view may be impossible here, for the numbers lie in memory in their own way."""
    return [_full(args[0], known(args[0])).each(lambda part: part.reshape(made.shape))]


def _joined(func: Any, args: Any, kwargs: Any, made: Any, known: Any) -> list[Columns]:
    """Tensors side by side."""
    parts = [_full(tensor, known(tensor)) for tensor in args[0]]
    joined = (func(each, *args[1:], **kwargs) for each in ([p.first for p in parts], [p.last for p in parts]))
    return [Columns(*joined)]


def _padded(func: Any, args: Any, kwargs: Any, made: Any, known: Any) -> list[Columns]:
    columns = _full(args[0], known(args[0]))
    return [Columns(func(columns.first, args[1], math.inf), func(columns.last, args[1], -math.inf))]


def _reduced(func: Any, args: Any, kwargs: Any, made: Any, known: Any) -> list[Columns]:
    """A sum, mean or softmax over some dimensions, which a softmax gives back and a mean may drop."""
    dims = args[1] if len(args) > 1 and args[1] not in ([], None) else list(range(args[0].dim()))
    dims = [dims] if isinstance(dims, int) else dims
    total = known(args[0]).over(dims)
    outputs = made if isinstance(made, (tuple, list)) else (made,)
    if outputs[0].dim() != total.first.dim():
        total = total.each(lambda part: part.reshape(_without(part.shape, dims)))
    return [total] * len(outputs)


def _without(shape: Sequence[int], dims: Sequence[int]) -> list[int]:
    gone = {dim % len(shape) for dim in dims}
    return [size for dim, size in enumerate(shape) if dim not in gone]


def _layer_norm(func: Any, args: Any, kwargs: Any, made: Any, known: Any) -> list[Columns]:
    return [known(args[0]).over(range(-len(args[1]), 0))]


def _group_norm(func: Any, args: Any, kwargs: Any, made: Any, known: Any) -> list[Columns]:
    return [known(args[0]).over(range(1, args[0].dim()))]


def _multiplied(func: Any, args: Any, kwargs: Any, made: Any, known: Any) -> list[Columns]:
    """Matrices: a row of the left with a column of the right. A bias knows no pixel."""
    left, right = known(args[-2]), known(args[-1])
    return [_union(iter([left and left.over([-1]), right and right.over([-2])]))]


def _attention(func: Any, args: Any, kwargs: Any, made: Any, known: Any) -> list[Columns]:
    """Each query's result depends on all keys, and on all values of its channel."""
    query, key, value = (known(each) for each in args[:3])
    total = _union(iter([query and query.over([-1]), key and key.over([-2, -1]), value and value.over([-2])]))
    return [total]


def _convolution(func: Any, args: Any, kwargs: Any, made: Any, known: Any) -> list[Columns]:
    tensor, weight, _, stride, padding, dilation, transposed = args[:7]
    if transposed:
        if (stride[-1], padding[-1], dilation[-1]) != (weight.shape[-1], 0, 1):
            raise UnknownOperationError(str(func))
        # Each cell becomes as many as the kernel has columns, and these meet no other's.
        columns = known(tensor).over((0, 1, 2))
        return [columns.each(lambda part: part.repeat_interleave(weight.shape[-1], dim=-1))]
    across = (weight.shape[-1], stride[-1], padding[-1], dilation[-1])
    return [_slide(known(tensor), made.shape[-1], *across)]


def _pooling(func: Any, args: Any, kwargs: Any, made: Any, known: Any) -> list[Columns]:
    tensor, kernel = args[:2]
    stride, padding = (args[2] if len(args) > 2 and args[2] else kernel), (args[3] if len(args) > 3 else [0])
    dilation = args[4] if func.overloadpacket is aten.max_pool2d_with_indices and len(args) > 4 else [1]
    output = made[0] if isinstance(made, (tuple, list)) else made
    return [_slide(known(tensor), output.shape[-1], kernel[-1], stride[-1], padding[-1], dilation[-1])]


def _slide(columns: Columns, width: int, kernel: int, stride: int, padding: int, dilation: int) -> Columns:
    """A window over columns, all rows and channels together: they see the same columns."""
    columns = columns.over((0, 1, 2))
    inside = columns.first.shape[-1]
    taps = torch.arange(width)[:, None] * stride - padding + torch.arange(kernel) * dilation  # (W, kernel)
    beyond = (taps < 0) | (taps >= inside)
    taps = taps.clamp(0, inside - 1)
    first = columns.first[0, 0, 0][taps].masked_fill(beyond, math.inf).amin(1)
    last = columns.last[0, 0, 0][taps].masked_fill(beyond, -math.inf).amax(1)
    return Columns(first.view(1, 1, 1, -1), last.view(1, 1, 1, -1))


def _resampled(func: Any, args: Any, kwargs: Any, made: Any, known: Any) -> list[Columns]:
    """Upsampling and adaptive pooling: which columns count is seen by sending each of them alone through it."""
    columns = known(args[0]).over((0, 1, 2))
    inside = args[0].shape[-1]
    alone = torch.eye(inside).view(1, inside, 1, inside)
    counts = func(alone, [1, made.shape[-1]], *_without_scales(args[2:]), **kwargs)[0, :, 0] != 0  # (W, new W)
    first = columns.first.view(-1, 1).expand(counts.shape).masked_fill(~counts, math.inf).amin(0)
    last = columns.last.view(-1, 1).expand(counts.shape).masked_fill(~counts, -math.inf).amax(0)
    return [Columns(first.view(1, 1, 1, -1), last.view(1, 1, 1, -1))]


def _without_scales(args: Sequence[Any]) -> list[Any]:
    """The size of the result says enough; a list of scales beside it is refused."""
    return [None if isinstance(arg, (tuple, list)) else arg for arg in args]


def _full(tensor: Tensor, columns: Columns | None) -> Columns:
    """As large as the tensor itself, without taking memory for it."""
    if columns is None:
        columns = Columns(torch.full((1,), math.inf), torch.full((1,), -math.inf))
    return columns.each(lambda part: part.expand(tensor.shape))


def _table(*rows: tuple[Rule, str]) -> dict[Any, Rule]:
    return {getattr(aten, name): rule for rule, names in rows for name in names.split() if hasattr(aten, name)}


OPERATION_RULES = _table(
    (_viewed, "view _unsafe_view _reshape_alias"),
    (
        _moved,
        "permute transpose t slice select unsqueeze squeeze expand clone alias detach "
        "roll flip split split_with_sizes unbind _to_copy pixel_shuffle pixel_unshuffle reflection_pad2d "
        "replication_pad2d unfold",
    ),
    (_joined, "cat stack"),
    (_padded, "constant_pad_nd"),
    (_reduced, "mean sum amax amin _softmax _log_softmax var_mean"),
    (_first_alone, "native_batch_norm _native_batch_norm_legit_no_training _native_batch_norm_legit"),
    (_layer_norm, "native_layer_norm"),
    (_group_norm, "native_group_norm"),
    (_multiplied, "mm bmm addmm baddbmm"),
    (
        _attention,
        "scaled_dot_product_attention _scaled_dot_product_attention_math _scaled_dot_product_flash_attention "
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention",
    ),
    (_convolution, "convolution"),
    (_pooling, "max_pool2d_with_indices avg_pool2d"),
    (_resampled, "upsample_nearest2d upsample_bilinear2d _adaptive_avg_pool2d"),
)
