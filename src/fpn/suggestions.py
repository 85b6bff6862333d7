"""The one place that guesses which name was meant."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

# Comparing is quadratic in the length of names; nobody mistypes one of more than these.
_MOST = 10_000
# Names of a folder that are told where none is near.
_TOLD = 6


def nearest(name: str, known: Iterable[str], *, count: int = 1) -> str:
    """ " Did you mean 'x'?" for the closest of `known` (or the closest `count`), or one that begins so."""
    known = list(known)[:_MOST]
    close = (
        get_close_matches(name, known, n=count) or [each for each in known if name and each.startswith(name)][:count]
    )
    return f" Did you mean {' or '.join(repr(each) for each in close)}?" if close else ""


def spelling(name: str) -> str:
    """What is left of a name without case, spaces, hyphens and underscores: a person takes equal ones for the same.

    Single letters may be meant to differ by case.
    """
    plain = re.sub(r"[\s_-]+", "", name)
    return plain.casefold() if len(plain) > 1 else name


@dataclass(frozen=True)
class NearestPath:
    """What there is of a path that is not there.

    Attributes:
        found: the deepest part of it that there is.
        mistyped: whether a part was taken for the nearest name in its folder.
        whole: whether nothing of the path is missing then.
    """

    found: Path
    mistyped: bool = False
    whole: bool = True

    def __str__(self) -> str:
        """To stand after "no such file."."""
        if self.whole:
            return f" Did you mean '{self.found}'?" if self.mistyped else ""
        there = _told(_names(self.found))
        return f" Did you mean '{self.found}'? It {there}" if self.mistyped else f" {_named(self.found)} {there}"


def find_nearest_path(path: str | os.PathLike[str]) -> NearestPath:
    """Each part that is not there is taken for the nearest name in its folder, whatever its case or ending."""
    found, mistyped = Path(), False
    for part in Path(path).parts:
        meant = part
        if not os.path.lexists(found / part):
            alike = _alike(part, _names(found))
            if alike is None:
                return NearestPath(found, mistyped, whole=False)
            meant, mistyped = alike, True
        found /= meant
    return NearestPath(found, mistyped)


def nearest_path(path: str | os.PathLike[str]) -> str:
    """What to say after "no such file.": the path that was meant, or what there is where it was looked for."""
    return str(find_nearest_path(path))


def _names(folder: Path) -> list[str]:
    """What may be meant in a folder; nothing of one that can't be read."""
    try:
        return sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))
    except OSError:
        return []


def _alike(part: str, names: list[str]) -> str | None:
    wanted = part.casefold()
    stem, ending = os.path.splitext(wanted)  # noqa: PTH122  of a name
    same, others = {}, {}  # an ending that both have makes no two names alike
    for name in reversed(names):
        plain = name.casefold()
        if plain.endswith(ending):
            same[plain.removesuffix(ending)] = name
        else:
            others[plain] = name
    for text, known in ((stem, same), (wanted, others)):
        if close := get_close_matches(text, list(known)[:_MOST], n=1):
            return known[close[0]]
    return next((name for name in names if Path(name).stem.casefold() == wanted), None)


def _named(folder: Path) -> str:
    return "The current folder" if folder == Path() else f"'{folder}'"


def _told(names: list[str]) -> str:
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return f"has {', '.join(names[:_TOLD])}{more}." if names else "has nothing in it."
