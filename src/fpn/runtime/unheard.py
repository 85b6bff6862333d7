"""Warnings that are not for the user, left unsaid by several threads at once.

`warnings.catch_warnings` puts back what it found when it began. Of two threads that overlap, the later one to leave
puts back the filter of the earlier one, and from then on the whole process is silent.
"""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

_Filter = tuple[type[Warning], str]

_lock = threading.Lock()
_inside: Counter[_Filter] = Counter()
_added: dict[_Filter, Any] = {}


@contextmanager
def unheard(category: type[Warning] = Warning, *, module: str = "") -> Iterator[None]:
    """Inside the `with`, warnings of a category from modules whose names match are not shown, in any thread.

    Args:
        category: of the warnings.
        module: regular expression that the name of the module must begin with, as `warnings.filterwarnings` takes it.
    """
    key = (category, module)
    with _lock:
        _inside[key] += 1
        if _inside[key] == 1:
            warnings.filterwarnings("ignore", category=category, module=module)
            _added[key] = warnings.filters[0]
    try:
        yield
    finally:
        with _lock:
            _inside[key] -= 1
            if _inside[key] == 0:
                with suppress(ValueError):  # somebody put other filters in their place meanwhile
                    cast(list[Any], warnings.filters).remove(_added.pop(key))
