"""Writes one small labelled dataset in each format, in the plainest layout, for tests to open or to spoil."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image


class Annotation(NamedTuple):
    name: str
    box: tuple[float, float, float, float]
    ignore: bool = False


class Shot(NamedTuple):
    file: str
    width: int
    height: int
    annotations: tuple[Annotation, ...] = ()


CLASSES = ("bolt", "nut", "washer")
# Odd sizes, an image without objects in the middle, a box that fills its image, fractions of a pixel.
SHOTS = (
    Shot("a.png", 53, 37, (Annotation("nut", (3, 4, 20, 30)), Annotation("bolt", (0, 0, 53, 37)))),
    Shot("b.png", 31, 64),
    Shot("c.jpg", 101, 7, (Annotation("washer", (50.25, 1.5, 99.75, 6)),)),
)


def save_image(path: Path, width: int, height: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 150)).save(path)


def coco_json(shots: tuple[Shot, ...] = SHOTS, ids: tuple[int, ...] = (3, 7, 11)) -> dict[str, Any]:
    """Image ids 100, 101, ...; annotation ids 1, 2, ...; category ids with gaps."""
    images, annotations = [], []
    for row, shot in enumerate(shots):
        images.append({"id": 100 + row, "file_name": shot.file, "width": shot.width, "height": shot.height})
        for each in shot.annotations:
            x1, y1, x2, y2 = each.box
            record = {"image_id": 100 + row, "category_id": ids[CLASSES.index(each.name)]}
            record |= {"id": len(annotations) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": int(each.ignore)}
            annotations.append(record)
    categories = [{"id": number, "name": name} for number, name in zip(ids, CLASSES, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def write_coco(root: Path, shots: tuple[Shot, ...] = SHOTS) -> Path:
    for shot in shots:
        save_image(root / "images" / shot.file, shot.width, shot.height)
    write_json(root / "annotations/instances.json", coco_json(shots))
    return root


def voc_xml(shot: Shot) -> str:
    objects = "".join(
        f"<object><name>{each.name}</name><difficult>{int(each.ignore)}</difficult><bndbox><xmin>{each.box[0]}</xmin>"
        f"<ymin>{each.box[1]}</ymin><xmax>{each.box[2]}</xmax><ymax>{each.box[3]}</ymax></bndbox></object>\n"
        for each in shot.annotations
    )
    size = f"<size><width>{shot.width}</width><height>{shot.height}</height><depth>3</depth></size>"
    return f"<annotation>\n<filename>{shot.file}</filename>{size}\n{objects}</annotation>\n"


def write_voc(root: Path, shots: tuple[Shot, ...] = SHOTS) -> Path:
    for shot in shots:
        save_image(root / "JPEGImages" / shot.file, shot.width, shot.height)
        write_text(root / "Annotations" / f"{Path(shot.file).stem}.xml", voc_xml(shot))
    return root


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def yolo_lines(shot: Shot) -> str:
    lines = []
    for each in shot.annotations:
        x1, y1, x2, y2 = each.box
        values = (
            (x1 + x2) / 2 / shot.width,
            (y1 + y2) / 2 / shot.height,
            (x2 - x1) / shot.width,
            (y2 - y1) / shot.height,
        )
        lines.append(f"{CLASSES.index(each.name)} {' '.join(f'{value:.9f}' for value in values)}\n")
    return "".join(lines)


def write_yolo(root: Path, shots: tuple[Shot, ...] = SHOTS, *, split: str = "train") -> Path:
    for shot in shots:
        save_image(root / "images" / split / shot.file, shot.width, shot.height)
        if shot.annotations:
            write_text(root / "labels" / split / f"{Path(shot.file).stem}.txt", yolo_lines(shot))
    write_text(root / "data.yaml", f"path: .\n{split}: images/{split}\nnames: [{', '.join(CLASSES)}]\n")
    return root
