"""A run's loop: epochs and steps, and what happens between them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from fpn.data.loading.batch import LabelledBatch
from fpn.training.best_weights import BestWeights
from fpn.training.callbacks import Callbacks
from fpn.training.interrupt import Interrupt
from fpn.training.metrics_log import MetricsRecorder
from fpn.training.progress import Reporter
from fpn.training.run import Run
from fpn.training.saving import Checkpoints
from fpn.training.validation import Validation, ValidationInterrupted


@dataclass(kw_only=True)
class Loop:
    """A run and its company.

    Attributes:
        run: takes the steps.
        validation: measures after epochs, or None.
        metrics: writes down losses and metrics.
        checkpoints: saves.
        best: keeps the best weights.
        callbacks: look on.
        reporter: tells people.
        interrupt: whether they wish to stop.
        measured: what the latest validation found, by metric.
    """

    run: Run
    validation: Validation | None
    metrics: MetricsRecorder
    checkpoints: Checkpoints
    best: BestWeights
    callbacks: Callbacks
    reporter: Reporter
    interrupt: Interrupt
    measured: dict[str, float] = field(default_factory=dict)

    def begin(self, *, resumed: bool) -> None:
        """Start, or go on from the newest checkpoint."""
        run = self.run
        self.metrics.begin()
        if self.checkpoints.begin(resumed=resumed):
            self.reporter.note(f"going on after step {run.position.step}")
        self.callbacks.call("begin", self.measured)
        self.reporter.begin(done=run.position.step, total=run.total, epochs=run.epochs)

    def train(self) -> None:
        """Epochs and steps, from wherever the run is to its end.

        Raises:
            KeyboardInterrupt: after Ctrl-C, when the state is saved.
        """
        run = self.run
        try:
            with self.interrupt:
                while not run.finished:
                    stopping = self._take_steps()
                    if run.done or run.epoch_done:
                        self._end_epoch()
                    if stopping and not run.done:
                        self._stop()
        except KeyboardInterrupt:
            self.reporter.note(f"stopped after step {run.position.step}; {self.checkpoints.hint()}")
            raise

    def end(self) -> None:
        """Leave the best weights in the detector, ready to detect."""
        run = self.run
        if run.given_up and run.position.step < run.total:
            often = "one validation" if run.config.patience == 1 else f"{run.config.patience} validations"
            better = f"{run.position.best_metric} was not better in {often}"
            self.reporter.note(f"stopped early after epoch {run.position.epoch}: {better} (patience)")
        if self.validation is not None and self.validation.advice:
            self.reporter.note(self.validation.advice)
        self.best.put_back()
        self.run.detector.eval()
        self.callbacks.call("end", self.measured)

    def _take_steps(self) -> bool:
        """The rest of an epoch; whether any process was asked to stop, which all know after the same step."""
        for group in self.run.groups():
            self.run.take_step(group)
            stopping = self._after_step(group)
            if self.run.done or stopping:
                return stopping
        return False

    def _after_step(self, group: list[LabelledBatch]) -> bool:
        """Log and save when it is time; whether to stop."""
        run, position = self.run, self.run.position
        self.metrics.count(sum(len(batch.indices) for batch in group) * run.processes.count)
        self.reporter.step(position.step, position.epoch + 1)
        if position.step % run.config.log_every == 0 or run.done:
            self.metrics.log_step()
        # Clocks and signals differ between processes, so they have to agree.
        due, stopping = map(bool, run.processes.largest(self.checkpoints.late, self.interrupt.wished))
        if due:
            self.checkpoints.save()
        self.callbacks.call("step", self.measured)
        return stopping

    def _end_epoch(self) -> None:
        """Validate, keep the best weights, save.

        Raises:
            KeyboardInterrupt: Ctrl-C while validating. All is saved but the epoch is not closed: it is validated anew.
        """
        try:
            self._close_epoch()
        except ValidationInterrupted:
            self._stop()

    def _close_epoch(self) -> None:
        began = time.monotonic()
        self.run.watch.look()
        position, every = self.run.position, self.run.config.validate_every
        due = self.run.done or (every > 0 and (position.epoch + 1) % every == 0)
        measured: dict[str, float] = {}
        with self.run.averaged():
            if self.validation is not None and due:
                measured = self.validation.measure()
            position.epoch, position.batch = position.epoch + 1, 0
            if self.validation is None or measured:
                self.best.offer(measured.get(self.run.config.best))
        self.metrics.log_epoch(measured, seconds=round(time.monotonic() - began, 2))
        self.checkpoints.save()
        self.measured = measured or self.measured
        with self.run.averaged():
            self.callbacks.call("epoch", self.measured)
        self.metrics.leave_out(time.monotonic() - began)  # images a second are of training alone

    def _stop(self) -> None:
        """Save and leave, as Ctrl-C or SIGTERM asked.

        Raises:
            KeyboardInterrupt: always.
        """
        self.checkpoints.save()
        raise self.interrupt.end()
