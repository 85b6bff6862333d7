"""What a detector learns from beside boxes: masks and keypoints, which have to be in the data before it begins."""

from __future__ import annotations

from typing import Any

from fpn.data.dataset import Dataset
from fpn.detectors import Detector
from fpn.detectors.recipe import RECIPES, KeypointRCNNRecipe
from fpn.errors import TrainingError
from fpn.evaluation.known_truth import count_unoutlined, refuse_other_keypoints
from fpn.structures import Skeleton


def told_by_data(kind: str, dataset: Dataset) -> dict[str, Any]:
    """What the preset of a kind of detector takes from the data: classes, if it tells them apart, and a skeleton where
    it gives keypoints.

    Raises:
        TrainingError: it gives keypoints, and the data have none.
    """
    told: dict[str, Any] = {} if RECIPES[kind].class_free else {"classes": dataset.classes}
    if not issubclass(RECIPES[kind], KeypointRCNNRecipe):
        return told
    if dataset.skeleton is None:
        raise _no_keypoints(kind, dataset)
    return {**told, "skeleton": dataset.skeleton}


def refuse_missing_labels(detector: Detector, dataset: Dataset) -> None:
    """Read all outlines and look at all keypoints, if the detector learns from them.

    Raises:
        TrainingError: there are none.
        DataError: an outline is broken, of another size than its image, or without a pixel in it.
        ConfigError: the data's keypoints are not the detector's.
    """
    if "masks" in detector.tasks:
        _refuse_boxes_alone(detector, dataset)
    if (skeleton := detector.skeleton) is not None:
        _refuse_unlabelled(detector.recipe.kind, skeleton, dataset)


def tell_unoutlined(detector: Detector, dataset: Dataset) -> list[str]:
    """A warning if some objects have no outline of their own: nothing is taken for a mask in silence."""
    if "masks" not in detector.tasks or not (count := count_unoutlined(dataset)):
        return []
    are = "object has no outline: its box is learned as if it were its mask"
    if count > 1:
        are = "objects have no outline: their boxes are learned as if they were their masks"
    return [f"warning: {dataset.name}: {count} {are}. Outline or remove such objects."]


def _refuse_unlabelled(kind: str, skeleton: Skeleton, dataset: Dataset) -> None:
    """Stop where a dataset's keypoints are none, or others than a detector's.

    Raises:
        TrainingError, ConfigError: they are.
    """
    if dataset.skeleton is None or not any(_labelled(dataset, index) for index in range(len(dataset))):
        raise _no_keypoints(kind, dataset)
    refuse_other_keypoints(skeleton, dataset)


def _no_keypoints(kind: str, dataset: Dataset) -> TrainingError:
    return TrainingError(
        f"{dataset.name}: has no labelled keypoint, and a {kind} learns from keypoints. Label some, or train a "
        "faster_rcnn."
    )


def _refuse_boxes_alone(detector: Detector, dataset: Dataset) -> None:
    count = count_unoutlined(dataset)
    if count is None:
        raise TrainingError(
            f"{dataset.name}: has boxes but no outlines, and a {detector.recipe.kind} learns from masks. Label "
            "outlines (polygons or run lengths), or train a faster_rcnn."
        )
    total = sum(int((~dataset.targets(index).ignore).sum()) for index in range(len(dataset))) if count else 0
    if count and count == total:
        raise TrainingError(f"{dataset.name}: none of its {total} objects has an outline. Label outlines.")


def _labelled(dataset: Dataset, index: int) -> bool:
    targets = dataset.targets(index)
    return targets.keypoints is not None and bool((targets.keypoints[~targets.ignore][..., 2] > 0).any())
