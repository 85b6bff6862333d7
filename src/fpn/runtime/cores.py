"""How many cores there are, for what begins before PyTorch is imported."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores of the CPU that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
