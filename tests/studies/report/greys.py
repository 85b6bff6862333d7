"""Grey images whose shade says what a detector finds in them, and labels that need not agree with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from evaluation.seer import Seer
from PIL import Image
from written_sets import write_json

from fpn.data import open_dataset
from fpn.data.dataset import Dataset
from fpn.structures import Detections

SIDE = 60
Thing = tuple[str, tuple[float, float, float, float]]
Find = tuple[str, tuple[float, float, float, float], float]


def labelled(root: Path, scenes: Sequence[Sequence[Thing]], classes: Sequence[str], names: str = "{}.png") -> Dataset:
    """One image of 60 x 60 pixels for each list of objects; image ids 1, 2, ..., category ids 10, 20, ..."""
    images, annotations = [], []
    (root / "images").mkdir(parents=True)
    for number, things in enumerate(scenes, start=1):
        name = names.format(number)
        Image.new("RGB", (SIDE, SIDE), (number, number, number)).save(root / "images" / name, "PNG")
        images.append({"id": number, "file_name": name, "height": SIDE, "width": SIDE})
        for label, (x1, y1, x2, y2) in things:
            record = {"id": len(annotations) + 1, "image_id": number, "category_id": 10 * (classes.index(label) + 1)}
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            annotations.append({**record, **box})
    categories = [{"id": 10 * place, "name": name} for place, name in enumerate(classes, start=1)]
    write_json(root / "instances.json", {"images": images, "annotations": annotations, "categories": categories})
    return open_dataset(root)


def finder(classes: Sequence[str], finds: Mapping[int, Sequence[Find]]) -> Seer:
    """Finds these in the image of that number, nothing in others."""
    empty = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    known = {number: _detections(classes, found) if found else empty for number, found in finds.items()}
    return Seer(classes, known)


def _detections(classes: Sequence[str], found: Sequence[Find]) -> Detections:
    ordered = sorted(found, key=lambda find: -find[2])
    return Detections(
        torch.tensor([box for _, box, _ in ordered]),
        torch.tensor([score for *_, score in ordered]),
        torch.tensor([classes.index(name) for name, *_ in ordered], dtype=torch.int64),
    )
