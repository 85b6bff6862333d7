"""What an input took in other processes than the one that ran it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Usage:
    """Seconds of the processor so far, and the most MiB that one of them had."""

    seconds: float = 0.0
    mebibytes: int = 0

    def add(self, seconds: float, mebibytes: int) -> None:
        """One process more."""
        self.seconds += seconds
        self.mebibytes = max(self.mebibytes, mebibytes)


ELSEWHERE = Usage()
