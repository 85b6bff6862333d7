"""One Pascal VOC XML file: what it says about its image and the objects there."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

from fpn.data.formats.files import read_xml, shorten
from fpn.errors import DataError
from fpn.shapes import Size


class VocObject(NamedTuple):
    """A class name, a box as written, whether it is `difficult`, its number in the file, and what else is said.

    `turn`: degrees by which CVAT says that the rectangle is turned about its centre.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool
    number: int
    extra: Mapping[str, Any]
    turn: float = 0.0


class VocFile(NamedTuple):
    """What is kept of one file: a hundredth of its element tree; `extra` is what it says beside."""

    image_name: str
    size: Size | None
    objects: tuple[VocObject, ...]
    extra: Mapping[str, Any]


def stop(kind: str, error: DataError) -> None:
    """What to do about a fault, unless the caller says otherwise. `kind` is a key of `faults.KINDS`."""
    raise error


def read_voc(
    path: Path, where: str, limit: int, fault: Callable[[str, DataError], None] = stop, *, everything: bool = False
) -> VocFile:
    """Read one file.

    Args:
        path: the XML file, of at most `limit` bytes.
        where: what messages call it.
        limit: bytes that are accepted.
        fault: is told of an object without a name or an upright box, which is then left out.
        everything: keep also what a `Dataset` has no place for, in `extra`.

    Raises:
        DataError: it is broken.
    """
    tree = read_xml(path, limit)
    if tree.tag != "annotation":
        raise DataError(f"{where}: the root element is <{tree.tag[:40]}>; a VOC file has <annotation>")
    objects = []
    for number, entry in enumerate(tree.findall("object"), start=1):
        try:
            found = _object(entry, number, f"{where}: object {number}")
            objects.append(found._replace(extra=_rest(entry, _OBJECT_TAGS)) if everything else found)
        except DataError as error:
            fault("entry-broken", error)
    extra = _rest(tree, _IMAGE_TAGS) if everything else {}
    return VocFile(_text(tree, "filename"), _size(tree, where, fault), tuple(objects), extra)


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
    return VocObject(name, (left, top, right, bottom), difficult, number, {}, _turn(entry))


def _turn(entry: Element) -> float:
    said = (
        _text(each, "value") for each in entry.iterfind("attributes/attribute") if _text(each, "name") == "rotation"
    )
    try:
        angle = float(next(said, "0"))
    except ValueError:
        return 0.0
    return angle % 180 if abs(angle) < 36000 else 0.0


def _rest(element: Element, without: Collection[str] = (), depth: int = 4) -> dict[str, Any]:
    """What the children say (pose, truncated, part, source, ...): text, or a dict of theirs; a list for equal tags.

    Deeper elements, of which VOC has none, count as text: a hostile file is nested as deeply as it is long.
    """
    said: dict[str, Any] = {}
    for child in element:
        value = _rest(child, depth=depth - 1) if len(child) and depth else (child.text or "").strip()
        if child.tag in without or not value:
            continue
        said.setdefault(child.tag, []).append(value)
    return {tag: values[0] if len(values) == 1 else values for tag, values in said.items()}


_OBJECT_TAGS = frozenset({"name", "bndbox", "difficult"})
# `folder` and `path` say where the image lay when it was labelled.
_IMAGE_TAGS = frozenset({"folder", "path", "filename", "size", "object"})


def _corner(entry: Element, key: str, where: str) -> float:
    text = entry.findtext(f"bndbox/{key}")
    if text is None:
        raise DataError(f"{where} has no <{key}> in a <bndbox>. Label it again with an upright box.")
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{where}: <{key}> is {shorten(text)}, not a number") from None
