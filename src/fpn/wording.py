"""How numbers of things, and times, are told."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """Such as "1 image" or "2 images", and "1 class" or "2 classes"."""
    ending = "" if number == 1 else "es" if what.endswith("s") else "s"
    return f"{number} {what}{ending}"


def describe_seconds(seconds: float) -> str:
    """To the minute where it is long."""
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"
