"""Writes COCO: annotations/instances_SPLIT.json with ids, outlines and all that the files said beside."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fpn.data.formats.keypoints import keypoint_fields
from fpn.data.formats.layout import WHOLE
from fpn.data.formats.writer import Annotation, ImageRecord, Losses, Part, copy_image
from fpn.files import write_text


def write_coco(parts: Sequence[Part], root: Path, output: Path, losses: Losses, done: Callable[[], None]) -> None:
    """Fill the folder `output`.

    Args:
        parts: the splits.
        root: where their images are.
        output: an empty folder.
        losses: what can't be written.
        done: is called after each image.
    """
    for part in parts:
        name = "instances.json" if part.name == WHOLE else f"instances_{part.name}.json"
        write_text(output / "annotations" / name, json.dumps(_json(part, root, output, losses, done)) + "\n")


def _json(part: Part, root: Path, output: Path, losses: Losses, done: Callable[[], None]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in part.images():
        if part.family == "voc" and any(thing.ignore for thing in image.things):
            losses.once("COCO has no word for VOC's difficult: such objects are marked iscrowd")
        copy_image(root / image.source, output / "images" / image.target)
        images.append(_image(image, part))
        annotations += ({"image_id": image.image_id, **_annotation(thing, part)} for thing in image.things)
        done()
    _number(annotations)
    header = {key: value for key, value in part.header.items() if key != "categories"}
    return {**header, "images": images, "annotations": annotations, "categories": _categories(part)}


def _number(annotations: Sequence[dict[str, Any]]) -> None:
    """Give an id of its own to each that has none, or one that an earlier one has."""
    taken: set[int] = set()
    without = []
    for record in annotations:
        number = record.get("id")
        if number is None or number in taken:
            without.append(record)
        else:
            taken.add(number)
    for number, record in enumerate(without, start=max(taken, default=0) + 1):
        record["id"] = number


def _image(image: ImageRecord, part: Part) -> dict[str, Any]:
    size = {"height": image.size.height, "width": image.size.width}
    return {"id": image.image_id, "file_name": image.target, **size, **_said(image.extra, part)}


def _said(extra: Mapping[str, Any], part: Part) -> Mapping[str, Any]:
    """What a COCO json said beside stays where it was; what others did becomes `attributes`, as CVAT writes them."""
    return extra if part.family == "coco" or not extra else {"attributes": extra}


def _annotation(thing: Annotation, part: Part) -> dict[str, Any]:
    box = plain_box(thing.box)
    record: dict[str, Any] = {"category_id": part.classes.ids[thing.label], "bbox": box}
    record["area"] = box[2] * box[3] if math.isnan(thing.area) else thing.area
    # An object may be ignored for the json's `ignore` alone, which is kept beside.
    record["iscrowd"] = int(bool(thing.extra.get("iscrowd")) if "ignore" in thing.extra else thing.ignore)
    if thing.outline is not None:
        record["segmentation"] = thing.outline
    if thing.keypoints is not None and _declares(record["category_id"], part):
        record |= keypoint_fields(thing.keypoints)
    return {**_said(thing.extra, part), **record}


def plain_box(box: np.ndarray) -> list[float]:
    """x, y, width, height in as few decimals as give the same float32 corners when read again."""
    x1, y1, x2, y2 = (float(value) for value in box)
    for decimals in (0, 1, 2, 3, 4, 5, 6):
        xywh = [round(value, decimals) for value in (x1, y1, x2 - x1, y2 - y1)]
        corners = np.array([xywh[0], xywh[1], xywh[0] + xywh[2], xywh[1] + xywh[3]]).astype(np.float32)
        if (corners == box).all():
            return xywh
    return [x1, y1, x2 - x1, y2 - y1]


def _categories(part: Part) -> list[Mapping[str, Any]]:
    said: Mapping[int, Mapping[str, Any]] = part.header.get("categories", {})
    pairs = zip(part.classes.ids, part.classes.names, strict=True)
    declared = part.skeleton.to_coco() if part.skeleton and part.family != "coco" else {}
    return [{**declared, **said.get(number, {}), "id": number, "name": name} for number, name in pairs]


def _declares(number: int, part: Part) -> bool:
    """Whether objects of a category have keypoints: in COCO's files some may have, in others all."""
    said: Mapping[int, Mapping[str, Any]] = part.header.get("categories", {})
    return part.family != "coco" or bool(said.get(number, {}).get("keypoints"))
