"""What stands, while a pickle is read, for things that are no plain values yet: tensors, arrays, names of classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

# What is said of a value in a message looks so deep into it.
_SHOWN_DEEP, _SHOWN_ITEMS = 3, 6


class RefusedFileError(Exception):
    """Why a file is not read any further, in words for its reader; whoever knows the file's name adds it."""


@dataclass(frozen=True, slots=True)
class Known:
    """A name that a pickle may refer to.

    Attributes:
        name: with its module.
        make: what is made of the arguments that the pickle calls it with, by code of ours; None: it can't be called.
        value: what the name itself stands for among values; None: nothing.
        skipped: it, and whatever is made with it, is left out of the result.
    """

    name: str
    make: Callable[[tuple[Any, ...]], Any] | None = None
    value: Any = None
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """In place of an object that nobody needs here; `name`: of its class."""

    name: str


class Attributes(dict[str, Any]):
    """An object of which nothing is kept but its attributes by name."""


@dataclass(frozen=True, slots=True)
class LongText:
    """UTF-8 that is decoded when it is needed: in Python 3's pickles of protocol 2, arrays are written so."""

    raw: memoryview

    def text(self) -> str:
        """As text."""
        return str(self.raw, "utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class StorageRef:
    """Numbers that lie elsewhere in the file.

    Attributes:
        key: by which they are found.
        dtype: of one number; None: bytes, whose type each tensor tells.
        count: numbers in it.
        first: where it begins within the numbers of that key.
    """

    key: str
    dtype: torch.dtype | None
    count: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor on a storage; everything is checked by `check_tensor`."""

    storage: StorageRef
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class DtypeRef:
    """NumPy's type of a number, such as "f4"; its byte order comes later."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "="

    def dtype(self) -> np.dtype[Any]:
        """As NumPy has it."""
        return np.dtype(f"{'=' if self.order == '|' else self.order}{self.code}")


class ArrayRef:
    """NumPy's array; its state comes later. `data` is None until then."""

    def __init__(self) -> None:
        self.data: bytes | memoryview | None = None
        self.shape: tuple[int, ...] = ()
        self.kind = DtypeRef("u1")
        self.columns_first = False


def fail(reason: str) -> Any:
    """Refuse where an expression is wanted."""
    raise RefusedFileError(reason)


def printable(name: object, most: int = 200) -> str:
    """What a file says, in letters that can be printed and not too many of them."""
    return ascii(_in_short(name)[:most])[1:-1]


def _in_short(value: object, depth: int = 0) -> str:
    """Text of a value. Written out, tuples that refer to each other can be of any length and depth."""
    if not isinstance(value, tuple | list | dict | set | frozenset):
        return str(value)
    if depth == _SHOWN_DEEP or isinstance(value, dict | set | frozenset):
        return f"{type(value).__name__} of {len(value)}"
    more = ", ..." if len(value) > _SHOWN_ITEMS else ""
    ends = "()" if isinstance(value, tuple) else "[]"
    return f"{ends[0]}{', '.join(_in_short(each, depth + 1) for each in value[:_SHOWN_ITEMS])}{more}{ends[1]}"


def whole_numbers(values: object, what: str) -> tuple[int, ...]:
    """Counts as a file tells them.

    Raises:
        RefusedFileError: something else, or a negative one.
    """
    if not isinstance(values, tuple | list) or len(values) > 64:
        raise RefusedFileError(f"{what} {printable(values)}: expected a few whole numbers")
    for value in values:
        if type(value) is not int or not 0 <= value < 2**62:
            raise RefusedFileError(f"{what} {printable(values)}: expected whole numbers from 0 on")
    return tuple(values)


def check_tensor(tensor: TensorRef) -> None:
    """Stop for a tensor that leaves its storage, or whose elements share numbers of it.

    Raises:
        RefusedFileError: it does.
    """
    if len(tensor.size) != len(tensor.stride):
        raise RefusedFileError(f"a tensor of size {tensor.size} has strides {tensor.stride}")
    if 0 in tensor.size:
        return
    steps = sorted((stride, count) for count, stride in zip(tensor.size, tensor.stride, strict=True) if count > 1)
    reached = 0
    for stride, count in steps:
        if stride <= reached:
            raise RefusedFileError(f"a tensor of size {tensor.size} with strides {tensor.stride} overlaps itself")
        reached += stride * (count - 1)
    if tensor.offset + reached >= count_numbers(tensor):
        raise RefusedFileError(
            f"a tensor of size {tensor.size}, strides {tensor.stride} and offset {tensor.offset} reaches beyond the "
            f"{count_numbers(tensor)} numbers of its storage {printable(tensor.storage.key)}"
        )


def count_numbers(tensor: TensorRef) -> int:
    """How many numbers of the tensor's type its storage holds."""
    return tensor.storage.count if tensor.storage.dtype is not None else tensor.storage.count // tensor.dtype.itemsize
