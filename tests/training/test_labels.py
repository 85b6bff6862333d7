"""Masks and keypoints have to be in the data before anything is trained on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fpn
from fpn.data import open_dataset
from fpn.data.dataset import Dataset
from fpn.detectors import Detector
from fpn.errors import ConfigError, DataError, TrainingError
from fpn.training.labels import refuse_missing_labels, tell_unoutlined, told_by_data

SMALL = {"backbone": "tf_efficientnet_lite0", "weights": None, "short_side": 64, "channels": 8, "head_width": 8}
SQUARE = [[4.0, 4.0, 20.0, 4.0, 20.0, 20.0, 4.0, 20.0]]


def dataset(folder: Path, *objects: dict[str, Any], points: tuple[str, ...] = ()) -> Dataset:
    """One image of 32 x 32 with these objects, each in the box 4..20."""
    Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8)).save(folder / "one.png")
    category = {"id": 1, "name": "thing", **({"keypoints": list(points)} if points else {})}
    common = {"image_id": 1, "category_id": 1, "bbox": [4, 4, 16, 16], "area": 256, "iscrowd": 0}
    truth = {
        "images": [{"id": 1, "file_name": "one.png", "width": 32, "height": 32}],
        "categories": [category],
        "annotations": [{"id": number, **common, **each} for number, each in enumerate(objects, start=1)],
    }
    (folder / "truth.json").write_text(json.dumps(truth))
    return open_dataset(folder / "truth.json", images=folder)


def mask_rcnn() -> Detector:
    return fpn.mask_rcnn(classes=["thing"], mask_channels=8, **SMALL)


def keypoint_rcnn(*names: str) -> Detector:
    return fpn.keypoint_rcnn(classes=["thing"], skeleton=names, keypoint_channels=8, keypoint_convolutions=1, **SMALL)


@pytest.fixture(scope="module")
def masking() -> Detector:
    return mask_rcnn()


@pytest.mark.parametrize(
    ("outline", "told"),
    [
        (SQUARE, None),
        ({"size": [32, 32], "counts": [5, 100, 919]}, None),
        ([[4.0, 4.0, 20.0, 20.0]], "object 1 has an outline without a pixel in its image"),
        ([[4.0, 4.0, 12.0, 12.0, 20.0, 20.0]], None),  # no area, but COCO's rule gives a line its pixels
        ([[50.0, 50.0, 60.0, 50.0, 60.0, 60.0]], "object 1 has an outline without a pixel in its image"),
        ({"size": [64, 64], "counts": [5, 100, 3991]}, r"height, width \[64, 64\], the image has \[32, 32\]"),
    ],
    ids=["polygon", "runs", "two points", "a line", "outside", "another size"],
)
def test_an_outline_that_can_not_be_learned_from_is_named_before_training(tmp_path, masking, outline, told) -> None:
    data = dataset(tmp_path, {"segmentation": outline})
    if told is None:
        refuse_missing_labels(masking, data)
        return
    with pytest.raises(DataError, match=rf"(?s)one\.png.*{told}.*fpn check.*--fix"):
        fpn.train(masking, data, fpn.TrainConfig(steps=1, workers=0))


def test_boxes_alone_teach_no_masks(tmp_path, masking) -> None:
    with pytest.raises(TrainingError, match="has boxes but no outlines, and a mask_rcnn learns from masks"):
        fpn.train(masking, dataset(tmp_path, {}), fpn.TrainConfig(steps=1, workers=0))


def test_segments_are_not_learned_from_boxes_either_but_from_outlines_of_any_class(tmp_path) -> None:
    settings = {name: value for name, value in SMALL.items() if name != "head_width"}
    detector = fpn.segment_proposals(**settings, segments_width=8)
    (tmp_path / "boxes").mkdir()
    (tmp_path / "outlines").mkdir()
    with pytest.raises(TrainingError, match="has boxes but no outlines, and a segment_proposals learns from masks"):
        fpn.train(detector, dataset(tmp_path / "boxes", {}), fpn.TrainConfig(steps=1, workers=0))
    data = dataset(tmp_path / "outlines", {"segmentation": SQUARE})
    assert told_by_data("segment_proposals", data) == {}
    fpn.train(detector, data, fpn.TrainConfig(steps=1, workers=0, batch_size=1, device="cpu"), progress=False)
    assert list(detector.classes) == ["object"]


def test_outlines_that_are_all_empty_teach_no_masks(tmp_path, masking) -> None:
    data = dataset(tmp_path, {"segmentation": []}, {"segmentation": SQUARE, "iscrowd": 1})
    with pytest.raises(TrainingError, match="none of its 1 objects has an outline"):
        refuse_missing_labels(masking, data)


def test_a_box_that_stands_in_for_a_mask_is_told(tmp_path, masking) -> None:
    data = dataset(tmp_path, {"segmentation": SQUARE}, {}, {})
    refuse_missing_labels(masking, data)
    (said,) = tell_unoutlined(masking, data)
    assert "2 objects have no outline: their boxes are learned as if they were their masks" in said
    assert tell_unoutlined(masking, data.subset([])) == []


def test_what_is_ignored_teaches_no_mask_and_may_have_any_outline(tmp_path, masking) -> None:
    data = dataset(tmp_path, {"segmentation": SQUARE}, {"segmentation": [[4.0, 4.0, 9.0, 9.0]], "iscrowd": 1})
    refuse_missing_labels(masking, data)
    assert tell_unoutlined(masking, data) == []


def test_without_a_labelled_keypoint_there_is_nothing_to_learn(tmp_path) -> None:
    told = "has no labelled keypoint, and a keypoint_rcnn learns from keypoints"
    with pytest.raises(TrainingError, match=told):
        told_by_data("keypoint_rcnn", dataset(tmp_path, {}))
    with pytest.raises(TrainingError, match=told):
        refuse_missing_labels(keypoint_rcnn("a", "b"), dataset(tmp_path, {"keypoints": [0] * 6}, points=("a", "b")))


def test_keypoints_of_another_count_or_order_than_the_detectors_are_refused(tmp_path) -> None:
    data = dataset(tmp_path, {"keypoints": [5, 5, 2, 9, 9, 2]}, points=("a", "b"))
    refuse_missing_labels(keypoint_rcnn("a", "b"), data)
    refuse_missing_labels(keypoint_rcnn("first", "second"), data)
    for names in (("a", "b", "c"), ("b", "a")):
        with pytest.raises(ConfigError, match=rf"its objects have 2 keypoints \(a, b\), the detector has {len(names)}"):
            refuse_missing_labels(keypoint_rcnn(*names), data)


def test_the_data_tell_a_preset_its_classes_and_skeleton(tmp_path) -> None:
    data = dataset(tmp_path, {"keypoints": [5, 5, 2, 9, 9, 2]}, points=("left_end", "right_end"))
    assert told_by_data("mask_rcnn", data) == {"classes": data.classes}
    told = told_by_data("keypoint_rcnn", data)
    assert told == {"classes": data.classes, "skeleton": data.skeleton}
    assert fpn.keypoint_rcnn(**told, **SMALL).skeleton.flip_pairs == ((0, 1),)
