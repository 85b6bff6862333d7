"""How numbers of things are told."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """Such as "1 image" or "2 images", and "1 class" or "2 classes"."""
    ending = "" if number == 1 else "es" if what.endswith("s") else "s"
    return f"{number} {what}{ending}"
