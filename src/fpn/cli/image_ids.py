"""`fpn predict --ids`: the ids that a COCO json gives to images and classes, so that both can be compared."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpn.data.formats.files import enumerate_issues, plain_name, read_json, shorten
from fpn.data.limits import Limits
from fpn.errors import DataError, DataNotFoundError
from fpn.structures import Classes


@dataclass(frozen=True, slots=True)
class GivenIds:
    """What a json calls images and classes.

    Attributes:
        images: one id for each image that was asked about.
        classes: the detector's, with the json's ids; those that it does not have get ids above all of them.
        unknown: the names of the latter.
    """

    images: Sequence[int]
    classes: Classes
    unknown: Sequence[str]


def read_ids(file: Path, paths: Sequence[Path], classes: Classes) -> GivenIds:
    """Find images in a COCO json by as much of their paths as it writes, and classes by their names.

    Args:
        file: the json.
        paths: of the images.
        classes: of the detector.

    Raises:
        DataError: it is no such json, or an image may be two of it, or two images one of it.
        DataNotFoundError: it lacks an image, or is not there.
    """
    data = read_json(file, Limits().json_bytes)
    entries, categories = _list(data, "images", file), _list(data, "categories", file)
    by_name = defaultdict(list)
    for entry in entries:
        if type(entry.get("id")) is not int or not isinstance(entry.get("file_name"), str):
            raise DataError(f"{file}: an image has no whole-numbered 'id' or no 'file_name'")
        parts = _parts(entry["file_name"])
        by_name[parts[-1]].append((parts, int(entry["id"])))
    found = {path: _find(path, by_name) for path in paths}
    missing = [f"{path} is not among the images of {file}" for path in paths if not found[path]]
    if missing:
        head = f"{file}: {len(missing)} of {len(paths)} images are not in it:"
        raise DataNotFoundError(enumerate_issues(head, missing, "Leave --ids out, or name the json that lists them."))
    _refuse_doubt(found, file)
    return GivenIds([found[path][0] for path in paths], *_named(categories, classes))


def _list(data: Any, key: str, file: Path) -> list[dict[str, Any]]:
    values = data.get(key) if isinstance(data, dict) else None
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise DataError(f"{file}: '{key}' is {shorten(values)}; --ids takes a COCO json with a list of {key}")
    return values


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in plain_name(name).replace("\\", "/").split("/") if part not in ("", ".")) or ("",)


def _find(path: Path, by_name: Mapping[str, Sequence[tuple[tuple[str, ...], int]]]) -> list[int]:
    """The ids of the entries that share the longest end of their path with an image's."""
    own = _parts(os.path.abspath(path))  # noqa: PTH100  # resolve() would follow links
    shared = [(_common_end(own, parts), number) for parts, number in by_name.get(own[-1], ())]
    longest = max((length for length, _ in shared), default=0)
    return [number for length, number in shared if length == longest]


def _common_end(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _refuse_doubt(found: Mapping[Path, Sequence[int]], file: Path) -> None:
    taken: dict[int, Path] = {}
    for path, numbers in found.items():
        if len(numbers) > 1:
            ids = ", ".join(map(str, numbers))
            raise DataError(f"{path}: may be several images of {file} (ids {ids}). Name its folder as the json does.")
        other = taken.setdefault(numbers[0], path)
        if other != path:
            raise DataError(f"{file}: {other} and {path} would both be its image {numbers[0]}. Predict one at a time.")


def _named(categories: Sequence[Mapping[str, Any]], classes: Classes) -> tuple[Classes, list[str]]:
    known = {
        entry["name"].strip(): int(entry["id"])
        for entry in categories
        if isinstance(entry.get("name"), str) and type(entry.get("id")) is int
    }
    unknown = [name for name in classes if name not in known]
    further = {name: number for number, name in enumerate(unknown, start=max(known.values(), default=0) + 1)}
    return Classes(classes.names, tuple({**known, **further}[name] for name in classes)), unknown
