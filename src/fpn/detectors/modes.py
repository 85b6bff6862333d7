"""Training and evaluation mode, switched for a while by several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

# Part -> how many want it in evaluation mode now, and its mode before the first of them. A part's mode is seen by all
# threads: who came first remembers it, who leaves last puts it back.
_held: dict[nn.Module, tuple[int, bool]] = {}
_lock = threading.Lock()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put norms and dropout into their eval behaviour for a while, and every part back as it was.

    Several threads may do so at once, with the same module or with parts of it. Training it meanwhile in another thread
    is the one thing that can't be had.
    """
    with _lock:
        # Nothing is to be done to others, and a detector that only looks at images has no such parts.
        parts = [part for part in module.modules() if part.training or part in _held]
        for part in parts:
            count, before = _held.get(part, (0, part.training))
            _held[part] = count + 1, before
        if parts:
            module.eval()
    try:
        yield
    finally:
        with _lock:
            for part in parts:
                count, before = _held.pop(part)
                if count > 1:
                    _held[part] = count - 1, before
                else:
                    part.training = before
