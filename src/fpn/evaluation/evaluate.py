"""`evaluate`: a detector on a dataset, measured as COCO measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import torch

from fpn.data.dataset import Dataset
from fpn.detectors.detector import Detector
from fpn.detectors.modes import evaluating
from fpn.errors import ConfigError, DataError
from fpn.evaluation.batches import Batch, read_batches
from fpn.evaluation.coco import CocoMetrics, ProposalRecall, coco_metrics, proposal_recall
from fpn.evaluation.report import Evaluation
from fpn.structures import Classes, Detections, Proposals
from fpn.suggestions import nearest


@dataclass(frozen=True)
class Found:
    """What a detector found in some of a dataset's images, by their numbers, in original pixels."""

    detections: dict[int, Detections] = field(default_factory=dict)
    proposals: dict[int, Proposals] = field(default_factory=dict)


def evaluate(
    detector: Detector,
    dataset: Dataset,
    *,
    batch_size: int = 8,
    workers: int | None = None,
    proposals: bool = False,
    precision: Literal["float32", "bf16"] = "float32",
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Detect in every image of a dataset and measure the result against its truth.

    Classes are matched by name. What the detector finds of classes that the dataset does not label is left out. The
    detector keeps its mode, weights and device.

    Args:
        detector: what to measure, where it is.
        dataset: labelled images.
        batch_size: images that go through the network together.
        workers: processes that read ahead; 0: this one reads; None: half of the cores.
        proposals: also measure the class-free proposals (a second pass through the network).
        precision: of the network's arithmetic; boxes are always float32.
        progress: called with the number of images done after each batch.

    Raises:
        DataError: no images, or an annotation that does not fit its image.
        ConfigError: the dataset has a class that the detector was not trained on.
        ImageError, DataNotFoundError: an image can't be read.
    """
    began = time.monotonic()
    _refuse_unmeasurable(detector, dataset)
    cast = torch.autocast(detector.device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
    with cast:
        found = find_objects(
            detector, dataset, batch_size=batch_size, workers=workers, proposals=proposals, progress=progress
        )
    return measure(detector, dataset, [found], began=began)


def find_objects(
    detector: Detector,
    dataset: Dataset,
    *,
    batch_size: int,
    workers: int | None = None,
    proposals: bool = False,
    progress: Callable[[int], None] | None = None,
    part: tuple[int, int] = (0, 1),
) -> Found:
    """Detect in every image of a dataset, or in one part of them.

    Args:
        detector: what to measure, where it is; keeps its mode.
        dataset: labelled images.
        batch_size: images that go through the network together.
        workers: processes that read ahead; see `evaluate`.
        proposals: also keep the class-free proposals.
        progress: called with the number of images done after each batch.
        part: (number, count): one of `count` processes that share the images out. Each takes whole batches of one
            plan, so that an image is padded as it would be without the others.

    Raises:
        ImageError, DataNotFoundError: an image can't be read.
    """
    found = Found()
    with evaluating(detector), torch.inference_mode():
        for batch in read_batches(dataset, detector.preprocessor, batch_size=batch_size, workers=workers, part=part):
            found.detections.update(_detect(detector, batch))
            if proposals:
                found.proposals.update(_propose(detector, batch))
            if progress is not None:
                progress(len(found.detections))
    return found


def measure(detector: Detector, dataset: Dataset, parts: Sequence[Found], *, began: float) -> Evaluation:
    """Compare what was found in all parts of a dataset with its truth.

    Args:
        detector: whose classes the detections have.
        dataset: labelled images.
        parts: each image is in exactly one of them.
        began: when detecting began, by `time.monotonic`.

    Raises:
        DataError: no images, or an annotation that does not fit its image.
        ConfigError: the dataset has a class that the detector was not trained on.
    """
    category_ids = _refuse_unmeasurable(detector, dataset)
    numbers = sorted(number for part in parts for number in part.detections)
    assert numbers == list(range(len(dataset))), f"{len(numbers)} results for {len(dataset)} images"
    found = {number: each for part in parts for number, each in part.detections.items()}
    proposed = {number: each for part in parts for number, each in part.proposals.items()}
    truth = dataset.coco()
    recall = _proposal_recall(truth, dataset, proposed) if proposed else None
    return _report(dataset, truth, _records(detector, dataset, found, category_ids), recall, time.monotonic() - began)


def _refuse_unmeasurable(detector: Detector, dataset: Dataset) -> dict[int, int]:
    """Detector label -> category id; see `match_classes`."""
    if len(dataset) == 0:
        raise DataError(f"{dataset.name}: has no images to measure on")
    return match_classes(detector.classes, dataset)


def match_classes(classes: Classes, dataset: Dataset) -> dict[int, int]:
    """Detector label -> the dataset's category id, by name; labels that the dataset does not know are left out.

    Raises:
        ConfigError: the dataset has a class that the detector does not know.
    """
    ids = dict(zip(dataset.classes.names, dataset.classes.ids, strict=True))
    unknown = [name for name in ids if name not in classes.names]
    if unknown:
        raise ConfigError(
            f"{dataset.name}: the detector does not know the class {', '.join(map(repr, unknown))}; it was trained on "
            f"{', '.join(classes.names)}.{nearest(unknown[0], classes.names)} Rename or remove it in the annotations."
        )
    return {label: ids[name] for label, name in enumerate(classes.names) if name in ids}


def _detect(detector: Detector, batch: Batch) -> dict[int, Detections]:
    found = detector.detect(batch.images.to(detector.device))
    rows = zip(batch.numbers, found, batch.frames, strict=True)
    return {number: detector.preprocessor.restore(each.to("cpu"), frame) for number, each, frame in rows}


def _propose(detector: Detector, batch: Batch) -> dict[int, Proposals]:
    proposed = detector.proposals(batch.images.to(detector.device))
    restored: dict[int, Proposals] = {}
    for number, each, frame in zip(batch.numbers, proposed, batch.frames, strict=True):
        # The preprocessor restores detections; a proposal is one without a class.
        as_found = Detections(each.boxes, each.scores, torch.zeros_like(each.scores, dtype=torch.int64)).to("cpu")
        as_found = detector.preprocessor.restore(as_found, frame)
        restored[number] = Proposals(as_found.boxes, as_found.scores)
    return restored


def _records(
    detector: Detector, dataset: Dataset, found: dict[int, Detections], category_ids: dict[int, int]
) -> list[dict[str, Any]]:
    """COCO records in the dataset's order, with its ids instead of the detector's."""
    ids = {detector.classes.ids[label]: category_id for label, category_id in category_ids.items()}
    records = [
        record
        for number in sorted(found)
        for record in found[number].to_coco(image_id=dataset.image_id(number), classes=detector.classes)
        if record["category_id"] in ids
    ]
    for record in records:
        record["category_id"] = ids[record["category_id"]]
    return records


def _proposal_recall(truth: dict[str, Any], dataset: Dataset, proposed: dict[int, Proposals]) -> ProposalRecall:
    return proposal_recall(truth, {dataset.image_id(number): _rows(each) for number, each in proposed.items()})


def _rows(proposed: Proposals) -> np.ndarray:
    """(n, 5): x, y, w, h and score."""
    boxes = proposed.boxes.double()
    return torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2], proposed.scores.double()[:, None]), dim=1).numpy()


def _report(
    dataset: Dataset,
    truth: dict[str, Any],
    records: Sequence[dict[str, Any]],
    recall: ProposalRecall | None,
    seconds: float,
) -> Evaluation:
    metrics = coco_metrics(truth, records)
    ignored = sum(record["iscrowd"] for record in truth["annotations"])
    return Evaluation(
        **{field.name: getattr(metrics, field.name) for field in fields(CocoMetrics)},
        dataset=dataset.name,
        images=len(dataset),
        objects=len(truth["annotations"]) - ignored,
        ignored=ignored,
        seconds=seconds,
        detections=list(records),
        proposals=recall,
    )
