"""Putting a run together: look at the data, build the parts, write down what it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from fpn.data.dataset import Dataset
from fpn.data.loading.augmentation.augment import Augment
from fpn.data.loading.loader import Loader, make_loader
from fpn.data.loading.order import repeat_factors
from fpn.detectors import Detector
from fpn.errors import ConfigError, TrainingError
from fpn.evaluation.evaluate import measure
from fpn.evaluation.found import Found
from fpn.evaluation.known_truth import count_unknown, count_unoutlined, refuse_other_keypoints
from fpn.evaluation.limits import describe_crowded
from fpn.evaluation.tasks import find_task
from fpn.runtime.device import no_compiler
from fpn.runtime.memory import keep_freed_memory
from fpn.structures import Detections, Proposals
from fpn.training.config import TrainConfig
from fpn.training.distributed import Processes, make_accelerator
from fpn.training.labels import refuse_missing_labels
from fpn.training.loss_monitor import LossWatch
from fpn.training.openings import Augmentation, Openings, OutsideAugmentation
from fpn.training.optimization import (
    Average,
    Schedule,
    freeze_parts,
    make_optimizer,
    make_outside_optimizer,
    own_rate,
)
from fpn.training.precision import choose_layout, choose_precision
from fpn.training.run import LossModule, Position, Run, steps_an_epoch
from fpn.training.seeding import seed_all
from fpn.training.validation import Metric

# So many times an image's side the padded one is where that is said: three in four pixels are nothing then.
_MUCH_PADDING = 2


def refuse_bad_data(detector: Detector, dataset: Dataset, validation: Dataset | None, metric: Metric) -> None:
    """Look for what would make training pointless, before it costs anything.

    Raises:
        TrainingError: no images or no objects, or not what the detector learns from.
        DataError: an outline of either is broken, where the detector learns from outlines.
        ConfigError: the data's classes are not the detector's, or its keypoints.
    """
    if list(dataset.classes) != list(detector.classes):
        raise ConfigError(
            f"{dataset.name}: its classes are {_list(dataset.classes)}, the detector's are {_list(detector.classes)}. "
            "Build the detector with classes=dataset.classes, or begin with this one: "
            "fpn.begin_with(detector, classes=dataset.classes)."
        )
    if validation is not None:
        _refuse_unlearned(detector, validation)
        refuse_other_keypoints(detector.skeleton, validation)
    for role, data in (("training", dataset), ("validation", validation)):
        if data is None:
            continue
        if len(data) == 0:
            raise TrainingError(f"{data.name}: has no images, so there is nothing for {role}")
        if all(bool(data.targets(index).ignore.all()) for index in range(len(data))):
            raise TrainingError(
                f"{data.name}: none of its {len(data)} images has an object that counts, so there is nothing for "
                f"{role}. Are the annotations where the format wants them?"
            )
    refuse_missing_labels(detector, dataset)
    if validation is not None and "masks" in detector.tasks:
        count_unoutlined(validation)
    if validation is not None and metric.name != "ap":  # AP is defined where there is any object
        _refuse_undefined(metric, detector, validation)


def _refuse_unlearned(detector: Detector, validation: Dataset) -> None:
    """Stop if a validation has objects of classes that are not among the training's; unused names do no harm."""
    unknown = [f"{name!r} ({count})" for name, count in count_unknown(detector.classes, validation).items() if count]
    if unknown:
        raise ConfigError(
            f"{validation.name}: has objects of {', '.join(unknown)}, which the training data do not have; they have "
            f"{_list(detector.classes)}. Label them there too, or rename or remove them here."
        )


def tell_crowded(detector: Detector, dataset: Dataset, validation: Dataset | None) -> list[str]:
    """A warning for each dataset with images that have more objects than the detector gives of one."""
    limit = detector.max_detections
    if limit is None:
        return []
    told = []
    for data in (dataset, *([] if validation is None else [validation])):
        counts = [int((~data.targets(index).ignore).sum()) for index in range(len(data))]
        if (crowded := sum(count > limit for count in counts)) > 0:
            said = describe_crowded(crowded, max(counts), limit)
            told.append(
                f"warning: {data.name}: {said}, the most detections that the detector gives of one. Allow more: "
                f"--max-detections {2 * max(counts)}"
            )
    return told


def tell_padded(detector: Detector) -> list[str]:
    """A warning if images are padded to many times their pixels, which all take time and memory."""
    pixels = detector.preprocessor.config
    side, multiple = pixels.long_side, pixels.size_multiple
    if side is None or multiple < _MUCH_PADDING * side:
        return []
    fitting = -(-side // 64) * 64
    return [
        f"warning: images, whose longer side is at most {side} pixels, are padded to {multiple} x {multiple} "
        f"(pixels.size_multiple), and all of that takes time and memory. Say --set pixels.size_multiple={fitting}"
    ]


def _refuse_undefined(metric: Metric, detector: Detector, dataset: Dataset) -> None:
    """Stop if a dataset gives a metric no value, as one without small objects does for "ap_small".

    Raises:
        ConfigError: it would be undefined in every epoch, or the detector does not give what it measures.
    """
    task, boxes, scores = find_task(metric.name), torch.zeros(0, 4), torch.zeros(0)
    nothing = Detections(boxes, scores, torch.zeros(0, dtype=torch.int64))
    proposed = dict.fromkeys(range(len(dataset)), Proposals(boxes, scores)) if task.output == "proposals" else {}
    found = Found(dict.fromkeys(range(len(dataset)), nothing), proposed)
    try:
        measured = measure(detector, dataset, [found], began=time.monotonic(), tasks=[task.name])
    except ConfigError as error:
        raise ConfigError(f"best {metric.name!r}: {error}") from error
    if measured.metrics[metric.name] < 0:
        raise ConfigError(f"best {metric.name!r}: {dataset.name} has no objects of that kind, so it is never defined")


def assemble(
    detector: Detector, dataset: Dataset, config: TrainConfig, folder: Path | None, *, openings: Openings
) -> Run:
    """All parts of a run at step 0; moves the detector to its device and memory layout."""
    accelerator = make_accelerator(config, folder)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    seed_all(config.seed)
    detector.to(accelerator.device)
    layout = choose_layout(config, accelerator.device)
    if layout is not None:
        detector.to(memory_format=layout)
    detector.train()
    freeze_parts(detector, config.frozen)
    if config.compile:
        _compile(detector)
    bf16 = choose_precision(config, accelerator.device) == "bf16"
    loader = _loader(detector, dataset, config, accelerator, openings.augment)
    total = config.steps or config.epochs * steps_an_epoch(len(loader), config.accumulate)
    module = accelerator.prepare_model(LossModule(detector, bf16=bf16))
    optimizer, schedule = _optimizer(detector, config, total, openings)
    return Run(
        config=config,
        accelerator=accelerator,
        processes=Processes(),
        detector=detector,
        module=module,
        loader=loader,
        optimizer=optimizer,
        schedule=schedule,
        average=Average(detector, config.ema_decay) if config.ema_decay > 0 else None,
        watch=LossWatch(
            immediate=accelerator.device.type == "cpu",
            names=dataset.path,
            remedy="" if folder is None else f"The last checkpoint in {folder / 'last'} is intact.",
        ),
        total=total,
        outside=openings.describe(),
        position=Position(best_metric=config.best),
    )


def _optimizer(
    detector: Detector, config: TrainConfig, total: int, openings: Openings
) -> tuple[torch.optim.Optimizer, Schedule]:
    backbone = detector.backbone_parameters()
    if openings.optimizer is None:
        return make_optimizer(detector, config, backbone=backbone), Schedule.of(config, total)
    optimizer = make_outside_optimizer(detector, config, openings.optimizer, backbone=backbone)
    return optimizer, Schedule.of(config, total, peak=own_rate(optimizer, config))


def _compile(detector: Detector) -> None:
    """Compile what is dense, in place: names of weights stay, and copies for validation are not compiled."""
    problem = no_compiler(detector.device)
    if problem is not None:
        raise ConfigError(f"compile: {problem}. Install one (such as g++), or train without --compile.")
    for part in detector.dense_modules:
        part.compile()


def _loader(
    detector: Detector,
    dataset: Dataset,
    config: TrainConfig,
    accelerator: Accelerator,
    augment: Augmentation | None,
) -> Loader:
    min_size = partial(detector.preprocessor.min_size, zoom=config.zoom) if config.reduced_decoding else None
    return make_loader(
        dataset,
        prepare=detector.preprocessor.prepare,
        collate=detector.preprocessor.collate,
        augment=Augment(config.augmentation) if augment is None else OutsideAugmentation(augment),
        # How far an outside one zooms in is not known, and it may think in pixels of the file.
        min_size=min_size if augment is None else None,
        batch_size=config.batch_size // accelerator.num_processes,
        seed=config.seed,
        num_workers=config.workers,
        aspect_grouping=config.aspect_grouping,
        repeats=_repeats(dataset, config.repeat_rare),
        masks="masks" in detector.tasks,
        # A last batch of one image would weigh as much as a full one. Which images are left out changes each epoch.
        drop_last=len(dataset) >= config.batch_size,
        skip_unreadable=config.skip_unreadable,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        pin_memory=accelerator.device.type == "cuda",
    )


def _repeats(dataset: Dataset, threshold: float) -> np.ndarray | None:
    """How often each image comes an epoch; None: once."""
    if threshold == 0:
        return None
    targets = (dataset.targets(index) for index in range(len(dataset)))
    return repeat_factors((each.labels[~each.ignore].tolist() for each in targets), threshold)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
