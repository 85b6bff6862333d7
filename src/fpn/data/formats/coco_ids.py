"""Ids of a COCO json that are no whole numbers from 0 on, replaced so that what belongs together stays together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fpn.data.formats.files import shorten

_Entries = list[dict[str, Any]]
_MOST_TOLD = 100


@dataclass(frozen=True, slots=True)
class Renumbered:
    """A json's lists with usable ids, and what was changed."""

    images: _Entries
    annotations: _Entries
    categories: _Entries
    told: list[str]


def renumber(images: _Entries, annotations: _Entries, categories: _Entries) -> Renumbered:
    """Give new numbers to images and classes with other ids, there and in the annotations that refer to them.

    A text such as "7" in an annotation is the number 7 if there is such an image or class. What is missing, or given
    twice, stays as it is: there is nothing to tell what belongs to it.
    """
    if _all_usable(images, annotations, categories):
        return Renumbered(images, annotations, categories, [])
    told: list[str] = []
    new = {}
    lists = {}
    for key, what, entries in (("image_id", "image", images), ("category_id", "category", categories)):
        new[key] = _new_numbers(entries)
        lists[key] = [_changed(entry, "id", new[key]) for entry in entries]
        told += [f"'id' of {what} {shorten(old)} becomes {number}" for (_, old), number in new[key].items()]
        new[key] |= {(str, str(entry["id"])): entry["id"] for entry in lists[key] if is_whole(entry.get("id"))}
    changed = []
    for position, record in enumerate(annotations, start=1):
        fitted = record
        for key in ("image_id", "category_id"):
            fitted = _changed(fitted, key, new[key])
        if "id" in fitted and not is_whole(fitted["id"]):
            told.append(f"'id' of annotation {position} is {shorten(fitted['id'])}: it gets a new one")
            fitted = {name: value for name, value in fitted.items() if name != "id"}
        elif fitted is not record:
            told += _told_of(record, fitted, position)
        changed.append(fitted)
    more = [f"{len(told) - _MOST_TOLD} ids more"] if len(told) > _MOST_TOLD else []
    return Renumbered(lists["image_id"], changed, lists["category_id"], told[:_MOST_TOLD] + more)


def is_whole(value: Any) -> bool:
    """Whether it can be an id."""
    return type(value) is int and 0 <= value < 2**63


def names_differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two entries of images are about different files."""
    return bool(one.get("file_name") != other.get("file_name"))


def _all_usable(*lists: _Entries) -> bool:
    keys = ("id", "image_id", "category_id")
    return all(is_whole(entry[key]) for entries in lists for entry in entries for key in keys if key in entry)


def _key(value: Any) -> tuple[type, Any] | None:
    """What tells ids apart: True is not 1 here, nor is 1.0. None: it can be no id."""
    return (type(value), value) if isinstance(value, Hashable) and value is not None and value == value else None


def _new_numbers(entries: _Entries) -> dict[tuple[type, Any], int]:
    """Unusable ids that one entry has -> the next free numbers; a whole number as text or with a point stays."""
    keys = [_key(entry.get("id")) for entry in entries]
    counts = Counter(keys)
    taken = {key[1] for key in keys if key is not None and is_whole(key[1])}
    new: dict[tuple[type, Any], int] = {}
    free = max(taken, default=0) + 1
    for key in keys:
        if key is None or is_whole(key[1]) or counts[key] > 1:
            continue
        meant = _meant(key[1])
        if meant is None or meant in taken:
            meant, free = free, free + 1
        taken.add(meant)
        free = max(free, meant + 1)
        new[key] = meant
    return new


def _meant(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal() and len(value) < 19:
        return int(value)
    return int(value) if type(value) is float and 0 <= value < 2**53 and value == int(value) else None


def _changed(entry: dict[str, Any], key: str, new: Mapping[tuple[type, Any], int]) -> dict[str, Any]:
    number = new.get(_key(entry.get(key)) or (type(None), None))
    return entry if number is None else {**entry, key: number}


def _told_of(record: dict[str, Any], fitted: dict[str, Any], position: int) -> Iterator[str]:
    for key in ("image_id", "category_id"):
        if isinstance(record.get(key), str) and record[key] != fitted[key]:
            yield f"{key!r} of annotation {position} is {shorten(record[key])}: {fitted[key]} is taken"
