"""What `fpn check` promises: it fails wherever training or validation would stop, or could learn or measure nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from planted_faults import Planted

from fpn.data import open_dataset
from fpn.data.checks.inspection import check
from fpn.detectors import PAPER, Detector, Preprocessor
from fpn.detectors.dialect import Dialect
from fpn.detectors.recipe import Recipe
from fpn.errors import DataError, FpnError
from fpn.evaluation.evaluate import evaluate, measure
from fpn.evaluation.found import Found
from fpn.heads.sampling import Randomness
from fpn.structures import Classes, Detections, ImageBatch, LossTerms, Targets
from fpn.training.setup import refuse_bad_data
from fpn.training.validation import find_metric


class Blind(Detector):
    """Finds nothing: whatever stops a run with it is the data's fault."""

    def __init__(self, classes: Classes) -> None:
        dialect = Dialect(name="blind", source="made up", pixels=PAPER.pixels.changed(mean=(0.5,) * 3, std=(0.25,) * 3))
        recipe = Recipe(kind="blind", classes=classes.names, category_ids=classes.ids, dialect=dialect)
        super().__init__(classes=classes, preprocessor=Preprocessor(dialect.pixels), recipe=recipe)
        self.weight = torch.nn.Parameter(torch.zeros(1))  # says where it is

    def losses(self, images: ImageBatch, targets: Sequence[Targets], *, generator: Randomness = None) -> LossTerms:
        return LossTerms({}, {})

    def detect(self, images: ImageBatch) -> list[Detections]:
        return [NOTHING for _ in images.sizes]


NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))


def train_blindly(root: Path) -> None:
    """All that a training does with its data: open, refuse, read each image, measure."""
    training, validation = (open_dataset(root, split=split) for split in ("train", "val"))
    detector = Blind(training.classes)
    refuse_bad_data(detector, training, validation, find_metric("ap"))
    for dataset in (training, validation):
        for number in range(len(dataset)):
            dataset.sample(number)
    found = Found(dict.fromkeys(range(len(validation)), NOTHING))
    evaluation = measure(detector, validation, [found], began=time.monotonic())
    assert evaluation.metrics["ap"] == 0.0, "nothing was found of something"


def _crowds(planted: Planted, split: str) -> None:
    for note in planted.jsons[split]["annotations"]:
        note["iscrowd"] = 1


def _without(planted: Planted, split: str) -> None:
    planted.jsons[split]["annotations"] = []


def _negative_image(planted: Planted) -> None:
    val = planted.jsons["val"]
    for entry in val["images"]:
        entry["id"] -= 1000
    for note in val["annotations"]:
        note["image_id"] -= 1000


def _negative_category(planted: Planted) -> None:
    for data in planted.jsons.values():
        for entry in data["categories"]:
            entry["id"] -= 10
        for note in data["annotations"]:
            note["category_id"] -= 10


def _huge_image_id(planted: Planted) -> None:
    planted.jsons["val"]["images"][0]["id"] = 2**70


def _unknown_class(planted: Planted) -> None:
    planted.jsons["val"]["categories"].append({"id": 9, "name": "rivet"})
    planted.jsons["val"]["annotations"][0]["category_id"] = 9


def _no_categories(planted: Planted) -> None:
    for data in planted.jsons.values():
        data["categories"] = []


def _no_images(planted: Planted, split: str) -> None:
    planted.jsons[split] |= {"images": [], "annotations": []}


def _save(image: Image.Image, planted: Planted, number: int) -> None:
    image.save(planted.image(number), format="TIFF")


def _not_finite(planted: Planted) -> None:
    _save(Image.fromarray(np.full((48, 64), np.nan, dtype=np.float32)), planted, 3)


def _box(planted: Planted, split: str, box: list[float]) -> None:
    planted.jsons[split]["annotations"][1]["bbox"] = box


# What the data have, and whether training then stops.
STOPPING: dict[str, Callable[[Planted], object]] = {
    "no objects to learn": lambda planted: _without(planted, "train"),
    "no objects to measure": lambda planted: _without(planted, "val"),
    "only crowds to learn": lambda planted: _crowds(planted, "train"),
    "only crowds to measure": lambda planted: _crowds(planted, "val"),
    "no images to learn": lambda planted: _no_images(planted, "train"),
    "no images to measure": lambda planted: _no_images(planted, "val"),
    "no classes": _no_categories,
    "a class that training does not know": _unknown_class,
    "an image id below 0": _negative_image,
    "category ids below 0": _negative_category,
    "an image id beyond 64 bits": _huge_image_id,
    "no image file": lambda planted: planted.image(3).unlink(),
    "no image in the file": lambda planted: planted.image(33).write_bytes(b"no image"),
    "an empty file": lambda planted: planted.image(3).write_bytes(b""),
    "another size": lambda planted: Image.new("RGB", (10, 10)).save(planted.image(33)),
    "values that are not finite": _not_finite,
    "a box without width": lambda planted: _box(planted, "train", [3, 4, 0, 5]),
    "a box that is not finite": lambda planted: _box(planted, "val", [3, 4, float("nan"), 5]),
    "a box outside": lambda planted: _box(planted, "val", [300, 4, 5, 5]),
    "an object of no image": lambda planted: planted.train["annotations"][0].update(image_id=999),
    "an object of no class": lambda planted: planted.train["annotations"][0].update(category_id=999),
    "an image listed twice": lambda planted: planted.train["images"].append(dict(planted.train["images"][0])),
}


class BlindToMasks(Blind):
    """The same, of a kind that learns from outlines and is measured by them."""

    tasks = ("boxes", "masks")


def _outline(planted: Planted, split: str, outline: object) -> None:
    """Every object's is its box but that of one."""
    for data in planted.jsons.values():
        for note in data["annotations"]:
            x, y, width, height = note["bbox"]
            note["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    planted.jsons[split]["annotations"][1]["segmentation"] = outline


BROKEN_OUTLINES: dict[str, object] = {
    "two points": [[30, 10, 46, 26]],
    "beside its image": [[70, 10, 90, 10, 90, 26]],
    "a code of another size": {"size": [64, 48], "counts": [3072]},
    "a code that ends early": {"size": [48, 64], "counts": [480, 16]},
    "a code without a pixel": {"size": [48, 64], "counts": [3072]},
}


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("fault", BROKEN_OUTLINES)
def test_an_outline_that_can_be_no_mask_stops_check_training_and_measuring_alike(
    tmp_path: Path, fault: str, split: str
) -> None:
    planted = Planted(tmp_path)
    _outline(planted, split, BROKEN_OUTLINES[fault])
    report = check(planted.save())
    assert [len(report.of("outline-broken")), report.passed] == [1, False]
    training, validation = (open_dataset(tmp_path, split=each) for each in ("train", "val"))
    detector = BlindToMasks(training.classes)
    number = 0 if split == "train" else 32
    with pytest.raises(DataError, match=rf"p{number:02}\.png: object 2\b.*--fix writes a copy without such outlines"):
        refuse_bad_data(detector, training, validation, find_metric("mask_ap"))
    with pytest.raises(DataError, match=rf"p{number:02}\.png: object 2\b"):
        evaluate(detector, training if split == "train" else validation, workers=0)


@pytest.mark.parametrize("fault", STOPPING)
def test_where_training_stops_check_fails(tmp_path: Path, fault: str) -> None:
    planted = Planted(tmp_path)
    STOPPING[fault](planted)
    root = planted.save()
    try:
        train_blindly(root)
    except FpnError:
        stopped = True
    else:
        stopped = False
    assert (stopped, check(root).passed) == (True, False)


def test_sound_data_train_and_pass(tmp_path: Path) -> None:
    root = Planted(tmp_path).save()
    train_blindly(root)
    assert check(root).passed
