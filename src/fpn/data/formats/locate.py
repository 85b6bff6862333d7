"""Which file a written name means: names come from other systems, other folders and other tools.

A name that is there as written is taken as it is. Else backslashes, percent signs, Unicode's two ways of writing an
accent, upper and lower case, another suffix of an image and a folder of another machine in front of it are looked
through; a match is taken if it is the only one, and the reader says so.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from fpn.data.formats.files import Folder, is_file_name, plain_name, shorten
from fpn.data.formats.layout import plain_split
from fpn.errors import DataError

# Names that are looked at to find the folder they are relative to.
_SAMPLE = 20
_SPLITS = frozenset({"train", "val", "test"})
# What stands before a path in it: file://, C:, Label Studio's /data/local-files/?d=
_BEFORE = re.compile(r"^(?:[a-zA-Z][a-zA-Z0-9+.-]*://|[a-zA-Z]:(?=[\\/])|.*\?d=)")


@dataclass(frozen=True)
class Located:
    """What became of many written names.

    Attributes:
        paths: name -> path of the file; without those that lead out of the folder.
        repaired: name -> path relative to the folder, of those that are not there as written.
        missing: names without a file, with the path that they would have.
        outside: names that are none or lead out of the folder, and why that is refused.
    """

    paths: dict[str, str] = field(default_factory=dict)
    repaired: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    outside: dict[str, DataError] = field(default_factory=dict)

    def told(self, where: str, of: Mapping[str, str] | None = None) -> dict[str, str]:
        """For a check: file -> what was taken for it; `of`: name -> where it stands, if not all in one place."""
        places = of or {}
        return {
            found: f"{places.get(name, where)}: {shorten(name)} is taken for {found}"
            for name, found in self.repaired.items()
        }

    def summary(self, where: str, of: Mapping[str, str] | None = None) -> str:
        """The same in one line."""
        name, found = next(iter(self.repaired.items()))
        where = (of or {}).get(name, where)
        count = len(self.repaired)
        what = "a file name is" if count == 1 else f"{count} file names are"
        return f"{where}: {what} not written as the files are called: {shorten(name)} is taken for {found}"


def locate(
    folder: Folder,
    names: Iterable[str],
    bases: Callable[[str], Iterable[Path]],
    where: str,
    *,
    split: str = "",
    wanted: Callable[[str], bool],
) -> Located:
    """Find the files of written names.

    Args:
        folder: of the dataset, out of which no name may lead.
        names: as written.
        bases: name -> the folders it may be relative to, the likeliest first.
        where: what messages call the file with the names.
        split: of which the names are: files that lie under another split's name are none of its.
        wanted: whether a file may be meant, by its name.
    """
    found = Located()
    lost: dict[str, str] = {}
    for name in names:
        try:
            paths = [folder.inside(base, name, where) for base in bases(name)]
        except DataError as error:
            found.outside[name] = error
            continue
        there = next((path for path in paths if folder.has(path)), None)
        if there is None:
            lost[name] = paths[0]
        else:
            found.paths[name] = there
    if lost or found.outside:
        _search(folder, lost, found, split, wanted)
    return found


def _search(folder: Folder, lost: Mapping[str, str], found: Located, split: str, wanted: Callable[[str], bool]) -> None:
    finder = _Finder(folder, split, wanted)
    names = [name for name in (*lost, *found.outside) if is_file_name(name)]
    finder.learn(names)
    for name in names:
        path = finder.find(name, lost.get(name))
        if path is None:
            continue
        found.outside.pop(name, None)
        found.paths[name] = str(folder.root / path)
        found.repaired[name] = path
    for name, path in lost.items():
        if name not in found.paths:
            found.paths[name] = found.missing[name] = path


class _Finder:
    """All files of a folder by their names as written on any system; made once, when a name is not found."""

    def __init__(self, folder: Folder, split: str, wanted: Callable[[str], bool]) -> None:
        self.folder = folder
        self.split = plain_split(split) if split else ""
        self.by_path: dict[str, list[str]] = defaultdict(list)
        self.by_stem: dict[str, list[str]] = defaultdict(list)
        self.by_name: dict[str, list[str]] = defaultdict(list)
        for path in folder.walk(folder.root):
            if wanted(os.path.basename(path)):  # noqa: PTH119  # many
                relative = folder.relative(path)
                self.by_path[plain_name(relative)].append(relative)
                self.by_stem[_stem(plain_name(relative))].append(relative)
                self.by_name[_stem(plain_name(os.path.basename(path)))].append(relative)  # noqa: PTH119
        self.bases: list[tuple[str, int]] = []

    def learn(self, names: list[str]) -> None:
        """Find the folder that names are relative to, once their first few parts are left out."""
        sample = names[:: max(1, len(names) // _SAMPLE)]
        votes: Counter[tuple[str, int]] = Counter()
        for name in sample:
            votes.update({vote for parts in _readings(name) for vote in self._votes(parts)})
        if not votes:
            return
        # The fewest parts left out: they were written to say something.
        fewest = min(dropped for (_, dropped), count in votes.items() if count == max(votes.values()))
        best = [vote for vote, count in votes.items() if count == max(votes.values()) and vote[1] == fewest]
        if len(best) == 1 and 2 * votes[best[0]] >= len(sample):
            self.bases = best

    def _votes(self, parts: tuple[str, ...]) -> Iterable[tuple[str, int]]:
        """(folder, parts left out) with which a name would be found."""
        for path in self.by_name.get(_stem(plain_name(parts[-1])), ()):
            have = tuple(plain_name(path).split("/"))
            for dropped in range(len(parts)):
                tail = tuple(plain_name(part) for part in parts[dropped:])
                ends = _stem(have[-1]) == _stem(tail[-1]) and have[-len(tail) : -1] == tail[:-1]
                if ends and len(tail) <= len(have) and not self._contradicts(parts[:dropped], have):
                    yield "/".join(path.split("/")[: len(have) - len(tail)]), dropped

    def _contradicts(self, dropped: tuple[str, ...], have: tuple[str, ...]) -> bool:
        """Whether the file lies in a split's folder, and another split was meant; or in none though one was named."""
        named = {plain_split(part) for part in dropped} & _SPLITS
        lies = {plain_split(part) for part in have[:-1]} & _SPLITS
        meant = {self.split} & _SPLITS
        return not named <= lies or bool(lies and meant and not lies & meant)

    def find(self, name: str, expected: str | None) -> str | None:
        """The only file that a name may mean, relative to the folder."""
        places = [] if expected is None else [self.folder.relative(expected)]
        for parts in _readings(name):
            places += ["/".join([*filter(None, [base]), *parts[dropped:]]) for base, dropped in self.bases]
        if expected is not None:
            places += [f"{self.folder.relative(Path(expected).parent)}/{parts[-1]}" for parts in _readings(name)[1:]]
        for index, key in ((self.by_path, plain_name), (self.by_stem, lambda place: _stem(plain_name(place)))):
            for place in dict.fromkeys(map(os.path.normpath, places)):
                paths = index.get(key(place), ())
                if len(paths) == 1:
                    return paths[0]
                if paths:
                    return None
        return None


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]  # noqa: PTH122  # many


def _readings(name: str) -> list[tuple[str, ...]]:
    """A name's parts: as they stand, and without percent signs."""
    texts = dict.fromkeys((name, unquote(name)))
    plain = (_BEFORE.sub("", text).replace("\\", "/") for text in texts)
    parts = (tuple(part for part in text.split("/") if part not in ("", ".", "..")) for text in plain)
    return [each for each in dict.fromkeys(parts) if each]
