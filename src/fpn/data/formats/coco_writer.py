"""Writes COCO: annotations/instances_SPLIT.json with ids, outlines and all that the files said beside."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fpn.data.formats.keypoints import keypoint_fields
from fpn.data.formats.layout import WHOLE
from fpn.data.formats.writer import Annotation, ImageRecord, Losses, Part
from fpn.files import write_text
from fpn.ops.boxes import xyxy_to_xywh


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
        if part.family == "voc" and any(each.ignore for each in image.annotations):
            losses.once("COCO has no word for VOC's difficult: such objects are marked iscrowd")
        part.put(root / image.source, output / "images" / image.target)
        images.append(_image(image, part))
        annotations += ({"image_id": image.image_id, **_annotation(each, part)} for each in image.annotations)
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


def _annotation(annotation: Annotation, part: Part) -> dict[str, Any]:
    box = plain_box(annotation.box)
    record: dict[str, Any] = {"category_id": part.classes.ids[annotation.label], "bbox": box}
    record["area"] = box[2] * box[3] if math.isnan(annotation.area) else annotation.area
    # An object may be ignored for the json's `ignore` alone, which is kept beside.
    record["iscrowd"] = int(
        bool(annotation.extra.get("iscrowd")) if "ignore" in annotation.extra else annotation.ignore
    )
    if annotation.outline is not None:
        record["segmentation"] = annotation.outline
    if annotation.keypoints is not None and _declares(record["category_id"], part):
        record |= keypoint_fields(annotation.keypoints)
    return {**_said(annotation.extra, part), **record}


def plain_box(box: np.ndarray) -> list[float]:
    """x, y, width, height in as few decimals as give the same float32 corners when read again."""
    exact: list[float] = xyxy_to_xywh(torch.tensor(box, dtype=torch.float64)).tolist()
    for decimals in (0, 1, 2, 3, 4, 5, 6):
        xywh = [round(value, decimals) for value in exact]
        corners = np.array([xywh[0], xywh[1], xywh[0] + xywh[2], xywh[1] + xywh[3]]).astype(np.float32)
        if (corners == box).all():
            return xywh
    return exact


def _categories(part: Part) -> list[Mapping[str, Any]]:
    said: Mapping[int, Mapping[str, Any]] = part.header.get("categories", {})
    pairs = zip(part.classes.ids, part.classes.names, strict=True)
    declared = part.skeleton.to_coco() if part.skeleton and part.family != "coco" else {}
    return [{**declared, **said.get(number, {}), "id": number, "name": name} for number, name in pairs]


def _declares(number: int, part: Part) -> bool:
    """Whether objects of a category have keypoints: in COCO's files some may have, in others all."""
    said: Mapping[int, Mapping[str, Any]] = part.header.get("categories", {})
    return part.family != "coco" or bool(said.get(number, {}).get("keypoints"))
