"""`train`: build a run, loop over its epochs and steps, leave the best weights in the detector."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpn.data.dataset import Dataset
from fpn.detectors import Detector
from fpn.detectors.detector import IMPORTED
from fpn.detectors.fine_tuning import take_from
from fpn.errors import ConfigError
from fpn.evaluation.known_truth import told_apart
from fpn.runtime.device import algorithms
from fpn.runtime.waiting import considerate
from fpn.training.best_weights import BestWeights
from fpn.training.callbacks import Callback, Callbacks
from fpn.training.checkpoint import has_checkpoint
from fpn.training.config import TrainConfig
from fpn.training.interrupt import Interrupt
from fpn.training.labels import tell_unoutlined
from fpn.training.loop import Loop
from fpn.training.metrics_log import MetricsLog, MetricsRecorder
from fpn.training.openings import Augmentation, Openings
from fpn.training.optimization import OptimizerFactory
from fpn.training.pixel_range import agree_on_range
from fpn.training.progress import Reporter, make_reporter
from fpn.training.run import Run
from fpn.training.run_lock import hold
from fpn.training.run_record import (
    BEST,
    METRICS,
    UNREADABLE,
    begun_before_restart,
    claim_output,
    describe,
    list_changes,
    read_record,
    refuse_changes,
    write_record,
)
from fpn.training.saving import Checkpoints
from fpn.training.setup import assemble, refuse_bad_data, tell_crowded, tell_padded
from fpn.training.trackers import Trackers
from fpn.training.validation import Validation, find_metric, screen_labels


@dataclass(frozen=True)
class TrainResult:
    """What a run came to.

    Attributes:
        steps: optimizer steps done.
        epochs: epochs done.
        best_metric: what said which weights are best, such as "ap".
        best_value: its value for the weights that the detector now has, on the validation set; None without one.
        best_epoch: after which epoch they were taken (1, 2, ...).
        output: the run's folder, or None.
        model: the model file to use, or None without an output folder.
        seconds: wall time of this call.
        unreadable: path -> why, of images that could not be read and were left out (`skip_unreadable`).
    """

    steps: int
    epochs: int
    best_metric: str
    best_value: float | None
    best_epoch: int
    output: Path | None
    model: Path | None
    seconds: float
    unreadable: Mapping[str, str]


def train(
    detector: Detector,
    dataset: Dataset,
    config: TrainConfig | None = None,
    *,
    validation: Dataset | None = None,
    output: str | Path | None = None,
    progress: bool = True,
    resume: str | Path | None = None,
    allow_changes: bool = False,
    notes: Mapping[str, Any] | None = None,
    augment: Augmentation | None = None,
    callbacks: Sequence[Callback] = (),
    optimizer: OptimizerFactory | None = None,
    init: Detector | str | Path | None = None,
) -> TrainResult:
    """Train a detector in place; it ends with the best weights (averaged ones, unless `ema_decay` is 0).

    Best is what has the best `config.best` (AP, unless told) on `validation`; without one, the last.

    Args:
        detector: what to train.
        dataset: labelled images to learn from, with the detector's classes. Its `pixel_range`, or else what fits its
            images of more than 8 bits, becomes the detector's.
        config: how; None: the defaults, or the resumed run's own.
        validation: labelled images to measure on after each epoch.
        output: folder for `best.safetensors`, `last/`, `metrics.jsonl` and `run.json`; None: write nothing.
        progress: show a progress bar on a terminal, a line now and then elsewhere.
        resume: the output folder of an earlier run to go on with, bit by bit as if it had not stopped. When torchrun
            started this process again after a failure, the run in `output` is gone on with without being told.
        allow_changes: resume though data, recipe or settings changed.
        notes: JSON-able facts kept in `run.json`, such as the command line.
        augment: (sample, generator) -> sample, instead of the built-in random changes. It gets an image as it is in
            its file, with objects in its pixels, and may return another image of any size with the objects that are
            left. The generator is a function of seed, epoch and image: who draws from nothing else goes on bit by bit
            after a stop, with any number of workers. It has to be picklable, unless `workers` is 0.
        callbacks: look on, see `Callback`.
        optimizer: groups -> torch.optim.Optimizer, instead of the built-in ones. Each group has the trainable weights
            `params`, their `names` and a `multiplier`; all have to be passed on. Schedule and warm-up set the rates;
            their peak is `learning_rate` if given, else the optimizer's own `lr`. In the same way, `weight_decay`
            holds if given, else the optimizer's own, and 0 for norms and biases.
        init: a detector or a model file whose weights the detector takes over before the first step: those of classes
            by the classes' names, all others whole, see `fpn.begin_with`. A run that goes on from a checkpoint has its
            own.

    Raises:
        TrainingError: nothing to train on, or a loss is not finite; or another process failed.
        ConfigError: settings contradict each other or the resumed run, or classes differ.
        MissingExtraError: a tracker is not installed.
        OutputError: the output folder belongs to another run or can't be written to.
        KeyboardInterrupt: after Ctrl-C, when the state is saved.
    """
    started = time.monotonic()
    resume = resume or begun_before_restart(_folder(output))
    folder = _folder(output if resume is None else resume)
    before = None if resume is None else read_record(resume)
    if config is None:
        config = TrainConfig() if before is None else TrainConfig(**before["config"])
    openings = Openings(augment=augment, optimizer=optimizer, callbacks=callbacks)
    openings.check(config)
    metric = find_metric(config.best)
    if config.patience and validation is None:
        raise ConfigError(
            f"patience {config.patience}: counts validations, and there is nothing to validate on. Name a validation "
            "set, such as --validation-share 0.2"
        )
    dataset = told_apart(detector, dataset)
    validation = None if validation is None else told_apart(detector, validation)
    refuse_bad_data(detector, dataset, validation, metric)
    dataset, validation, told = agree_on_range(detector, dataset, validation)
    going_on = resume is not None and has_checkpoint(Path(resume))
    carried = None if init is None or going_on else take_from(detector, init)
    notes = dict(notes or {}) if carried is None else {**(notes or {}), "init": carried.to_dict()}
    detector.thresholds = None  # they were chosen for the weights that it had
    with algorithms(config.deterministic):
        run = assemble(detector, dataset, config, folder, openings=openings)
        reporter = make_reporter(progress and run.processes.first)
        with run.processes.together(), _ending(run, reporter), ExitStack() as held:
            warned = [*tell_crowded(detector, dataset, validation), *tell_unoutlined(detector, dataset)]
            warned += tell_padded(detector)
            for said in [*([] if carried is None else [carried]), *warned]:
                reporter.note(str(said))
            record = describe(run, dataset, validation, notes)
            record = _open_output(run, folder, record, before, allow_changes, held)
            interrupt = Interrupt(speaks=progress and run.processes.first)
            measuring = None if validation is None else Validation(run, validation, interrupt, metric)
            best = BestWeights(run, metric, _model(folder), record)
            loop = _compose(run, folder, callbacks, validation=measuring, best=best, reporter=reporter, stop=interrupt)
            loop.begin(resumed=before is not None)
            for note in told:
                reporter.note(note)
            with considerate(reporter.note):
                loop.train()
            unreadable = _name_unreadable(run, measuring, folder, record)
        loop.end()
        return _result(run, folder, time.monotonic() - started, unreadable)


def _compose(
    run: Run,
    folder: Path | None,
    callbacks: Sequence[Callback],
    *,
    validation: Validation | None,
    best: BestWeights,
    reporter: Reporter,
    stop: Interrupt,
) -> Loop:
    """A run with all that belongs between its steps."""
    log = MetricsLog(folder / METRICS if folder is not None and run.processes.first else None)
    checkpoints = Checkpoints(run, folder, log)
    trackers, labels = Trackers(run.accelerator, run.config.tracker), screen_labels(best.metric)
    return Loop(
        run=run,
        validation=validation,
        metrics=MetricsRecorder(run, log, trackers=trackers, reporter=reporter, labels=labels),
        checkpoints=checkpoints,
        best=best,
        callbacks=Callbacks(callbacks, run, folder, hint=checkpoints.hint),
        reporter=reporter,
        interrupt=stop,
    )


@contextmanager
def _ending(run: Run, reporter: Reporter) -> Iterator[None]:
    """Give back what a run holds, however it ends."""
    try:
        yield
    finally:
        reporter.end()
        run.loader.close()
        # With a process gone, parting in good order could wait for it; the end of this process parts as well.
        if run.processes.count == 1 or sys.exc_info()[0] is None:
            run.accelerator.end_training()


def _open_output(
    run: Run,
    folder: Path | None,
    record: dict[str, Any],
    before: Mapping[str, Any] | None,
    allow_changes: bool,
    held: ExitStack,
) -> dict[str, Any]:
    """Take the folder of a new run, or see that a resumed one is still what it was; what `run.json` then says.

    Args:
        run, folder, record, before, allow_changes: the training's.
        held: gives the folder back.
    """
    if folder is None:
        return record
    if run.processes.first:
        if before is None:
            claim_output(folder, record)
        held.enter_context(hold(folder))
    if before is None:
        return record
    changes = list_changes(before, record)
    if not changes:
        return dict(before)
    if not allow_changes:
        refuse_changes(folder, changes)
    if "init" in before["notes"]:
        record["notes"].setdefault("init", before["notes"]["init"])
    if IMPORTED in before:
        record.setdefault(IMPORTED, before[IMPORTED])
    record["changes"] = [*before.get("changes", []), changes]
    if run.processes.first:
        write_record(folder, record)
    return record


def _name_unreadable(
    run: Run, measuring: Validation | None, folder: Path | None, record: dict[str, Any]
) -> dict[str, str]:
    """Which images were left out by any process, and why; the first process also writes it into `run.json`."""
    unreadable = dict(record.get(UNREADABLE, {}))
    for each in run.processes.collect(run.loader.unreadable):
        unreadable |= each
    unreadable |= {} if measuring is None else measuring.unreadable
    if unreadable and folder is not None and run.processes.first:
        write_record(folder, {**record, UNREADABLE: unreadable})
    return unreadable


def _result(run: Run, folder: Path | None, seconds: float, unreadable: Mapping[str, str]) -> TrainResult:
    position = run.position
    return TrainResult(
        steps=position.step,
        epochs=position.epoch,
        best_metric=position.best_metric,
        best_value=position.best_value,
        best_epoch=position.best_epoch,
        output=folder,
        model=_model(folder),
        seconds=seconds,
        unreadable=unreadable,
    )


def _model(folder: Path | None) -> Path | None:
    return None if folder is None else folder / BEST


def _folder(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
