"""Where a local run's worker processes come from.

Linux forks them from a process that has imported the code once. It can do so while the run's own process imports and
looks at model and images, and of eight workers not each imports PyTorch beside the seven others.
"""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

# The first keeps Ctrl-C from what the second imports.
_IMPORTED = ["fpn.batch.deaf_to_ctrl_c", "fpn.batch.shards"]


def worker_context() -> BaseContext:
    """How worker processes begin; on Linux the process that they are forked from is there after this call."""
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    multiprocessing.set_forkserver_preload(_IMPORTED)
    forkserver.ensure_running()
    return multiprocessing.get_context("forkserver")
