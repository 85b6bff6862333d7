"""A program that says of each HDF5 file whose path it reads what `hdf5_outline` says, each in a process of its own.

It has h5py loaded and nothing else, so that such a process begins in a millisecond. Its answers are JSON, a line each:
status, seconds of the processor, KiB of memory, and what was said.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path

import h5py  # noqa: F401  # once, and not in each process
import hdf5_outline


def _answer(path: str, said: Path) -> tuple[int, float, int, object]:
    child = os.fork()
    if not child:
        hdf5_outline._set_limits(Path(path).stat().st_size)
        said.write_text(json.dumps(hdf5_outline.outline(path)))
        os._exit(0)
    _, status, used = os.wait4(child, 0)
    told = json.loads(said.read_text()) if status == 0 else None
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss, told


def _serve(said: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for line in sys.stdin:
        print(json.dumps(_answer(line.rstrip("\n"), said)), flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
