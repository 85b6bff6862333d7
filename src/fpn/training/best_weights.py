"""Keeping the weights of the best epoch, in memory and as the model file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fpn.detectors import save
from fpn.errors import OutputError
from fpn.training.run import Run
from fpn.training.validation import Metric


class BestWeights:
    """The best weights of a run so far.

    Args:
        run: whose detector.
        metric: what says which are best.
        path: the model file, or None.
        record: what `run.json` says; goes into the model file too.
    """

    def __init__(self, run: Run, metric: Metric, path: Path | None, record: Mapping[str, Any]) -> None:
        self._run = run
        self.metric = metric
        self._path = path
        self._record = record
        self._weights: dict[str, Tensor] | None = None

    def offer(self, value: float | None) -> None:
        """Keep the detector's weights if they are the best.

        Args:
            value: the metric's; None: without a validation the latest are best.

        Raises:
            OutputError: the model file can't be written.
        """
        position = self._run.position
        best = position.best_value
        if value is not None and best is not None and not self.metric.is_better(value, best):
            return
        position.best_value, position.best_epoch = value, position.epoch
        self._weights = {
            name: tensor.detach().cpu().clone() for name, tensor in self._run.detector.state_dict().items()
        }
        if self._path is not None and self._run.processes.first:
            self._write(self._path)

    def put_back(self) -> None:
        """Leave the best weights in the detector."""
        if self._weights is None and self._path is not None and self._path.exists():
            self._weights = load_file(self._path)
        if self._weights is not None:
            self._run.detector.load_state_dict(self._weights)

    def _write(self, path: Path) -> None:
        position, detector = self._run.position, self._run.detector
        detector.training_record = {**self._record, "step": position.step, "epoch": position.epoch}
        if position.best_value is not None:
            detector.training_record[self.metric.name] = position.best_value
        try:
            save(detector, path)
        except SafetensorError as error:  # how safetensors says that the disk is full
            raise OutputError(
                f"{path}: writing failed ({error}). The last checkpoint is intact: free some space, then go on "
                f"with --resume {path.parent}."
            ) from error
