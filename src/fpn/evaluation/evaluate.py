"""`evaluate`: a detector on a dataset, measured as COCO measures."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, cast

import numpy as np
import torch

from fpn.data.dataset import Dataset
from fpn.detectors.full_images import FullImages
from fpn.detectors.prediction import Predictor, Proposer, TaskName, detecting, enter, leave
from fpn.detectors.tiling import Tiling
from fpn.errors import ConfigError, DataError
from fpn.evaluation.batches import read_batches
from fpn.evaluation.coco import CocoMetrics
from fpn.evaluation.found import Found
from fpn.evaluation.known_truth import (
    ClassWarning,
    KnownTruth,
    count_unoutlined,
    describe_unknown,
    known_truth,
    refuse_other_keypoints,
    told_apart,
)
from fpn.evaluation.limits import report_limit
from fpn.evaluation.report import Evaluation
from fpn.evaluation.tasks import TASKS, Figures, Task, find_tasks
from fpn.evaluation.tiled import find_in_tiles
from fpn.evaluation.unfinished import Unfinished
from fpn.preprocessing.preprocessor import Prepared
from fpn.runtime.waiting import considerate
from fpn.structures import Detections, Proposals


def evaluate(
    detector: Predictor,
    dataset: Dataset,
    *,
    tasks: Iterable[TaskName] | None = None,
    batch_size: int = 8,
    workers: int | None = None,
    precision: Literal["float32", "bf16"] = "float32",
    skip_unreadable: bool = False,
    progress: Callable[[int], None] | None = None,
    unfinished: Unfinished | None = None,
    tiling: Tiling | None = None,
) -> Evaluation:
    """Detect in every image of a dataset and measure the result against its truth.

    Classes are matched by name. What the detector finds of classes that the dataset does not label is left out, and so
    are objects of classes that the detector does not know: a `ClassWarning` and `Evaluation.left_out` name these. The
    detector keeps its mode, weights and device.

    Args:
        detector: what to measure, where it is.
        dataset: labelled images.
        tasks: what to measure: "boxes" (always), "masks", "keypoints", "proposals" (a second pass through the network).
            None: what the detector finds and the dataset labels, but proposals.
        batch_size: images that go through the network together.
        workers: processes that read ahead; 0: this one reads; None: half of the cores.
        precision: of the network's arithmetic; boxes are always float32.
        skip_unreadable: leave out images that can't be read, and name them in the result. False: stop there.
        progress: called with the number of images done after each batch.
        unfinished: keeps what is found, and has what an earlier call found that was stopped. None: nothing is kept.
        tiling: look at images tile by tile, and measure on whole ones; they are then read by this process. None: each
            image goes through the network as a whole.

    Raises:
        DataError: no images, or an annotation that does not fit its image.
        ConfigError: the detector knows none of the dataset's classes; the detector does not give, or the dataset does
            not label, what a task measures; proposals are to be measured of tiles.
        ImageError, DataNotFoundError: an image can't be read.
    """
    began = time.monotonic()
    _refuse_empty(dataset)
    dataset = seen_by(detector, dataset)
    known = known_truth(detector.classes, dataset)
    wanted = _choose_tasks(detector, dataset.name, known.coco, tasks)
    if TASKS["keypoints"] in wanted:
        refuse_other_keypoints(detector.skeleton, dataset)
    if any(task.iou_type == "segm" for task in wanted):
        count_unoutlined(dataset)
    if any(known.left_out.values()):
        warnings.warn(ClassWarning(describe_unknown(known.left_out, detector.classes, dataset.name)), stacklevel=2)
    if tiling is not None and TASKS["proposals"] in wanted:
        raise ConfigError("proposals are measured of whole images, not of tiles: leave one of the two out")
    cast_to = torch.autocast(detector.device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
    looking: dict[str, Any] = {"batch_size": batch_size, "skip_unreadable": skip_unreadable}
    looking |= {"progress": progress, "unfinished": unfinished}
    full = None if tiling is None else FullImages(detector.max_detections, always=detector.class_free, what="tiles")
    with cast_to:
        if tiling is None:
            proposals = TASKS["proposals"] in wanted
            found = find_objects(detector, dataset, proposals=proposals, workers=workers, **looking)
        else:
            found = find_in_tiles(detector, dataset, tiling, full=full, **looking)
    return _measure(detector, dataset, known, found, wanted, began=began, tiles=full)


def seen_by(detector: Predictor, dataset: Dataset) -> Dataset:
    """The dataset as `told_apart` gives it, read with the pixel range that the detector learned with."""
    dataset = told_apart(detector, dataset)
    learned, given = detector.preprocessor.config.pixel_range, dataset.pixel_range
    if learned is None or learned == given:
        return dataset
    if given is not None:
        raise ConfigError(
            f"{dataset.name}: is opened with the pixel range {given[0]:g} to {given[1]:g}, but the detector learned "
            f"with {learned[0]:g} to {learned[1]:g}. Open it without one."
        )
    return dataset.with_range(learned)


@considerate()
def find_objects(
    detector: Predictor,
    dataset: Dataset,
    *,
    batch_size: int,
    workers: int | None = None,
    proposals: bool = False,
    skip_unreadable: bool = False,
    progress: Callable[[int], None] | None = None,
    part: tuple[int, int] = (0, 1),
    unfinished: Unfinished | None = None,
) -> Found:
    """Detect in every image of a dataset, or in one part of them.

    Args:
        detector: what to measure, where it is; keeps its mode.
        dataset: labelled images.
        batch_size: images that go through the network together.
        workers: processes that read ahead; see `evaluate`.
        proposals: also keep the class-free proposals.
        skip_unreadable: note in `unreadable` which images can't be read, and go on.
        progress: called with the number of images done after each batch.
        part: (number, count): one of `count` processes that share the images out. Each takes whole batches of one
            plan, so that an image is padded as it would be without the others.
        unfinished: see `evaluate`.

    Raises:
        ImageError, DataNotFoundError: an image can't be read.
    """
    found = Found()
    if unfinished is not None:
        found.take(unfinished.known, proposals=proposals)
    batches = read_batches(
        dataset,
        detector.preprocessor,
        batch_size=batch_size,
        workers=workers,
        part=part,
        unreadable=found.unreadable if skip_unreadable else None,
        known=found.detections,
    )
    for numbers, prepared in batches:
        images = enter(detector, prepared)
        with detecting(detector):
            detections = detector.detect(images)
            proposed = cast(Proposer, detector).proposals(images) if proposals else []
        found.detections.update(zip(numbers, leave(detector, detections, prepared), strict=True))
        if proposals:
            found.proposals.update(zip(numbers, _leave_proposals(detector, proposed, prepared), strict=True))
        if unfinished is not None:
            unfinished.keep(numbers, found.finding)
        if progress is not None:
            progress(len(found.detections) + len(found.unreadable))
    return found


def measure(
    detector: Predictor,
    dataset: Dataset,
    parts: Sequence[Found],
    *,
    began: float,
    tasks: Iterable[TaskName] | None = None,
) -> Evaluation:
    """Compare what was found in all parts of a dataset with its truth.

    Args:
        detector: whose classes the detections have.
        dataset: labelled images.
        parts: each image is in exactly one of them.
        began: when detecting began, by `time.monotonic`.
        tasks: as in `evaluate`, but that proposals are measured if they were kept.

    Raises:
        DataError: no images, or an annotation that does not fit its image.
        ConfigError: as `evaluate`.
    """
    known = _known(detector, dataset)
    numbers = sorted(number for part in parts for number in (*part.detections, *part.unreadable))
    assert numbers == list(range(len(dataset))), f"{len(numbers)} results for {len(dataset)} images"
    found = Found()
    for part in parts:
        found.detections.update(part.detections)
        found.proposals.update(part.proposals)
        found.unreadable.update(part.unreadable)
    wanted = _choose_tasks(detector, dataset.name, known.coco, tasks)
    if tasks is None and found.proposals:
        wanted = (*wanted, TASKS["proposals"])
    return _measure(detector, dataset, known, found, wanted, began=began)


def choose_tasks(detector: Predictor, dataset: Dataset) -> tuple[TaskName, ...]:
    """What `evaluate` measures unless told otherwise."""
    chosen = _choose_tasks(detector, dataset.name, known_truth(detector.classes, dataset).coco, None)
    return tuple(task.name for task in chosen)


def _choose_tasks(
    detector: Predictor, dataset: str, truth: Mapping[str, Any], names: Iterable[TaskName] | None
) -> tuple[Task, ...]:
    """The tasks of those names, boxes among them; None: all that can be measured but proposals."""
    given = find_tasks(detector.tasks)
    if names is None:
        return tuple(task for task in given if task.output == "detect" and _labelled(task, truth))
    wanted = find_tasks({"boxes", *([names] if isinstance(names, str) else names)})
    for task in wanted:
        if task not in given:
            raise ConfigError(f"task {task.name!r}: this detector gives {', '.join(detector.tasks)} only")
        if not _labelled(task, truth):
            raise ConfigError(
                f"task {task.name!r}: {dataset} has no annotation with {task.labels!r}, so none to compare"
            )
    return wanted


def _labelled(task: Task, truth: Mapping[str, Any]) -> bool:
    """Whether the truth has what a task compares; boxes may be absent, as an image may hold no object."""
    return task.labels == "bbox" or any(task.labels in each for each in truth["annotations"])


def _known(detector: Predictor, dataset: Dataset) -> KnownTruth:
    _refuse_empty(dataset)
    return known_truth(detector.classes, dataset)


def _refuse_empty(dataset: Dataset) -> None:
    if len(dataset) == 0:
        raise DataError(f"{dataset.name}: has no images to measure on")


def _leave_proposals(
    detector: Predictor, proposed: Sequence[Proposals], prepared: Sequence[Prepared]
) -> list[Proposals]:
    # The preprocessor restores detections; a proposal is one without a class.
    as_found = [
        Detections(each.boxes, each.scores, torch.zeros_like(each.scores, dtype=torch.int64)) for each in proposed
    ]
    return [Proposals(each.boxes, each.scores) for each in leave(detector, as_found, prepared)]


def _measure(
    detector: Predictor,
    dataset: Dataset,
    known: KnownTruth,
    found: Found,
    tasks: Sequence[Task],
    *,
    began: float,
    tiles: FullImages | None = None,
) -> Evaluation:
    unreadable = {dataset.path(number): why for number, why in found.unreadable.items()}
    if unreadable:
        dataset, found = found.without_unreadable(dataset)
        known = known_truth(detector.classes, dataset)
    truth = known.coco
    records = _records(detector, dataset, known, found.detections)
    proposed = {dataset.image_id(number): _rows(each) for number, each in found.proposals.items()}
    sigmas = () if dataset.skeleton is None else dataset.skeleton.sigmas
    figures: dict[str, Figures] = {
        task.name: task.with_sigmas(sigmas).count(truth, records if task.output == "detect" else proposed)
        for task in tasks
    }
    boxes = figures.pop("boxes")
    ignored = sum(record["iscrowd"] for record in truth["annotations"])
    full = tiles or FullImages(detector.max_detections, always=detector.class_free)
    for number in sorted(found.detections) if tiles is None else ():
        full.look(found.detections[number], dataset.path(number))
    most = max((len(each) for each in found.detections.values()), default=0) if tiles is not None else None
    return Evaluation(
        **{field.name: getattr(boxes, field.name) for field in fields(CocoMetrics)},
        dataset=dataset.name,
        images=len(dataset),
        objects=len(truth["annotations"]) - ignored,
        ignored=ignored,
        left_out=known.left_out,
        limit=report_limit(full, truth, records, of_image=most),
        seconds=time.monotonic() - began,
        detections=records,
        unreadable=unreadable,
        file_names={each["id"]: each["file_name"] for each in truth["images"]},
        **figures,  # type: ignore[arg-type]  # each task's are named like it
    )


def _records(
    detector: Predictor, dataset: Dataset, known: KnownTruth, found: dict[int, Detections]
) -> list[dict[str, Any]]:
    """COCO records in the dataset's order, with its ids instead of the detector's."""
    ids = {detector.classes.ids[label]: category_id for label, category_id in known.category_ids.items()}
    records = [
        record
        for number in sorted(found)
        for record in found[number].to_coco(image_id=dataset.image_id(number), classes=detector.classes)
        if record["category_id"] in ids
    ]
    for record in records:
        record["category_id"] = ids[record["category_id"]]
    return records


def _rows(proposed: Proposals) -> np.ndarray:
    """(n, 5): x, y, w, h and score."""
    boxes = proposed.boxes.double()
    return torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2], proposed.scores.double()[:, None]), dim=1).numpy()
