"""Where and when a figure was measured, and by which command."""

from __future__ import annotations

import sys
from pathlib import Path

from fpn.studies.benchmark.machine import describe_machine

__all__ = ["command", "describe_machine"]


def command() -> str:
    """How this process was called, without the machine's paths."""
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
