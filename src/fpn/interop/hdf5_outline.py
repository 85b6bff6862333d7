"""What an HDF5 file holds and where its numbers lie, as JSON; `hdf5_files` runs this as a program of its own.

libhdf5 goes round in circles, and worse, over some files that were changed on purpose. Here it can do so: the process
has an end. No number is read, and only plain links, groups and contiguous arrays are taken, so that no other file,
filter or plugin is ever asked for.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, TypeAlias

# Names of groups, the outermost first, and that of what is meant.
Place: TypeAlias = tuple[str, ...]

# Keras' files of detectors are six groups deep and have some thousand objects, which take 0.2 s and 40 MB.
_MOST_DEEP, _MOST_OBJECTS, _MOST_AXES, _MOST_LETTERS = 20, 8_000, 8, 500
# Seconds of the processor: so many, and one more for so many bytes of the file, as long as it may take at most.
_LEAST_TIME, _BYTES_A_SECOND, _MOST_TIME = 0.8, 20_000_000, 10.0
# Bytes, beyond what the process has when h5py is loaded.
_MOST_MEMORY = 128 * 2**20
# What h5py raises where libhdf5 can't read on.
_DAMAGED = (OSError, RuntimeError, ValueError, TypeError, LookupError, NotImplementedError, SystemError, MemoryError)
_REMEDY = "h5repack -l CONTI -f NONE IN OUT writes it plainly"


class _RefusedError(Exception):
    """Why a file is not read on."""


class _Walk:
    """Visits every object of a file once.

    Attributes:
        arrays: path, type of a number as NumPy writes it, shape, and the byte of the file where the numbers begin.
        titles: path of a group "vars" of Keras 3, and the name of its layer.
    """

    def __init__(self, h5py: Any) -> None:
        self.arrays: list[tuple[Place, str, tuple[int, ...], int]] = []
        self.titles: list[tuple[Place, str]] = []
        self._h5py = h5py
        self._seen: set[int] = set()

    def visit(self, group: Any, place: Place) -> None:
        """A group and all that is in it."""
        self._enter(group, place)
        if place and place[-1] == "vars" and "name" in group.attrs:
            self.titles.append((place, _title(group, place)))
        links: list[tuple[bytes, int]] = []
        group.id.links.iterate(lambda name, link: links.append((name, link.type)), info=True)
        for name, kind in links:
            self._member(group, name, kind, (*place, name.decode("utf-8", "backslashreplace")))

    def _member(self, group: Any, name: bytes, kind: int, place: Place) -> None:
        if kind != self._h5py.h5l.TYPE_HARD:
            known = {self._h5py.h5l.TYPE_EXTERNAL: "another file", self._h5py.h5l.TYPE_SOFT: "another place"}
            raise _RefusedError(f"{_shown(place)} is a link to {known.get(kind, 'nobody knows')}, and is not followed")
        item = group[name]
        if isinstance(item, self._h5py.Group):
            self.visit(item, place)
        elif isinstance(item, self._h5py.Dataset):
            self._enter(item, place)
            self.arrays.append((place, *_layout(item, place)))
        else:
            raise _RefusedError(f"{_shown(place)} is neither a group nor an array")

    def _enter(self, item: Any, place: Place) -> None:
        address = int(self._h5py.h5o.get_info(item.id).addr)
        if address in self._seen:
            raise _RefusedError(f"{_shown(place)} is there under another name, too")
        self._seen.add(address)
        if len(self._seen) > _MOST_OBJECTS:
            raise _RefusedError(f"it has more than {_MOST_OBJECTS} groups and arrays")
        if len(place) > _MOST_DEEP:
            raise _RefusedError(f"its groups are nested more than {_MOST_DEEP} deep")
        if place and len(place[-1]) > _MOST_LETTERS:
            raise _RefusedError(f"it has a name of more than {_MOST_LETTERS} letters, {_shown(place[-1:])}")


def _layout(item: Any, place: Place) -> tuple[str, tuple[int, ...], int]:
    shape, dtype = item.shape, item.dtype
    if shape is None or dtype.kind not in "fiu" or dtype.itemsize > 8 or len(shape) > _MOST_AXES:
        raise _RefusedError(f"{_shown(place)} is no array of numbers, but of {_plain(str(dtype))}")
    if 0 in shape:
        return dtype.str, tuple(shape), 0
    start = None if item.is_virtual or item.external else item.id.get_offset()
    if start is None:
        raise _RefusedError(f"{_shown(place)} is compressed, in pieces, empty, or elsewhere; {_REMEDY}")
    return dtype.str, tuple(shape), int(start)


def _title(group: Any, place: Place) -> str:
    told = group.attrs["name"]
    if not isinstance(told, str) or not 0 < len(told) <= _MOST_LETTERS:
        raise _RefusedError(f"{_shown(place)} has a name that is none")
    return told


def _shown(place: Place) -> str:
    return _plain("/" + "/".join(place))


def _plain(text: str) -> str:
    return ascii(text[:200])[1:-1]


def outline(path: str) -> dict[str, Any]:
    """What a file holds, or why it is not read."""
    import h5py

    walk = _Walk(h5py)
    try:
        with h5py.File(path, "r", locking=False) as file:
            walk.visit(file, ())
    except _RefusedError as error:
        return {"refused": str(error)}
    except _DAMAGED as error:
        return {"refused": f"its HDF5 is damaged ({_plain(' '.join(str(error).split()))})"}
    return {"arrays": walk.arrays, "titles": walk.titles}


def _set_limits(size: int) -> None:
    """End this process when it takes too long over a file of so many bytes, or too much memory."""
    try:
        import resource
        import signal
    except ImportError:  # no Unix; `hdf5_files` waits for a time in any case
        return
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # it ends the process
    signal.setitimer(signal.ITIMER_PROF, min(_LEAST_TIME + size / _BYTES_A_SECOND, _MOST_TIME))
    pages = Path("/proc/self/statm")
    if pages.is_file():  # Linux
        most = int(pages.read_text().split()[0]) * resource.getpagesize() + _MOST_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    import h5py  # noqa: F401  # before there are limits, as it takes more than a file does

    _set_limits(Path(sys.argv[1]).stat().st_size)
    print(json.dumps(outline(sys.argv[1])))
