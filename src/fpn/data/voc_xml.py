"""One Pascal VOC XML file: what it says about its picture and the objects there."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

from fpn.data.reading import read_xml, shorten
from fpn.errors import DataError
from fpn.shapes import Size


class VocObject(NamedTuple):
    """A class name, a box as written, whether it is `difficult`, its number in the file, and what else is said."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool
    number: int
    extra: tuple[tuple[str, str], ...]


class VocFile(NamedTuple):
    """What is kept of one file: a hundredth of its element tree."""

    picture_name: str
    size: Size | None
    objects: tuple[VocObject, ...]


def stop(kind: str, error: DataError) -> None:
    """What to do about a fault, unless the caller says otherwise. `kind` is a key of `faults.KINDS`."""
    raise error


def read_voc(path: Path, where: str, limit: int, fault: Callable[[str, DataError], None] = stop) -> VocFile:
    """Read one file.

    Args:
        path: the XML file, of at most `limit` bytes.
        where: what messages call it.
        limit: bytes that are accepted.
        fault: is told of an object without a name or an upright box, which is then left out.

    Raises:
        DataError: it is broken.
    """
    tree = read_xml(path, limit)
    if tree.tag != "annotation":
        raise DataError(f"{where}: the root element is <{tree.tag[:40]}>; a VOC file has <annotation>")
    objects = []
    for number, entry in enumerate(tree.findall("object"), start=1):
        try:
            objects.append(_object(entry, number, f"{where}: object {number}"))
        except DataError as error:
            fault("entry-broken", error)
    return VocFile(_text(tree, "filename"), _size(tree, where, fault), tuple(objects))


def class_names(path: Path, limit: int) -> set[str]:
    """The class names that a file uses; none if it can't be read, which is told when its own split is opened."""
    try:
        tree = read_xml(path, limit)
    except (DataError, FileNotFoundError):
        return set()
    return {name for entry in tree.findall("object") if (name := _text(entry, "name"))}


def _text(element: Element, key: str) -> str:
    return (element.findtext(key) or "").strip()


def _size(tree: Element, where: str, fault: Callable[[str, DataError], None]) -> Size | None:
    texts = [_text(tree, f"size/{key}") or "0" for key in ("height", "width")]
    try:
        height, width = (float(text) for text in texts)
    except ValueError:
        height = width = math.nan
    if not all(0 <= value < 2**31 and value == int(value) for value in (height, width)):
        message = f"{where}: width {shorten(texts[1])} and height {shorten(texts[0])} in <size>; both must be whole "
        fault("entry-broken", DataError(message + "numbers of pixels"))
        return None
    return Size(int(height), int(width)) if height and width else None


def _object(entry: Element, number: int, where: str) -> VocObject:
    name = _text(entry, "name")
    if not name:
        raise DataError(f"{where} has no <name>. Label it again.")
    left, top, right, bottom = (_corner(entry, key, f"{where} ({name})") for key in ("xmin", "ymin", "xmax", "ymax"))
    difficult = _text(entry, "difficult").lower() in ("1", "true")
    return VocObject(name, (left, top, right, bottom), difficult, number, _extra(entry))


def _extra(entry: Element) -> tuple[tuple[str, str], ...]:
    """The plain elements that a `Dataset` has no place for: truncated, pose, occluded, ..."""
    plain = ((child.tag, (child.text or "").strip()) for child in entry if len(child) == 0 and child.tag not in _KEPT)
    return tuple((tag, text) for tag, text in plain if text)


_KEPT = ("name", "bndbox", "difficult")


def _corner(entry: Element, key: str, where: str) -> float:
    text = entry.findtext(f"bndbox/{key}")
    if text is None:
        raise DataError(f"{where} has no <{key}> in a <bndbox>. Label it again with an upright box.")
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{where}: <{key}> is {shorten(text)}, not a number") from None
