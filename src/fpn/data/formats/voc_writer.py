"""Writes Pascal VOC: Annotations/, JPEGImages/, ImageSets/Main/SPLIT.txt, and labels.txt for the classes' order."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from fpn.data.formats.layout import WHOLE
from fpn.data.formats.writer import (
    CONTRADICTED,
    Annotation,
    ImageRecord,
    Losses,
    Part,
    attributes,
    count_further,
    shortest,
)

# What XML 1.0 can't hold, and what an element may be called.
_UNWRITABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAG = re.compile(r"[A-Za-z_][\w.-]*")
_OWN = {"folder", "filename", "size", "object", "name", "bndbox", "difficult"}


def write_voc(parts: Sequence[Part], root: Path, output: Path, losses: Losses, done: Callable[[], None]) -> None:
    """Fill the folder `output`; arguments as `write_coco`."""
    names = list(dict.fromkeys(name for part in parts for name in part.classes))
    (output / "labels.txt").write_text("".join(f"{_text(name)}\n" for name in names), encoding="utf-8")
    (output / "Annotations").mkdir()
    written: dict[str, int] = {}
    for part in parts:
        _count_ids(part, losses)
        stems = []
        for image in part.images():
            stem = Path(image.target).stem
            stems.append(stem)
            part.put(root / image.source, output / "JPEGImages" / image.target)
            text = _annotation(image, part)
            if stem not in written:
                _count(image, part, losses)
                (output / "Annotations" / f"{stem}.xml").write_bytes(text)
            losses.add(CONTRADICTED, written.setdefault(stem, hash(text)) != hash(text))
            done()
        if part.name != WHOLE:
            _list(output / "ImageSets/Main" / f"{part.name}.txt", stems)


def _count_ids(part: Part, losses: Losses) -> None:
    if part.classes.ids != tuple(range(1, len(part.classes) + 1)):
        losses.once("VOC has no category ids: they become 1, 2, 3, ... in the order of labels.txt")
    if part.family == "coco":
        losses.once("VOC has no ids of images: they become 1, 2, 3, ... in order; and none of objects")
        losses.once("VOC has no place for what the json says beside (info, licences, supercategories)")


def _count(image: ImageRecord, part: Part, losses: Losses) -> None:
    losses.add(
        "outlines, which VOC's XML can't hold", sum(annotation.outline is not None for annotation in image.annotations)
    )
    pointed = sum(
        annotation.keypoints is not None and bool(annotation.keypoints[:, 2].any()) for annotation in image.annotations
    )
    losses.add("keypoints of objects, which VOC's XML can't hold", pointed)
    if part.family == "coco":
        count_further(image, losses)
        if any(each.ignore for each in image.annotations):
            losses.once("VOC has no word for COCO's iscrowd: such objects are marked difficult")


def _list(file: Path, stems: Sequence[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")


def _annotation(image: ImageRecord, part: Part) -> bytes:
    tree = Element("annotation")
    _add(tree, "folder", "JPEGImages")
    _add(tree, "filename", image.target)
    size = SubElement(tree, "size")
    for key, value in (("width", image.size.width), ("height", image.size.height), ("depth", 3)):
        _add(size, key, str(value))
    _fill(tree, attributes(image.extra, part.family))
    for annotation in image.annotations:
        _add_object(tree, annotation, part)
    indent(tree)
    text: bytes = tostring(tree, encoding="utf-8")
    return text


def _add_object(tree: Element, annotation: Annotation, part: Part) -> None:
    entry = SubElement(tree, "object")
    _add(entry, "name", part.classes[annotation.label])
    _fill(entry, attributes(annotation.extra, part.family))
    _add(entry, "difficult", str(int(annotation.ignore)))
    box = SubElement(entry, "bndbox")
    for key, value in zip(("xmin", "ymin", "xmax", "ymax"), annotation.box.tolist(), strict=True):
        _add(box, key, shortest(value))


def _fill(parent: Element, said: Mapping[str, Any], own: Collection[str] = _OWN) -> None:
    """Elements as `read_voc` gave them: a dict is one with children, a list several of one tag."""
    for key, value in said.items():
        for each in value if isinstance(value, list) else [value]:
            if not _TAG.fullmatch(key) or key in own:
                continue
            if isinstance(each, Mapping):
                _fill(SubElement(parent, key), each, own=())
            else:
                _add(parent, key, str(each))


def _add(parent: Element, key: str, text: str) -> None:
    SubElement(parent, key).text = _text(text)


def _text(text: str) -> str:
    return _UNWRITABLE.sub("?", text)
