"""How long a run will take: a few real steps are timed before it begins."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from fpn.data.dataset import Dataset
from fpn.data.loading.batch import LabelledBatch
from fpn.detectors import Detector
from fpn.runtime.load import Usage, read_load
from fpn.runtime.waiting import considerate
from fpn.training.config import TrainConfig
from fpn.training.labels import refuse_missing_labels
from fpn.training.openings import Openings
from fpn.training.planned import PlannedSetting, TrainingPlan
from fpn.training.run import Run, steps_an_epoch
from fpn.training.setup import assemble
from fpn.wording import describe_seconds

# Of a time budget that is spent on steps and validations; the rest is for starting, saving, and being wrong.
_SPENT = 0.9
_VALIDATIONS = 10
# Cores that other programs use, from which on they are worth a word.
_BUSY = 0.5


@dataclass(frozen=True)
class Pace:
    """What a run's parts take.

    Attributes:
        step: seconds an optimizer step.
        image: seconds an image of a validation.
        epoch: optimizer steps an epoch.
        others: cores that other programs used while it was timed; 0 where nobody counts them.
    """

    step: float
    image: float
    epoch: int
    others: float = 0.0

    @property
    def caution(self) -> str:
        """What is to be known of these figures; empty: nothing."""
        if self.others < _BUSY:
            return ""
        return f"other programs used {self.others:.1f} cores while this was timed; without them it is sooner done"

    def seconds(self, config: TrainConfig, *, validated: int) -> float:
        """Of a whole run.

        Args:
            config: how long it is, and how often it validates.
            validated: images of a validation; 0: there is none.
        """
        steps = config.steps or config.epochs * self.epoch
        epochs = -(-steps // self.epoch)
        every = config.validate_every or epochs
        return steps * self.step + -(-epochs // every) * validated * self.image


def measure_pace(detector: Detector, dataset: Dataset, config: TrainConfig, *, steps: int = 2) -> Pace:
    """Train a detector for a few steps and look at the clock. It is of no use afterwards.

    Args:
        detector: with any weights.
        dataset: whose first images are read and learned from.
        config: of the run.
        steps: that are timed, after one that is not: the first step prepares much.
    """
    refuse_missing_labels(detector, dataset)
    alone = {"workers": 0, "tracker": (), "compile": False, "skip_unreadable": True}
    openings = Openings(augment=None, optimizer=None, callbacks=())
    run = assemble(detector, dataset, TrainConfig(**{**config.model_dump(), **alone}), None, openings=openings)
    times, last = [], []
    cores = range(os.cpu_count() or 1)
    before = read_load(cores)
    try:
        with considerate(lambda _: None):
            began = time.monotonic()
            for group in run.groups():
                run.take_step(group)
                _wait(run)
                times.append(time.monotonic() - began)
                began, last = time.monotonic(), group
                if len(times) > steps:
                    break
            image = _time_detection(run, last)
    finally:
        run.loader.close()
    later = read_load(cores)
    others = 0.0 if before is None or later is None else Usage.between(before, later).others
    timed = times[1:] or times
    return Pace(sum(timed) / max(1, len(timed)), image, steps_an_epoch(len(run.loader), config.accumulate), others)


def _time_detection(run: Run, group: Sequence[LabelledBatch]) -> float:
    """Seconds an image."""
    if not group:
        return 0.0
    images = group[0].images.to(run.accelerator.device)
    run.detector.eval()
    began = time.monotonic()
    with torch.no_grad():
        run.detector.detect(images)
    _wait(run)
    return (time.monotonic() - began) / len(images.pixels)


def _wait(run: Run) -> None:
    if run.accelerator.device.type != "cpu":
        torch.accelerator.synchronize()


def fit_to_time(plan: TrainingPlan, pace: Pace, seconds: float, *, validated: int) -> TrainingPlan:
    """The plan with as many epochs, or steps, as a time allows; the schedule spans them all.

    Args:
        plan: its epochs are replaced.
        pace: of its run.
        seconds: for training and validations.
        validated: images of a validation; 0: there is none.
    """
    room, every = seconds * _SPENT, plan.given.get("validate_every")
    # Ten validations at most, or as often as was asked for.
    measuring = validated * pace.image
    epoch = pace.epoch * pace.step
    epochs = room / (epoch + (measuring if every is None else measuring / max(1, every)))
    if every is None and epochs > _VALIDATIONS:
        epochs = max(_VALIDATIONS, (room - _VALIDATIONS * measuring) / epoch)
    told = f"as many as {describe_seconds(seconds)} allow, with steps of {pace.step:.2g} seconds"
    rows = {each.name: each for each in plan.settings if each.name not in ("epochs", "steps", "validate_every")}
    if epochs >= 1:
        rows["epochs"] = PlannedSetting("epochs", int(epochs), told)
        often = max(1, int(epochs) // _VALIDATIONS) if every is None else every
        given = "" if every is None else "you"
        rows["validate_every"] = PlannedSetting("validate_every", often, "epochs between validations", given)
    else:
        rows["steps"] = PlannedSetting("steps", max(1, int((room - measuring) / pace.step)), told)
    return replace(plan, settings=tuple(rows.values()))


def alternatives(plan: TrainingPlan, seconds: float) -> dict[str, tuple[str, float]]:
    """A faster and a better run: the options to add, and about how many seconds each takes.

    Args:
        plan: what is changed.
        seconds: of the plan's own run.
    """
    config, short = plan.config, plan.value("short_side")
    length = "steps" if config.steps else "epochs"
    whole = config.steps or config.epochs
    found = {}
    for name, shorter, longer in (("faster", 0.8, 0.5), ("better", 1.25, 1.5)):
        side = None if short is None else max(32, 32 * round(short * shorter / 32))
        changed = max(1, round(whole * longer))
        options = [] if side in (None, short) else [f"--short-side {side}"]
        options += [] if changed == whole else [f"--{length} {changed}"]
        factor = changed / whole * (1.0 if side is None or not short else (side / short) ** 2)
        found[name] = (" ".join(options), seconds * factor)
    return found
