"""Makes an input that found something smaller, as long as it finds the same."""

from __future__ import annotations

import time
from collections.abc import Callable

# MinSize to bring some kilobytes down to the part that matters.
_TRIES, _SECONDS = 2000, 20.0


def minimised(data: bytes, still: Callable[[bytes], bool]) -> bytes:
    """Leave out ever smaller pieces while `still` holds."""
    size, tries, end = max(len(data) // 2, 1), 0, time.monotonic() + _SECONDS
    while size and tries < _TRIES and time.monotonic() < end:
        start = 0
        while start < len(data) and tries < _TRIES and time.monotonic() < end:
            shorter = data[:start] + data[start + size :]
            tries += 1
            if still(shorter):
                data = shorter
            else:
                start += size
        size //= 2
    return data
