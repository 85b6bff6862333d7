"""Keypoints and masks on their way through readers, augmentation, loading, writers and conversion."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from written_sets import coco_json, write_coco, write_json, write_text, write_yolo

from fpn.data import open_dataset
from fpn.data.convert import convert
from fpn.data.dataset import Dataset, Sample
from fpn.data.loading.augmentation.augment import Augment
from fpn.data.loading.augmentation.chances import random_for
from fpn.data.loading.loader import make_loader
from fpn.detectors import PAPER
from fpn.errors import ConfigError, DataError
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.shapes import Size
from fpn.structures import Masks, Skeleton, Targets
from fpn.structures.keypoints import COCO_PERSON

NAMES = ["nose", "left_eye", "right_eye"]
SKELETON = Skeleton(tuple(NAMES), flip_pairs=((1, 2),), edges=((0, 1), (0, 2)))
POLYGON = [[3, 4, 20, 4, 20, 30.5, 3, 30]]
RUNS = {"size": [37, 53], "counts": [37, 74, 1850]}


def pose_json() -> dict[str, Any]:
    """Nuts have a polygon and keypoints, bolts a run-length code, washers nothing."""
    data = coco_json()
    data["categories"][1] |= {"keypoints": NAMES, "skeleton": [[1, 2], [1, 3]], "supercategory": "part"}
    first, second, _ = data["annotations"]
    first |= {"segmentation": POLYGON, "keypoints": [10, 6.5, 2, 4, 5, 1, 0, 0, 0], "num_keypoints": 2}
    second |= {"segmentation": RUNS}
    return data


def write_pose(root: Path, data: dict[str, Any] | None = None) -> Path:
    write_coco(root)
    write_json(root / "annotations/instances.json", data or pose_json())
    return root


def written(root: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(next((root / "annotations").glob("*.json")).read_text())
    return loaded


# --- reading ---


def test_coco_keypoints_are_read_with_their_skeleton(tmp_path: Path) -> None:
    dataset = open_dataset(write_pose(tmp_path))
    assert dataset.skeleton == SKELETON
    assert dataset.targets(0).keypoints.tolist() == [[[10, 6.5, 2], [4, 5, 1], [0, 0, 0]], [[0, 0, 0]] * 3]
    assert dataset.targets(1).keypoints.shape == (0, 3, 3)
    assert dataset[0].skeleton == dataset.subset([0]).skeleton == SKELETON
    assert open_dataset(write_coco(tmp_path / "plain")).targets(0).keypoints is None


def test_the_truth_as_coco_has_keypoints_and_declares_them(tmp_path: Path) -> None:
    truth = open_dataset(write_pose(tmp_path)).coco()
    assert truth["annotations"][0]["keypoints"] == [10, 6.5, 2, 4, 5, 1, 0, 0, 0]
    assert truth["annotations"][0]["num_keypoints"] == 2
    assert truth["categories"][0]["keypoints"] == NAMES
    assert truth["categories"][0]["skeleton"] == [[1, 2], [1, 3]]


def test_a_folder_with_nothing_but_keypoints_is_opened_by_them(tmp_path: Path) -> None:
    write_pose(tmp_path)
    (tmp_path / "annotations/instances.json").rename(tmp_path / "annotations/person_keypoints_val.json")
    dataset = open_dataset(tmp_path)
    assert (dataset.name.split("/")[1], dataset.skeleton) == ("val", SKELETON)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data["annotations"][0].update(keypoints=[1, 2]), "keypoints has 2 numbers, 3 keypoints need 9"),
        (lambda data: data["annotations"][0].update(keypoints=[1, 2, 3] * 3), "a visibility that is not 0"),
        (lambda data: data["annotations"][0].update(keypoints=["1", 2, 2] * 3), "what is no number"),
        (lambda data: data["annotations"][0].update(keypoints=[1e300, 2, 2] * 3), "what is no number"),
        (lambda data: data["categories"][0].update(keypoints=["head"]), "declare different keypoints"),
        (lambda data: data["categories"][1].update(keypoints=[1, 2, 3]), "it must list names"),
        (lambda data: data["categories"][1].update(skeleton=[[1, 4]]), "a line to keypoint 4, and there are 1 to 3"),
        (lambda data: data["categories"][1].update(skeleton=[1]), "'skeleton' of category 7"),
    ],
)
def test_broken_keypoints_are_refused(tmp_path: Path, change: Any, says: str) -> None:
    data = pose_json()
    change(data)
    with pytest.raises(DataError, match=says):
        open_dataset(write_pose(tmp_path, data))


def yolo_pose(root: Path, line: str, *, declared: str = "kpt_shape: [3, 3]\nflip_idx: [0, 2, 1]\n") -> Path:
    write_yolo(root)
    file = root / "data.yaml"
    write_text(file, file.read_text() + declared)
    write_text(root / "labels/train/a.txt", line)
    return root


def test_yolo_keypoints_are_read_if_they_are_declared(tmp_path: Path) -> None:
    line = "1 0.5 0.5 0.25 0.5 0.5 0.5 2 0.25 0.75 1 0 0 0\n"
    dataset = open_dataset(yolo_pose(tmp_path / "three", line))
    assert dataset.targets(0).keypoints.tolist() == [[[26.5, 18.5, 2], [13.25, 27.75, 1], [0, 0, 0]]]
    assert dataset.skeleton == Skeleton(("0", "1", "2"), flip_pairs=((1, 2),))
    two = "1 0.5 0.5 0.25 0.5 0.5 0.5 0.25 0.75 0 0\n"
    dataset = open_dataset(yolo_pose(tmp_path / "two", two, declared="kpt_shape: [3, 2]\n"))
    assert dataset.targets(0).keypoints.tolist() == [[[26.5, 18.5, 2], [13.25, 27.75, 2], [0, 0, 0]]]


def test_a_yolo_keypoint_that_is_no_number_is_refused(tmp_path: Path) -> None:
    line = "1 0.5 0.5 0.25 0.5 nan 0.5 2 0.25 0.75 1 0 0 0\n"
    with pytest.raises(DataError, match=r"labels/train/a\.txt, line 1: keypoints holds what is no number"):
        open_dataset(yolo_pose(tmp_path, line))


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ("kpt_shape: [3, 4]\n", "2 or 3"),
        ("kpt_shape: many\n", "a list of whole numbers"),
        ("kpt_shape: [3, 3]\nflip_idx: [0, 1]\n", "flip_idx must name each"),
        ("kpt_shape: [3, 3]\nflip_idx: [1, 2, 0]\n", "pairs each other"),
        ("kpt_shape: [2, 3]\nkpt_names:\n  0: [a]\n", "must list 2 names"),
    ],
)
def test_a_broken_declaration_of_keypoints_is_refused(tmp_path: Path, declared: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_dataset(yolo_pose(tmp_path, "", declared=declared))


# --- augmentation and loading ---


def sample(*, skeleton: Skeleton | None = SKELETON) -> Sample:
    """A white box with its corners as keypoints, its mask as polygon."""
    pixels = np.zeros((60, 100, 3), dtype=np.uint8)
    pixels[20:40, 40:70] = 255
    boxes = torch.tensor([[40.0, 20.0, 70.0, 40.0]])
    points = torch.tensor([[[40.0, 20.0, 2.0], [70.0, 40.0, 1.0], [0.0, 0.0, 0.0]]])
    targets = Targets(boxes, torch.tensor([0]), masks=Masks.of_boxes(boxes, Size(60, 100)), keypoints=points)
    return Sample(Image.fromarray(pixels), targets, 1, "drawn", skeleton)


def test_a_flip_exchanges_left_and_right_keypoints() -> None:
    flipped = Augment(flip=1.0)(sample(), random_for(0, 0, 0)).targets
    assert flipped.keypoints.tolist() == [[[60, 20, 2], [0, 0, 0], [30, 40, 1]]]
    assert flipped.masks.boxes().tolist() == flipped.boxes.tolist() == [[30, 20, 60, 40]]


def test_a_flip_without_a_skeleton_is_refused() -> None:
    with pytest.raises(ConfigError, match="flipping keypoints needs a skeleton"):
        Augment(flip=1.0)(sample(skeleton=None), random_for(0, 0, 0))


def test_a_keypoint_that_is_cut_away_is_no_longer_labelled() -> None:
    seen = set()
    for index in range(40):
        changed = Augment(flip=0.0, scale=(2.0, 2.0))(sample(), random_for(0, 0, index))
        if len(changed.targets):
            seen.add(tuple(changed.targets.keypoints[0, :, 2].tolist()))
            assert (changed.targets.keypoints[..., :2] <= torch.tensor([50.0, 30.0])).all()
            assert (changed.targets.keypoints >= 0).all()
    assert {(2.0, 1.0, 0.0), (2.0, 0.0, 0.0), (0.0, 1.0, 0.0)} <= seen


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([(0.4, 0.9), (1.0, 1.0), (1.2, 2.5)]))
def test_boxes_masks_and_keypoints_stay_together(index: int, scale: tuple[float, float]) -> None:
    augment = Augment(flip=0.5, vertical_flip=0.5, scale=scale)
    changed = augment(sample(), random_for(0, 0, index))
    if len(changed.targets) == 0:
        return
    targets, size = changed.targets, Size(changed.image.height, changed.image.width)
    assert targets.masks.size == size
    assert (targets.masks.boxes() - targets.boxes).abs().max() <= 1e-4
    y, x = (np.asarray(changed.image)[:, :, 0] > 250).nonzero()
    assert targets.boxes[0].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
    labelled = targets.keypoints[0][targets.keypoints[0, :, 2] > 0, :2]
    x1, y1, x2, y2 = targets.boxes[0].tolist()
    assert all(x in (x1, x2) and y in (y1, y2) for x, y in labelled.tolist())


PREPROCESSOR = Preprocessor(PAPER.pixels.changed(mean=(0.0,) * 3, std=(1.0,) * 3, short_side=74, long_side=200))


@pytest.mark.parametrize("workers", [0, 1])
def test_loaded_batches_have_masks_and_keypoints_in_network_pixels(tmp_path: Path, workers: int) -> None:
    dataset = open_dataset(write_pose(tmp_path))
    loader = make_loader(
        dataset,
        prepare=PREPROCESSOR.prepare,
        collate=PREPROCESSOR.collate,
        masks=True,
        batch_size=3,
        shuffle=False,
        aspect_grouping=False,
        num_workers=workers,
    )
    with loader:
        [batch] = list(loader)
    first, none, _ = batch.targets
    assert first.keypoints[0].tolist() == [[20, 13, 2], [8, 10, 1], [0, 0, 0]]
    assert first.masks.size == (74, 106)
    assert first.masks[0].boxes().tolist() == [[6, 8, 40, 61]]
    assert first.masks.to_coco()[0] == [[6, 8, 40, 8, 40, 61, 6, 60]]
    assert (len(none.masks), none.keypoints.shape) == (0, (0, 3, 3))


def test_an_image_decoded_at_a_part_of_its_size_has_masks_and_keypoints_of_it(tmp_path: Path) -> None:
    data = pose_json()
    data["images"][0] |= {"file_name": "large.jpg", "width": 848, "height": 592}
    data["annotations"][0] |= {"bbox": [80, 64, 160, 320], "segmentation": [[80, 64, 240, 64, 240, 384, 80, 384]]}
    data["annotations"][0]["keypoints"] = [80, 64, 2, 240, 384, 2, 0, 0, 0]
    del data["annotations"][1]
    write_pose(tmp_path, data)
    Image.new("RGB", (848, 592)).save(tmp_path / "images/large.jpg")
    dataset: Dataset = open_dataset(tmp_path)
    reduced = dataset.sample(0, min_size=lambda size: Size(148, 212), masks=True)
    assert reduced.image.size == (212, 148)
    assert reduced.targets.boxes.tolist() == reduced.targets.masks.boxes().tolist() == [[20, 16, 60, 96]]
    assert reduced.targets.keypoints[0, :2].tolist() == [[20, 16, 2], [60, 96, 2]]


# --- writing ---


def test_coco_to_coco_keeps_polygons_codes_and_keypoints_as_they_are(tmp_path: Path) -> None:
    assert convert(write_pose(tmp_path / "from"), "coco", tmp_path / "to").losses == []
    before, after = pose_json(), written(tmp_path / "to")
    assert after["categories"] == before["categories"]
    for old, new in zip(before["annotations"], after["annotations"], strict=True):
        assert {key: new.get(key) for key in ("segmentation", "keypoints", "num_keypoints")} == {
            key: old.get(key) for key in ("segmentation", "keypoints", "num_keypoints")
        }
    assert after["annotations"][0]["keypoints"] == [10, 6.5, 2, 4, 5, 1, 0, 0, 0]


def test_coco_to_yolo_and_back_keeps_polygons_within_rounding(tmp_path: Path) -> None:
    data = pose_json()
    for category in data["categories"]:
        category.pop("keypoints", None)
    del data["annotations"][0]["keypoints"], data["annotations"][0]["num_keypoints"], data["annotations"][1]
    convert(write_pose(tmp_path / "from", data), "yolo", tmp_path / "yolo")
    convert(tmp_path / "yolo", "coco", tmp_path / "to")
    [back] = written(tmp_path / "to")["annotations"][0]["segmentation"]
    assert np.abs(np.array(back) - np.array(POLYGON[0])).max() < 1e-5


def test_coco_to_yolo_and_back_keeps_keypoints_and_lists_the_rest(tmp_path: Path) -> None:
    losses = convert(write_pose(tmp_path / "from"), "yolo", tmp_path / "yolo").losses
    assert "outlines, which YOLO can't hold beside keypoints: 2" in losses
    assert "YOLO has no lines between keypoints" in losses
    assert not any("field" in loss for loss in losses)
    arrived = open_dataset(tmp_path / "yolo")
    assert arrived.skeleton == replace(SKELETON, edges=())
    convert(tmp_path / "yolo", "coco", tmp_path / "to")
    assert written(tmp_path / "to")["categories"][0]["keypoints"] == NAMES
    points = open_dataset(tmp_path / "to").targets(0).keypoints
    assert (points - open_dataset(tmp_path / "from").targets(0).keypoints).abs().max() < 1e-4


def test_voc_loses_keypoints_and_says_so(tmp_path: Path) -> None:
    losses = convert(write_pose(tmp_path / "from"), "voc", tmp_path / "to").losses
    assert "keypoints of objects, which VOC's XML can't hold" in losses
    assert "outlines, which VOC's XML can't hold: 2" in losses


def test_cocos_own_skeleton_has_pairs_and_sigmas(tmp_path: Path) -> None:
    data = pose_json()
    data["categories"][1] |= {"keypoints": list(COCO_PERSON.names), "skeleton": [[1, 2]]}
    data["annotations"][0]["keypoints"] = [1, 2, 2] * 17
    skeleton = open_dataset(write_pose(tmp_path, data)).skeleton
    assert skeleton == replace(COCO_PERSON, edges=((0, 1),))
