"""From what a pickle said to plain values: tensors and arrays get their numbers, what is not needed is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fpn.interop.pickle_parts import (
    ArrayRef,
    DtypeRef,
    Known,
    LongText,
    RefusedFileError,
    Skipped,
    StorageRef,
    TensorRef,
)

# Checkpoints are four levels deep, settings of a toolkit ten.
MOST_DEEP = 100
# Values when each is counted as often as it is referred to.
MOST_VALUES = 5_000_000

TensorLoader = Callable[[TensorRef], Tensor]


def no_tensors(tensor: TensorRef) -> Tensor:
    """For pickles without storages."""
    raise RefusedFileError(f"a tensor without its storage {tensor.storage.key}")


class PlainValues:
    """Turns values into plain ones.

    Attributes:
        skipped: how many objects of which class were left out; in lists None stands for them.
    """

    def __init__(self, load: TensorLoader = no_tensors) -> None:
        self.skipped: Counter[str] = Counter()
        self._load = load
        # By the identity of the value that was said; the value is kept, so that no other takes its identity.
        self._done: dict[int, tuple[Any, Any, int]] = {}
        self._open: set[int] = set()

    def read(self, value: Any) -> Any:
        """A value, whatever is in it.

        Raises:
            RefusedFileError: it is too deep, too large, or contains itself.
        """
        return self._visit(value, 0)[0]

    def _visit(self, value: Any, depth: int) -> tuple[Any, int]:
        """The plain value, and how many values it is when none is shared."""
        if not isinstance(value, dict | list | tuple | ArrayRef | TensorRef):
            return self._single(value), 1
        place = id(value)
        if place in self._done:
            return self._done[place][1:]
        if place in self._open:
            raise RefusedFileError("it contains itself")
        if depth > MOST_DEEP:
            raise RefusedFileError(f"it is nested more than {MOST_DEEP} deep")
        self._open.add(place)
        plain, count = self._compound(value, depth)
        if count > MOST_VALUES:
            raise RefusedFileError(
                f"it is more than {MOST_VALUES} values by referring to the same ones again and again"
            )
        self._open.remove(place)
        self._done[place] = value, plain, count
        return plain, count

    def _compound(self, value: Any, depth: int) -> tuple[Any, int]:
        if isinstance(value, ArrayRef):
            return _array(value), 1
        if isinstance(value, TensorRef):
            return self._load(value), 1
        items = list(value.values()) if isinstance(value, dict) else list(value)
        plain: list[Any] = []
        count = 1
        for item in items:
            made, more = self._visit(item, depth + 1)
            plain.append(made)
            count += more
            if count > MOST_VALUES:
                break
        if isinstance(value, dict):
            named = zip(value, items, plain, strict=False)
            return {key: made for key, item, made in named if not _left_out(item)}, count
        return tuple(plain) if isinstance(value, tuple) else plain, count

    def _single(self, value: Any) -> Any:
        if _left_out(value):
            self.skipped[value.name if isinstance(value, Known | Skipped) else type(value).__name__] += 1
            return None
        if isinstance(value, LongText):
            return value.text()
        return bytes(value) if isinstance(value, memoryview) else value


def _left_out(value: Any) -> bool:
    return isinstance(value, Known | Skipped | StorageRef | DtypeRef)


def _array(value: ArrayRef) -> NDArray[Any]:
    if value.data is None:
        raise RefusedFileError("an array without numbers")
    dtype = value.kind.dtype()
    found = np.frombuffer(value.data, dtype).reshape(value.shape, order="F" if value.columns_first else "C")
    return found if dtype.isnative else found.astype(dtype.newbyteorder("="))
