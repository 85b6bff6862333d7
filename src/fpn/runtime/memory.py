"""Memory for large results: in large pages where the system has them, and used again when its tensor is gone.

Fresh memory is expensive: the system clears each page when it is first touched. 100 MB take 55 ms in pages of 4 KiB and
11 ms in pages of 2 MiB (AMD EPYC, 2 cores), more where a virtual machine has to ask its host for them: as much as
pooling itself. A training step asks for the same sizes as the one before it.

Who holds a block is never guessed. It is lent through a memoryview that only the tensor's storage holds. All views of
the tensor, NumPy's too, share that storage; when the last of them is gone torch drops the memoryview, and its finalizer
gives the block back.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import weakref
from contextlib import suppress

import torch
from torch import Tensor

_WORTH_IT_BYTES = 2 << 20
# What is kept for later: enough for the results and gradients of one step.
_MOST_BLOCKS = 12
_MOST_BYTES = 512 << 20
# A block is used for less than it has, but not for much less.
_WASTE = 1.25
# Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


class Blocks:
    """Free blocks of memory.

    Finalizers come at any moment in any thread, and a process may fork at any moment. So there is no lock that one
    could wait for forever: each change of the list is one of its own atomic methods, and a block is whose who removed
    it. A forked process has a copy of everything, blocks included.
    """

    def __init__(self) -> None:
        self.free: list[mmap.mmap] = []  # the last one given back is the last

    def lend(self, num_bytes: int) -> memoryview:
        """At least `num_bytes`, of unknown content, until the memoryview is gone."""
        block = self._take(num_bytes) or _fresh(num_bytes)
        lent = memoryview(block)
        weakref.finalize(lent, self._give_back, block).atexit = False
        return lent

    def _take(self, num_bytes: int) -> mmap.mmap | None:
        fitting = [block for block in tuple(self.free) if num_bytes <= len(block) <= _WASTE * num_bytes]
        for block in sorted(fitting, key=len):
            with suppress(ValueError):  # another thread was faster
                self.free.remove(block)
                return block
        return None

    def _give_back(self, block: mmap.mmap) -> None:
        self.free.append(block)
        while len(self.free) > _MOST_BLOCKS or sum(map(len, tuple(self.free))) > _MOST_BYTES:
            with suppress(IndexError):  # another thread was faster
                self.free.pop(0)  # unmapped with its last reference


def _fresh(num_bytes: int) -> mmap.mmap:
    block = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel built without large pages
        block.madvise(mmap.MADV_HUGEPAGE)
    return block


_blocks = Blocks()


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """torch.empty on the CPU, in large pages that may have been used before, if it is worth that."""
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes < _WORTH_IT_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(_blocks.lend(num_bytes), dtype=dtype, count=math.prod(shape)).view(shape)


def contiguous(tensor: Tensor) -> Tensor:
    """Tensor.contiguous on the CPU, the copy in memory of `empty`."""
    return tensor if tensor.is_contiguous() else empty(tuple(tensor.shape), tensor.dtype).copy_(tensor)


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next step, where it is glibc's and nobody tuned it by hand.

    A step, or a batch, frees and asks for the same hundreds of megabytes as the one before. Given back in between, they
    are cleared page by page each time: a third of a small network's step on a CPU. What a step takes at its peak stays
    the same, as long as no loop makes large tensors and keeps small ones between them; see `fpn.ops.matching`.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")) for name in os.environ):
        return
    with suppress(OSError, AttributeError, TypeError):  # Windows, macOS, musl
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the largest that glibc takes


def give_back_freed_memory() -> None:
    """Have the C library give the system all pages that nothing uses, where it is glibc's.

    Worth its time once, where much was made and dropped: holes that a detector's weights leave are too small for its
    maps, so the maps would come on top of them.
    """
    with suppress(OSError, AttributeError, TypeError):  # Windows, macOS, musl
        ctypes.CDLL(None).malloc_trim(0)
