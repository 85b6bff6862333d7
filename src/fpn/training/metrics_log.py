"""`metrics.jsonl`: one JSON object a log interval, one an epoch; trackers and the screen get the same."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpn.errors import OutputError
from fpn.training.progress import Reporter
from fpn.training.run import Run
from fpn.training.trackers import Trackers


class MetricsLog:
    """Appends lines to a file; remembers how long it was at a checkpoint, so that a resumed run repeats no line.

    Args:
        path: the file, or None to write nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one line, at once, so that `tail -f` and a crash both see it.

        Raises:
            OutputError: no space or no permission.
        """
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OutputError(
                f"{self._path}: writing failed ({error.strerror}). The last checkpoint is intact: "
                f"free some space, then go on with --resume {self._path.parent}."
            ) from error

    def length(self) -> int:
        """Bytes written so far, all of them on the disk."""
        if self._path is None or not self._path.exists():
            return 0
        with self._path.open("rb+") as stream:
            os.fsync(stream.fileno())
        return self._path.stat().st_size

    def cut(self, length: int) -> None:
        """Drop what was written after the checkpoint that a run goes on from."""
        if self._path is not None and self._path.exists():
            os.truncate(self._path, min(length, self._path.stat().st_size))


class MetricsRecorder:
    """Writes a run's losses and metrics to its log, its trackers and the screen.

    Args:
        run: whose losses.
        log: `metrics.jsonl`.
        trackers: get the same lines.
        reporter: tells people.
        labels: what an epoch's line on the screen calls which metric.
    """

    def __init__(
        self, run: Run, log: MetricsLog, *, trackers: Trackers, reporter: Reporter, labels: Mapping[str, str]
    ) -> None:
        self._run = run
        self._log = log
        self._trackers = trackers
        self._reporter = reporter
        self._labels = labels
        self._images = 0
        self._logged_at = time.monotonic()

    def begin(self) -> None:
        """Start the trackers."""
        self._trackers.start(self._run.config.model_dump(mode="json"))

    def count(self, images: int) -> None:
        """So many images went by, in all processes."""
        self._images += images

    def leave_out(self, seconds: float) -> None:
        """A time in which nothing was trained."""
        self._logged_at += seconds

    def log_step(self) -> None:
        """One line: means of the log interval that ends. All processes take part.

        Raises:
            TrainingError: a loss in it is not finite.
        """
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
        self._log.write(line)
        self._trackers.write(line)
        self._reporter.values({name: means[name] for name in ("loss", *run.meter.terms)}, speed)

    def log_epoch(self, measured: Mapping[str, float], *, seconds: float) -> None:
        """One line for an epoch.

        Args:
            measured: by metric; empty where nothing was measured.
            seconds: how long it took.
        """
        position = self._run.position
        line = {"kind": "epoch", "step": position.step, "epoch": position.epoch, **measured}
        self._log.write({**line, "seconds": seconds})
        self._trackers.write(line)
        if measured:
            shown = {label: measured[name] for name, label in self._labels.items() if name in measured}
            told = "  ".join(f"{label} {_figure(value)}" for label, value in shown.items())
            self._reporter.note(f"epoch {position.epoch}/{self._run.epochs}  {told}  measured in {seconds:.0f} s")


def _figure(value: float) -> str:
    """COCO says -1 where there is no object of that size."""
    return "-" if value < 0 else f"{value:.3f}"
