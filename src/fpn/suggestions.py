"""The one place that guesses which name was meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

# Comparing is quadratic in the length of names; nobody mistypes one of more than these.
_MOST = 10_000


def nearest(name: str, known: Iterable[str], *, count: int = 1) -> str:
    """ " Did you mean 'x'?" for the closest of `known` (or the closest `count`), or nothing."""
    close = get_close_matches(name, list(known)[:_MOST], n=count)
    return f" Did you mean {' or '.join(repr(each) for each in close)}?" if close else ""


def spelling(name: str) -> str:
    """What is left of a name without case, spaces, hyphens and underscores: a person takes equal ones for the same.

    Single letters may be meant to differ by case.
    """
    plain = re.sub(r"[\s_-]+", "", name)
    return plain.casefold() if len(plain) > 1 else name
