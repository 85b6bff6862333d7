"""Training and measuring the pilots, one after the other, and going on where an earlier call stopped."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fpn.data.dataset import Dataset
from fpn.detectors import PAPER, Detector, faster_rcnn
from fpn.detectors.builder import refuse_unfit_parts
from fpn.errors import ConfigError, DataError
from fpn.evaluation import evaluate, match_detections
from fpn.evaluation.bootstrap import average_precisions, check_confidence, draw_images, mean_of_defined
from fpn.evaluation.known_truth import known_truth
from fpn.features.necks.designs import FPN
from fpn.studies.label_budget.forecast import LabelForecast, TimeHere
from fpn.studies.label_budget.pilots import Pilot, PilotFolder, PilotOutcome, deal_pilots, refuse_few
from fpn.studies.label_budget.settings import PilotSettings
from fpn.studies.screen import Screen
from fpn.studies.study_folder import about_dataset
from fpn.training.config import FREE_ON_RESUME, TrainConfig
from fpn.training.pace import Pace, measure_pace
from fpn.training.planned import TrainingPlan
from fpn.training.recipes import plan_training
from fpn.training.trainer import train
from fpn.wording import describe_seconds

_USUAL_STEPS, _FEWEST_STEPS = 200, 40
# Of a time budget that pilots may take; the rest is for starting, timing, and being wrong.
_SPENT = 0.85
# How often the held-out images are drawn over again.
_RESAMPLES = 100
_SMALLEST_SIDE = 96


@dataclass(frozen=True, kw_only=True)
class LabelStudy:
    """What to learn from and to measure on, and how.

    Attributes:
        train_set, held_out: labelled images with the same classes.
        settings: of the pilots.
        full: how `fpn train` would train on all of them.
        plan: how pilots are trained; their number of steps is not in it.
    """

    train_set: Dataset
    held_out: Dataset
    settings: PilotSettings
    full: TrainingPlan
    plan: TrainingPlan

    @classmethod
    def of(cls, train_set: Dataset, held_out: Dataset, settings: PilotSettings) -> LabelStudy:
        """With what recipes choose for these images on this machine."""
        wishes = {"device": settings.device}
        full = plan_training(train_set, given=wishes)
        side = settings.short_side or max(_SMALLEST_SIDE, 32 * round(full.value("short_side") / 64))
        plan = plan_training(train_set, "small-data", given={**settings.given(), "short_side": side})
        return cls(train_set=train_set, held_out=held_out, settings=settings, full=full, plan=plan)

    def config(self, steps: int, seed: int) -> TrainConfig:
        """Of one pilot. All take the same number of steps, as the recipe for small data does."""
        own = {"steps": steps, "seed": seed, "validate_every": 0, "workers": self.settings.workers}
        return TrainConfig(**{**self.plan.config.model_dump(), **own, "accumulate": 1})

    def detector(self, plan: TrainingPlan, seed: int, *, weights: bool) -> Detector:
        """A detector of a plan before training."""
        torch.manual_seed(seed)
        options = plan.detector if weights else {**plan.detector, "weights": None}
        return faster_rcnn(classes=self.train_set.classes, **options)

    def describe(self, steps: int) -> dict[str, Any]:
        """All that decides the outcomes but which pilot it is, JSON-able."""
        ignored = {*FREE_ON_RESUME, "seed"}
        return {
            "detector": {name: _plain(value) for name, value in self.plan.detector.items()},
            "training": self.config(steps, 0).model_dump(mode="json", exclude=ignored),
            "seed": self.settings.seed,
            "data": {"training": about_dataset(self.train_set), "held_out": about_dataset(self.held_out)},
        }


def forecast_labels(
    train_set: Dataset,
    held_out: Dataset,
    output: str | Path | None = None,
    *,
    settings: PilotSettings | None = None,
    seconds: float | None = None,
    confidence: float = 0.9,
    time: TimeHere | None = None,
    screen: Screen | None = None,
) -> LabelForecast:
    """Say what more labelled images would bring: train pilots on parts of those at hand, and draw the curve further.

    How one model is trained on the images at hand plans `fpn.plan_training`.

    Args:
        train_set: labelled images to learn from.
        held_out: others to measure on, with the same classes.
        output: folder for each pilot's outcome, new or begun by a call with the same settings, which goes on. None:
            nothing is kept.
        settings: of the pilots.
        seconds: that pilots may take together; None: 200 steps each, however long they take.
        confidence: of the intervals, 0..1.
        time: how long trainings take here, if that is known; None: some steps are timed.
        screen: where progress is shown; None: nowhere.

    Raises:
        DataError: too few images, or none of the held-out ones has an object.
        ConfigError: other classes, too little time, or the folder was begun with other settings.
        OutputError: the folder holds something else or can't be written to.
        KeyboardInterrupt: after Ctrl-C. Complete pilots are kept.
    """
    settings, screen = settings or PilotSettings(), screen or Screen()
    check_confidence(confidence)
    _refuse(train_set, held_out)
    pilots = deal_pilots(train_set, seed=settings.seed)
    study = LabelStudy.of(train_set, held_out, settings)
    with _folder_or_none(output) as root:
        PilotFolder.refuse_foreign(root)
        before = _begun(root)
        timed = time or _read_times(before) or _measure_times(study, screen)
        steps = _steps(study, before, timed, pilots, seconds)
        folder = PilotFolder(root, study.describe(steps))
        folder.keep(root / "times.json", {"times": timed.to_dict()})
        _tell_times(screen, study, pilots, folder, steps, timed)
        outcomes = _run(study, pilots, folder, steps, screen)
    return LabelForecast.of(
        outcomes,
        dataset=train_set.name,
        held_out=(held_out.name, len(held_out)),
        confidence=confidence,
        time=timed,
        settings=folder.settings,
    )


def refuse_unfit_pilots(settings: PilotSettings) -> None:
    """Stop at a backbone that pilots can't have, before data are read for them.

    Raises:
        ConfigError: so it is.
    """
    refuse_unfit_parts(settings.backbone, FPN, PAPER.neck, settings.weights)


def run_pilot(study: LabelStudy, pilot: Pilot, steps: int, screen: Screen) -> PilotOutcome:
    """Train one pilot and measure it on the held-out images."""
    detector = study.detector(study.plan, pilot.seed, weights=True)
    some = study.train_set.subset(pilot.rows)
    trained = train(detector, some, study.config(steps, pilot.seed), progress=screen.training)
    with screen.bar(f"{pilot.name}: measuring", len(study.held_out)) as progress:
        batch, workers = study.settings.batch_size, study.settings.workers
        measured = evaluate(
            detector, study.held_out, tasks=("boxes",), batch_size=batch, workers=workers, progress=progress
        )
    matches = match_detections(known_truth(detector.classes, study.held_out).coco, measured.detections)
    weights = draw_images(len(matches), _RESAMPLES, study.settings.seed)
    drawn = mean_of_defined(average_precisions(matches, weights, sizes=1)[..., 0].mean(axis=1))
    return PilotOutcome(
        part=pilot.part,
        number=pilot.number,
        seed=pilot.seed,
        images=len(pilot.rows),
        ap=measured.ap,
        ap50=measured.ap50,
        resampled=np.where(np.isnan(drawn), measured.ap, drawn).round(5).tolist(),
        steps=trained.steps,
        training_seconds=round(trained.seconds, 1),
        measuring_seconds=round(measured.seconds, 1),
    )


def _run(
    study: LabelStudy, pilots: Sequence[Pilot], folder: PilotFolder, steps: int, screen: Screen
) -> list[PilotOutcome]:
    outcomes = []
    for number, pilot in enumerate(pilots, start=1):
        outcome, known = folder.read(pilot), "complete, from before"
        if outcome is None:
            outcome = run_pilot(study, pilot, steps, screen)
            folder.write(pilot, outcome)
            known = f"{outcome.training_seconds:.0f} s of training, {outcome.measuring_seconds:.0f} s of measuring"
        outcomes.append(outcome)
        screen.tell(f"[{number}/{len(pilots)}] {pilot.name}, {outcome.images} images: AP {outcome.ap:.3f} ({known})")
    return outcomes


def _refuse(train_set: Dataset, held_out: Dataset) -> None:
    """Before anything is read or trained."""
    refuse_few(train_set, len(train_set) + len(held_out))
    if len(held_out) < 2:
        raise DataError(f"{held_out.name}: {len(held_out)} images to measure on are too few. Hold out more.")
    if list(train_set.classes) != list(held_out.classes):
        raise ConfigError(
            f"{held_out.name}: its classes are not those of {train_set.name}. Use one list of classes for both."
        )
    if all(bool(held_out.targets(index).ignore.all()) for index in range(len(held_out))):
        raise DataError(
            f"{held_out.name}: none of its {len(held_out)} images has an object, so nothing can be measured"
        )


@contextmanager
def _folder_or_none(output: str | Path | None) -> Iterator[Path]:
    """The folder, or one for the time being."""
    if output is not None:
        yield Path(output)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "pilots"


@dataclass(frozen=True)
class _Begun:
    """What an earlier call left: its settings and times; empty: nothing."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    times: Mapping[str, Any] = field(default_factory=dict)


def _begun(root: Path) -> _Begun:
    found = []
    for name in ("settings.json", "times.json"):
        try:
            values = json.loads((root / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            values = {}
        found.append(values if isinstance(values, dict) else {})
    return _Begun(found[0], found[1].get("times", {}))


def _read_times(before: _Begun) -> TimeHere | None:
    return TimeHere(**before.times) if before.times else None


def _measure_times(study: LabelStudy, screen: Screen) -> TimeHere:
    """Time some steps of a pilot and of the whole training, on detectors of their own."""
    screen.tell("timing a few steps of a pilot and of a whole training ...")
    pilot = _pace(study, study.plan, study.config(_USUAL_STEPS, 0))
    full = _pace(study, study.full, study.full.config)
    if full.caution:
        screen.tell(f"note: {full.caution}")
    seconds = full.seconds(study.full.config, validated=len(study.held_out))
    return TimeHere(
        pilot_step=pilot.step,
        pilot_image=pilot.image,
        full_seconds=seconds,
        full_steps=study.full.config.steps or study.full.config.epochs * full.epoch,
        full_step=full.step,
    )


def _pace(study: LabelStudy, plan: TrainingPlan, config: TrainConfig) -> Pace:
    return measure_pace(study.detector(plan, 0, weights=False), study.train_set, config)


def _steps(study: LabelStudy, before: _Begun, timed: TimeHere, pilots: Sequence[Pilot], seconds: float | None) -> int:
    """Of each pilot: as asked, as when it was begun, as the time allows, or as usual."""
    begun = before.settings.get("training", {}).get("steps")
    if study.settings.steps is not None:
        return study.settings.steps
    if isinstance(begun, int):
        return begun
    if seconds is None:
        return _USUAL_STEPS
    steps = int(
        (_SPENT * seconds / len(pilots) - timed.pilot_image * len(study.held_out)) / max(timed.pilot_step, 1e-9)
    )
    if steps < _FEWEST_STEPS:
        least = len(pilots) * timed.pilot_seconds(_FEWEST_STEPS, len(study.held_out)) / _SPENT
        needed = describe_seconds(60.0 * math.ceil(least / 60))
        raise ConfigError(
            f"--time-budget of {describe_seconds(seconds)}: {len(pilots)} pilots of at least {_FEWEST_STEPS} steps "
            f"need about {needed}. Give more time, or make them cheaper (--short-side)."
        )
    return min(steps, 5 * _USUAL_STEPS)


def _tell_times(
    screen: Screen, study: LabelStudy, pilots: Sequence[Pilot], folder: PilotFolder, steps: int, timed: TimeHere
) -> None:
    sizes = ", ".join(f"{len(pilot.rows)}" for pilot in pilots)
    left = sum(folder.read(pilot) is None for pilot in pilots)
    seconds = left * timed.pilot_seconds(steps, len(study.held_out))
    done = f", {len(pilots) - left} are complete" if left < len(pilots) else ""
    side = study.plan.value("short_side")
    screen.tell(f"{len(pilots)} pilots on {sizes} images{done}; {steps} steps each at {side} pixels")
    if left:
        screen.tell(f"time: about {describe_seconds(seconds)} ({timed.pilot_step:.2g} s a step)")


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str | list | tuple) else str(value)
