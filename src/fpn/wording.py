"""How numbers of things, and times, are told."""

from __future__ import annotations


def in_unicode(name: str) -> str:
    """A file's name as any text can hold it: bytes that are no UTF-8 are written as such, "\\xff"."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def counted(number: int, what: str) -> str:
    """Such as "1 image" or "2 images", and "1 class" or "2 classes"."""
    ending = "" if number == 1 else "es" if what.endswith("s") else "s"
    return f"{number} {what}{ending}"


def describe_seconds(seconds: float) -> str:
    """To the minute where it is long, in hours and minutes where it is very long, such as "2:05 hours"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60}:{minutes % 60:02} hours"
