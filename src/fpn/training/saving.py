"""When a run's state is saved, and how it is found again."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from fpn.errors import OutputError
from fpn.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from fpn.training.metrics_log import MetricsLog
from fpn.training.run import Run, capture, restore
from fpn.training.run_record import clear_left_overs


class Checkpoints:
    """Saves a run's state, and goes on from it.

    Args:
        run: whose state.
        folder: the run's folder, or None: nothing is saved.
        log: whose length belongs to the state.
    """

    def __init__(self, run: Run, folder: Path | None, log: MetricsLog) -> None:
        self._run = run
        self._folder = folder
        self._log = log
        # Only the first process writes; the states of the others are equal.
        self._writes = folder is not None and run.processes.first
        self._saved_step: int | None = None
        self._saved_at = time.monotonic()

    @property
    def late(self) -> bool:
        """Whether this process's clock says that it is time to save."""
        # Whether the state of a caller's optimizer can be kept shows after its first step, so let it show then.
        untried = self._saved_step == 0 and self._run.outside.get("optimizer") is not None
        return untried or time.monotonic() - self._saved_at > 60 * self._run.config.checkpoint_minutes

    def begin(self, *, resumed: bool) -> bool:
        """Go to the newest whole checkpoint, or write the first: a run killed at once begins with the same weights.

        Returns:
            Whether there was one to go on from.
        """
        checkpoint = read_checkpoint(self._folder) if resumed and self._folder is not None else None
        self._refuse_different(checkpoint)
        if checkpoint is None:
            self._log.cut(0)
            self.save()
            return False
        restore(self._run, checkpoint)
        self._saved_step = self._run.position.step
        self._log.cut(checkpoint.progress["log_bytes"])
        return True

    def save(self) -> None:
        """Write a checkpoint of where the run is; all processes take part.

        Raises:
            TrainingError: a loss since the last one is not finite.
            OutputError: no permission or no space.
        """
        run = self._run
        run.watch.look()
        if self._folder is not None:
            sums = None if run.meter.sum is None else run.meter.sum.cpu()
            meters = run.processes.collect(sums)
            if self._writes:
                write_checkpoint(self._folder, capture(run, self._log.length(), meters))
            self._saved_step = run.position.step
        self._saved_at = time.monotonic()

    def hint(self) -> str:
        """What is saved, and how to go on."""
        if self._folder is None or self._saved_step is None:
            return "nothing is saved"
        folder = str(self._folder)
        command = f"fpn.train(..., resume={folder!r})"
        if not any(self._run.outside.values()):
            command = f"fpn train --resume {shlex.quote(folder)}"
        return f"all is saved up to step {self._saved_step}; go on with: {command}"

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
