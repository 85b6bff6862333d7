"""`train`: build a run, loop over its epochs and steps, leave the best weights in the detector."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpn.data.dataset import Dataset
from fpn.detectors import Detector
from fpn.runtime.device import algorithms
from fpn.training.callbacks import Keeper
from fpn.training.config import TrainConfig
from fpn.training.interrupt import Interrupt
from fpn.training.progress import Reporter, make_reporter
from fpn.training.run import Run
from fpn.training.run_record import (
    begun_before_restart,
    claim_output,
    describe,
    list_changes,
    read_record,
    refuse_changes,
    write_record,
)
from fpn.training.setup import assemble, refuse_bad_data


@dataclass(frozen=True)
class TrainResult:
    """What a run came to.

    Attributes:
        steps: optimizer steps done.
        epochs: epochs done.
        best_ap: AP (0..1) of the weights that the detector now has, on the validation set; None without one.
        best_epoch: after which epoch they were taken (1, 2, ...).
        output: the run's folder, or None.
        model: the model file to use, or None without an output folder.
        seconds: wall time of this call.
    """

    steps: int
    epochs: int
    best_ap: float | None
    best_epoch: int
    output: Path | None
    model: Path | None
    seconds: float


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
) -> TrainResult:
    """Train a detector in place; it ends with the best weights (averaged ones, unless `ema_decay` is 0).

    Best is the highest AP on `validation`; without one, the last.

    Args:
        detector: what to train.
        dataset: labelled images to learn from, with the detector's classes.
        config: how; None: the defaults, or the resumed run's own.
        validation: labelled images to measure on after each epoch.
        output: folder for `best.safetensors`, `last/`, `metrics.jsonl` and `run.json`; None: write nothing.
        progress: show a progress bar on a terminal, a line now and then elsewhere.
        resume: the output folder of an earlier run to go on with, bit by bit as if it had not stopped. When torchrun
            started this process again after a failure, the run in `output` is gone on with without being told.
        allow_changes: resume though data, recipe or settings changed.
        notes: JSON-able facts kept in `run.json`, such as the command line.

    Raises:
        TrainingError: nothing to train on, or a loss is not finite; or another process failed.
        ConfigError: settings contradict each other or the resumed run, or classes differ.
        OutputError: the output folder belongs to another run or can't be written to.
        KeyboardInterrupt: after Ctrl-C, when the state is saved.
    """
    started = time.monotonic()
    resume = resume or begun_before_restart(_folder(output))
    folder = _folder(output if resume is None else resume)
    before = None if resume is None else read_record(resume)
    if config is None:
        config = TrainConfig() if before is None else TrainConfig(**before["config"])
    refuse_bad_data(detector, dataset, validation)
    with algorithms(config.deterministic):
        run = assemble(detector, dataset, config, folder)
        reporter = make_reporter(progress and run.processes.first)
        interrupt = Interrupt(speaks=progress and run.processes.first)
        with run.processes.together(), _ending(run, reporter):
            record = describe(run, dataset, validation, notes)
            record = _open_output(run, folder, record, before, allow_changes)
            keeper = Keeper(run, folder, record, validation=validation, reporter=reporter, interrupt=interrupt)
            keeper.begin(resumed=before is not None)
            reporter.begin(done=run.position.step, total=run.total, epochs=run.epochs)
            try:
                with interrupt:
                    _loop(run, keeper)
            except KeyboardInterrupt:
                keeper.say_how_to_go_on()
                raise
        keeper.put_best_weights()
        detector.eval()
        return _result(run, keeper, folder, time.monotonic() - started)


def _loop(run: Run, keeper: Keeper) -> None:
    """Epochs and steps, from wherever the run is to its end."""
    while not run.finished:
        for group in run.groups():
            run.take_step(group)
            keeper.after_step(group)
            if run.done or keeper.stopping:
                break
        if run.done or run.epoch_done:
            keeper.after_epoch()
        if keeper.stopping and not run.done:
            keeper.stop()


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
    run: Run, folder: Path | None, record: dict[str, Any], before: Mapping[str, Any] | None, allow_changes: bool
) -> dict[str, Any]:
    """Take the folder of a new run, or see that a resumed one is still what it was; what `run.json` then says."""
    if folder is None:
        return record
    if before is None:
        if run.processes.first:
            claim_output(folder, record)
        return record
    changes = list_changes(before, record)
    if not changes:
        return dict(before)
    if not allow_changes:
        refuse_changes(folder, changes)
    record["changes"] = [*before.get("changes", []), changes]
    if run.processes.first:
        write_record(folder, record)
    return record


def _result(run: Run, keeper: Keeper, folder: Path | None, seconds: float) -> TrainResult:
    position = run.position
    return TrainResult(
        steps=position.step,
        epochs=position.epoch,
        best_ap=position.best_ap,
        best_epoch=position.best_epoch,
        output=folder,
        model=keeper.model,
        seconds=seconds,
    )


def _folder(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
