"""Memory for large results: in large pages where the system has them, and used again when its tensor is gone.

Fresh memory is expensive: the system clears each page when it is first touched. 100 MB take 55 ms in pages of 4 KiB and
11 ms in pages of 2 MiB (AMD EPYC, 2 cores), more where a virtual machine has to ask its host for them: as much as
pooling itself. A training step asks for the same sizes as the one before it.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

_WORTH_IT_BYTES = 2 << 20
# What is kept for later: enough for the results and gradients of one step.
_MOST_BLOCKS = 12
_MOST_BYTES = 512 << 20
# A block is used for less than it has, but not for much less.
_WASTE = 1.25
_blocks: list[mmap.mmap] = []  # the last used one is the last
_lock = threading.Lock()


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """torch.empty on the CPU, in large pages that may have been used before, if it is worth that."""
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes < _WORTH_IT_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(shape, dtype=dtype)
    with _lock:  # until the tensor holds the block
        return torch.frombuffer(_take(num_bytes), dtype=dtype, count=math.prod(shape)).view(shape)


def contiguous(tensor: Tensor) -> Tensor:
    """Tensor.contiguous on the CPU, the copy in memory of `empty`."""
    return tensor if tensor.is_contiguous() else empty(tuple(tensor.shape), tensor.dtype).copy_(tensor)


def _references(objects: Sequence[object]) -> list[int]:
    return [sys.getrefcount(each) for each in objects]


# To what nothing but a list holds. Interpreters differ in whether they count the question itself.
_UNUSED = _references([object()])[0]


def _take(num_bytes: int) -> mmap.mmap:
    found = None
    for block, references in zip(_blocks, _references(_blocks), strict=True):
        fits = num_bytes <= len(block) <= _WASTE * num_bytes
        if fits and references == _UNUSED and (found is None or len(block) < len(found)):
            found = block
    if found is None:
        found = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # a kernel built without large pages
            found.madvise(mmap.MADV_HUGEPAGE)
    else:
        _blocks.remove(found)
    _blocks.append(found)
    while len(_blocks) > _MOST_BLOCKS or sum(map(len, _blocks)) > _MOST_BYTES:
        _blocks.pop(0)  # its memory goes with its tensor
    return found


# Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next step, where it is glibc's and nobody tuned it by hand.

    A step frees and asks for the same hundreds of megabytes as the one before. Given back in between, they are cleared
    page by page each time: a third of a small network's step on a CPU. What a step takes at its peak stays the same.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")) for name in os.environ):
        return
    with suppress(OSError, AttributeError, TypeError):  # Windows, macOS, musl
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the largest that glibc takes
