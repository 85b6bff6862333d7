"""One Pascal VOC XML file: what it says about its image and the objects there."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

from fpn.data.formats.files import read_xml, shorten
from fpn.data.formats.geometry import Corners, has_extent, turned_bounds
from fpn.errors import DataError
from fpn.shapes import Size

_COORDINATE = re.compile(r"[xy]\d*")


class VocObject(NamedTuple):
    """A class name, a box as written, whether it is `difficult`, its number in the file, and what else is said.

    `mended`: how the box was made, if it is none as written.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool
    number: int
    extra: Mapping[str, Any]
    mended: str = ""


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
        fault: is told of an object without a name or a box, which is then left out, and of a size that is none.
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
        fault("size-unusable", DataError(message + "numbers of pixels"))
        return None
    return Size(int(height), int(width)) if height and width else None


def _object(entry: Element, number: int, where: str) -> VocObject:
    name = _text(entry, "name")
    if not name:
        raise DataError(f"{where} has no <name>. Label it again.")
    difficult = _text(entry, "difficult").lower() in ("1", "true")
    box, mended = _box(entry, f"{where} ({name})")
    return VocObject(name, box, difficult, number, {}, mended)


def _box(entry: Element, where: str) -> tuple[Corners, str]:
    """The box as written, else the bounds of what there is in its place; and how it was made."""
    try:
        left, top, right, bottom = (_corner(entry, key, where) for key in ("xmin", "ymin", "xmax", "ymax"))
        box, error = (left, top, right, bottom), None
    except DataError as reason:
        box, error = (math.nan,) * 4, reason
    turn = _turn(entry)
    if error is None and has_extent(box):
        return (turned_bounds(box, turn), f"is a rectangle turned by {turn:g} degrees") if turn else (box, "")
    for bounds, what in ((_polygon_bounds(entry), "a polygon"), (_turned_box_bounds(entry), "a turned box")):
        if bounds is not None:
            return bounds, f"has {what} and no box"
    if error is not None:
        raise error
    return box, ""


def _polygon_bounds(entry: Element) -> Corners | None:
    """Around <polygon>, whose corners tools write as <x1><y1><x2>..., or as <pt><x><y></pt>, in any depth."""
    values: dict[str, list[float]] = {"x": [], "y": []}
    for child in entry.iterfind("polygon//*"):
        if _COORDINATE.fullmatch(child.tag):
            values[child.tag[0]].append(_number(child.text))
    xs, ys = values["x"], values["y"]
    if len(xs) != len(ys) or len(xs) < 3:
        return None
    bounds = min(xs), min(ys), max(xs), max(ys)
    # NaN hides in min() and max().
    return bounds if has_extent(bounds) and all(map(math.isfinite, (*xs, *ys))) else None


def _turned_box_bounds(entry: Element) -> Corners | None:
    """Around roLabelImg's <robndbox>: centre, size, and an angle in radians."""
    x, y, width, height, angle = (_number(entry.findtext(f"robndbox/{key}")) for key in ("cx", "cy", "w", "h", "angle"))
    if not math.isfinite(angle):
        return None
    bounds = turned_bounds((x - width / 2, y - height / 2, x + width / 2, y + height / 2), math.degrees(angle))
    return bounds if has_extent(bounds) else None


def _number(text: str | None) -> float:
    """NaN for what is no number."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


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
