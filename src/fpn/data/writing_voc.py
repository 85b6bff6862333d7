"""Writes Pascal VOC: Annotations/, JPEGImages/, ImageSets/Main/SPLIT.txt, and labels.txt for the classes' order."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from fpn.data.layout import WHOLE
from fpn.data.writing import Losses, Part, Shown, Thing, copy_picture, shortest

# What XML 1.0 can't hold, and what an element may be called.
_UNWRITABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAG = re.compile(r"[A-Za-z_][\w.-]*")
_OWN = {"name", "bndbox", "difficult"}


def write_voc(parts: Sequence[Part], root: Path, output: Path, losses: Losses, done: Callable[[], None]) -> None:
    """Fill the folder `output`; arguments as `write_coco`."""
    names = list(dict.fromkeys(name for part in parts for name in part.classes))
    (output / "labels.txt").write_text("".join(f"{_text(name)}\n" for name in names), encoding="utf-8")
    (output / "Annotations").mkdir()
    written: set[str] = set()
    for part in parts:
        _count_ids(part, losses)
        stems = []
        for picture in part.pictures():
            stem = Path(picture.target).stem
            stems.append(stem)
            copy_picture(root / picture.source, output / "JPEGImages" / picture.target)
            if stem not in written:
                _count(picture, part, losses)
                _save(_annotation(picture, part), output / "Annotations" / f"{stem}.xml")
            written.add(stem)
            done()
        if part.name != WHOLE:
            _list(output / "ImageSets/Main" / f"{part.name}.txt", stems)


def _count_ids(part: Part, losses: Losses) -> None:
    if part.classes.ids != tuple(range(1, len(part.classes) + 1)):
        losses.once("VOC has no category ids: they become 1, 2, 3, ... in the order of labels.txt")
    if part.family == "coco":
        losses.once("VOC has no picture ids: they become 1, 2, 3, ... in order")
        losses.once("VOC has no place for what the json says beside (info, licences, supercategories)")


def _count(picture: Shown, part: Part, losses: Losses) -> None:
    losses.add("outlines, which VOC's XML can't hold", sum(thing.outline is not None for thing in picture.things))
    if part.family == "coco":
        losses.add("further fields of pictures and objects in the json", bool(picture.extra))
        losses.add("further fields of pictures and objects in the json", sum(bool(t.extra) for t in picture.things))


def _list(file: Path, stems: Sequence[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")


def _annotation(picture: Shown, part: Part) -> Element:
    tree = Element("annotation")
    _add(tree, "folder", "JPEGImages")
    _add(tree, "filename", picture.target)
    size = SubElement(tree, "size")
    for key, value in (("width", picture.size.width), ("height", picture.size.height), ("depth", 3)):
        _add(size, key, str(value))
    for thing in picture.things:
        _add_object(tree, thing, part)
    return tree


def _add_object(tree: Element, thing: Thing, part: Part) -> None:
    entry = SubElement(tree, "object")
    _add(entry, "name", part.classes[thing.label])
    for key, value in thing.extra.items() if part.family == "voc" else ():
        if _TAG.fullmatch(key) and key not in _OWN:
            _add(entry, key, str(value))
    _add(entry, "difficult", str(int(thing.ignore)))
    box = SubElement(entry, "bndbox")
    for key, value in zip(("xmin", "ymin", "xmax", "ymax"), thing.box.tolist(), strict=True):
        _add(box, key, shortest(value))


def _add(parent: Element, key: str, text: str) -> None:
    SubElement(parent, key).text = _text(text)


def _text(text: str) -> str:
    return _UNWRITABLE.sub("?", text)


def _save(tree: Element, file: Path) -> None:
    indent(tree)
    ElementTree(tree).write(file, encoding="utf-8")
