"""The one place that guesses which name was meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

# Comparing is quadratic in the length of names; nobody mistypes one of more than these.
_MOST = 10_000


def nearest(name: str, known: Iterable[str], *, count: int = 1) -> str:
    """ " Did you mean 'x'?" for the closest of `known` (or the closest `count`), or nothing."""
    close = get_close_matches(name, list(known)[:_MOST], n=count)
    return f" Did you mean {' or '.join(repr(each) for each in close)}?" if close else ""
