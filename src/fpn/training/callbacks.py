"""What happens beside the steps: logging, checkpoints, validation, and keeping the best weights."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fpn.data.dataset import Dataset
from fpn.data.loading.batch import Batch
from fpn.detectors import save
from fpn.errors import OutputError
from fpn.evaluation.evaluate import Found, find_objects, measure
from fpn.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from fpn.training.interrupt import Interrupt
from fpn.training.metrics_log import MetricsLog
from fpn.training.progress import Reporter
from fpn.training.run import Run, capture, restore
from fpn.training.run_record import BEST, METRICS, clear_left_overs

# What an epoch's line tells of an `Evaluation`; "ap" decides which weights are best.
MEASURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100")

SHOWN = {"ap": "AP", "ap50": "AP50", "ap_small": "small", "ap_medium": "medium", "ap_large": "large"}


class StopWished(Exception):  # noqa: N818  no error: how a validation is left
    """Ctrl-C came while something was measured that can be measured again."""


class Keeper:
    """Keeps a run's books.

    Args:
        run: whose steps.
        folder: the run's folder, or None.
        record: what `run.json` says; goes into the model file too.
        validation: what to measure on, or None.
        reporter: who tells people.
        interrupt: whether they wish to stop.

    Attributes:
        stopping: any process was asked to stop; all know it after the same step.
    """

    def __init__(
        self,
        run: Run,
        folder: Path | None,
        record: Mapping[str, Any],
        *,
        validation: Dataset | None,
        reporter: Reporter,
        interrupt: Interrupt,
    ) -> None:
        self._run = run
        self._folder = folder
        self._record = record
        self._validation = validation
        self._reporter = reporter
        self._interrupt = interrupt
        self.stopping = False
        # Only the first process writes; the states of the others are equal.
        self._writes = folder is not None and run.processes.first
        self._metrics_log = MetricsLog(folder / METRICS if folder is not None and self._writes else None)
        self._best: dict[str, Tensor] | None = None
        self._images = self._saved_step = 0
        self._logged_at = self._saved_at = time.monotonic()

    @property
    def model(self) -> Path | None:
        """The model file to use."""
        return None if self._folder is None else self._folder / BEST

    def begin(self, *, resumed: bool) -> None:
        """Go to the newest whole checkpoint, or write the first: a run killed at once begins with the same weights."""
        if self._run.config.tensorboard:
            self._run.accelerator.init_trackers("tensorboard")
        checkpoint = read_checkpoint(self._folder) if resumed and self._folder is not None else None
        self._refuse_different(checkpoint)
        if checkpoint is None:
            self._metrics_log.cut(0)
            self._save()
        else:
            restore(self._run, checkpoint)
            self._saved_step = self._run.position.step
            self._metrics_log.cut(checkpoint.progress["log_bytes"])
            self._reporter.note(f"going on after step {self._run.position.step}")

    def _refuse_different(self, checkpoint: Checkpoint | None) -> None:
        """All processes have to go on from the same step; nobody writes the next checkpoint before all have read."""
        steps = self._run.processes.collect(None if checkpoint is None else checkpoint.progress["step"])
        if any(step != steps[0] for step in steps):
            raise OutputError(
                f"{self._folder}: the processes find checkpoints of the steps {steps}. Put the run's folder where all "
                "machines see the same one."
            )
        if self._writes and self._folder is not None:
            clear_left_overs(self._folder)

    def after_step(self, group: list[Batch]) -> None:
        """Log and save when it is time; see whether somebody wishes to stop."""
        run, position = self._run, self._run.position
        self._images += sum(len(batch.indices) for batch in group) * run.processes.count
        self._reporter.step(position.step, position.epoch + 1)
        if position.step % run.config.log_every == 0 or run.done:
            self._log()
        # Clocks and signals differ between processes, so they have to agree.
        late = time.monotonic() - self._saved_at > 60 * run.config.checkpoint_minutes
        due, self.stopping = map(bool, run.processes.largest(late, self._interrupt.wished))
        if due:
            self._save()

    def after_epoch(self) -> None:
        """Validate, keep the best weights, save.

        Raises:
            KeyboardInterrupt: Ctrl-C while validating. All is saved but the epoch is not closed: it is validated anew.
        """
        try:
            self._close_epoch()
        except StopWished:
            self.stop()

    def _close_epoch(self) -> None:
        began = time.monotonic()
        self._run.watch.look()
        position, every = self._run.position, self._run.config.validate_every
        due = self._run.done or (every > 0 and (position.epoch + 1) % every == 0)
        figures: dict[str, float] = {}
        with self._averaged():
            if self._validation is not None and due:
                figures = self._measure(self._validation)
            position.epoch, position.batch = position.epoch + 1, 0
            if self._validation is None or figures:
                self._keep_best(figures.get("ap"))
        self._tell_epoch(figures, round(time.monotonic() - began, 2))
        self._save()
        self._logged_at += time.monotonic() - began  # images a second are of training alone

    def stop(self) -> None:
        """Save and leave, as Ctrl-C asked.

        Raises:
            KeyboardInterrupt: always.
        """
        self._save()
        raise KeyboardInterrupt

    def say_how_to_go_on(self) -> None:
        """What to know after Ctrl-C."""
        hint = "nothing is saved"
        if self._folder is not None:
            folder = shlex.quote(str(self._folder))
            hint = f"all is saved up to step {self._saved_step}; go on with: fpn train --resume {folder}"
        self._reporter.note(f"stopped after step {self._run.position.step}; {hint}")

    def put_best_weights(self) -> None:
        """Leave the best weights in the detector."""
        if self._best is None and self.model is not None and self.model.exists():
            self._best = load_file(self.model)
        if self._best is not None:
            self._run.detector.load_state_dict(self._best)

    def _log(self) -> None:
        run = self._run
        run.watch.look()
        means = run.meter.read(lambda mean: run.accelerator.reduce(mean, "mean"))
        now = time.monotonic()
        speed = self._images / max(now - self._logged_at, 1e-9)
        self._images, self._logged_at = 0, now
        line = {
            "kind": "step",
            "step": run.position.step,
            "epoch": run.position.epoch + 1,
            "learning_rate": run.schedule.rate(run.position.step - 1),
            **means,
            "images_per_second": round(speed, 2),
        }
        self._metrics_log.write(line)
        self._track(line)
        self._reporter.values({name: means[name] for name in ("loss", *run.meter.terms)}, speed)

    def _measure(self, validation: Dataset) -> dict[str, float]:
        """What the detector as it is now reaches: each process detects in its part, the first measures."""
        run, began = self._run, time.monotonic()
        parts = run.processes.collect(self._find(validation))
        figures: dict[str, float] | None = None
        whole = [part for part in parts if part is not None]
        if run.processes.first and len(whole) == run.processes.count:
            measured = measure(run.detector, validation, whole, began=began)
            figures = {name: float(getattr(measured, name)) for name in MEASURES}
        figures = run.processes.from_first(figures)
        if figures is None:
            raise StopWished
        return figures

    def _find(self, validation: Dataset) -> Found | None:
        """This process's part, or None when it was asked to stop."""
        run = self._run
        for buffer in run.detector.buffers():  # each process has its own statistics where norms learn
            run.processes.copy_from_first(buffer)
        try:
            # float32 whatever the run's precision: `fpn evaluate` on the saved file then finds the same AP.
            return find_objects(
                run.detector,
                validation,
                batch_size=run.config.batch_size,
                workers=run.config.workers,
                progress=self._leave_if_wished,
                part=(run.processes.rank, run.processes.count),
            )
        except StopWished:
            return None

    def _leave_if_wished(self, _: int) -> None:
        if self._interrupt.wished:
            raise StopWished

    def _tell_epoch(self, figures: Mapping[str, float], seconds: float) -> None:
        position = self._run.position
        line = {"kind": "epoch", "step": position.step, "epoch": position.epoch, **figures}
        self._metrics_log.write({**line, "seconds": seconds})
        self._track(line)
        if figures:
            told = "  ".join(f"{SHOWN[name]} {_figure(figures[name])}" for name in SHOWN)
            self._reporter.note(f"epoch {position.epoch}/{self._run.epochs}  {told}  measured in {seconds:.0f} s")

    def _keep_best(self, ap: float | None) -> None:
        position = self._run.position
        if ap is not None and position.best_ap is not None and not ap > position.best_ap:
            return
        position.best_ap, position.best_epoch = ap, position.epoch
        self._best = {name: tensor.detach().cpu().clone() for name, tensor in self._run.detector.state_dict().items()}
        if self._writes:
            self._write_model()

    def _write_model(self) -> None:
        position, detector = self._run.position, self._run.detector
        assert self.model is not None, "only asked where there is a folder"
        detector.training_record = {**self._record, "step": position.step, "epoch": position.epoch}
        if position.best_ap is not None:
            detector.training_record["ap"] = position.best_ap
        try:
            save(detector, self.model)
        except SafetensorError as error:  # how safetensors says that the disk is full
            raise OutputError(
                f"{self.model}: writing failed ({error}). The last checkpoint is intact: free some space, then go on "
                f"with --resume {self._folder}."
            ) from error

    def _save(self) -> None:
        run = self._run
        run.watch.look()
        if self._folder is not None:
            sums = None if run.meter.sum is None else run.meter.sum.cpu()
            meters = run.processes.collect(sums)
            if self._writes:
                write_checkpoint(self._folder, capture(run, self._metrics_log.length(), meters))
            self._saved_step = run.position.step
        self._saved_at = time.monotonic()

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self._run.average is None else self._run.average.applied()

    def _track(self, line: Mapping[str, Any]) -> None:
        if self._run.config.tensorboard:
            kind = line["kind"]
            values = {f"{kind}/{name}": value for name, value in line.items() if name not in ("kind", "step")}
            self._run.accelerator.log(values, step=line["step"])


def _figure(value: float) -> str:
    """COCO says -1 where there is no object of that size."""
    return "-" if value < 0 else f"{value:.3f}"
