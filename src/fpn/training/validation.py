"""Measuring a detector in the middle of a run, shared out between its processes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fpn.data.dataset import Dataset
from fpn.errors import ConfigError
from fpn.evaluation.evaluate import find_objects, measure
from fpn.evaluation.found import Found
from fpn.evaluation.limits import LimitReport
from fpn.evaluation.tasks import TASKS, find_task
from fpn.suggestions import nearest
from fpn.training.interrupt import Interrupt
from fpn.training.run import Run


@dataclass(frozen=True)
class Metric:
    """One number of a validation.

    Attributes:
        name: as an `Evaluation` and `metrics.jsonl` call it.
        label: what an epoch's line on the screen calls it; None: it is not in that line.
        higher_is_better: false for what is to be small, such as an error.
    """

    name: str
    label: str | None = None
    higher_is_better: bool = True

    def is_better(self, value: float, than: float) -> bool:
        """Whether a value beats another one; equal ones do not."""
        return value > than if self.higher_is_better else value < than


# What an epoch's line on the screen calls metrics; the others are in `metrics.jsonl` alone.
_LABELS = {
    "ap": "AP",
    "ap50": "AP50",
    "ap_small": "small",
    "ap_medium": "medium",
    "ap_large": "large",
    "mask_ap": "masks AP",
    "segment_ar100": "segments AR@100",
    "keypoint_ap": "keypoints AP",
}

# Every task's; `best` may name each of them.
METRICS = tuple(Metric(name, _LABELS.get(name)) for task in TASKS.values() for name in task.metrics)


def find_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        ConfigError: there is none.
    """
    known = {metric.name: metric for metric in METRICS}
    if name not in known:
        raise ConfigError(f"best {name!r}: no such metric.{nearest(name, known)} Known: {', '.join(known)}.")
    return known[name]


def screen_labels(decides: Metric) -> dict[str, str]:
    """What an epoch's line on the screen calls which metric; the one that decides is always there."""
    labels = {metric.name: metric.label for metric in METRICS if metric.label is not None}
    return {**labels, decides.name: decides.label or decides.name}


class ValidationInterrupted(Exception):  # noqa: N818  no error: how a validation is left
    """Ctrl-C came while something was measured that can be measured again."""


class Validation:
    """Measures a run's detector on a dataset.

    Args:
        run: whose detector and processes.
        dataset: labelled images.
        interrupt: whether somebody wishes to stop.
        metric: one that has to be among what is measured: proposals cost a second pass through the network.

    Attributes:
        unreadable: path -> why, of images that were left out so far; in the first process.
    """

    def __init__(self, run: Run, dataset: Dataset, interrupt: Interrupt, metric: Metric) -> None:
        self._run = run
        self._dataset = dataset
        self._interrupt = interrupt
        self._proposals = find_task(metric.name).output == "proposals"
        self.unreadable: dict[str, str] = {}
        self._limit: LimitReport | None = None

    @property
    def advice(self) -> str:
        """What the latest measurement says of the detector's limit of detections; empty if nothing."""
        limit = self._limit
        if limit is None or not limit.reached or not limit.advice:
            return ""
        return f"warning: {limit.advice}. Allow more: --max-detections {limit.larger}"

    def measure(self) -> dict[str, float]:
        """What the detector as it is now reaches, by metric: each process detects in its part, the first measures.

        Raises:
            ValidationInterrupted: a process was asked to stop; all of them raise.
        """
        run, began = self._run, time.monotonic()
        parts = run.processes.collect(self._find())
        values: dict[str, float] | None = None
        whole = [part for part in parts if part is not None]
        if run.processes.first and len(whole) == run.processes.count:
            evaluation = measure(run.detector, self._dataset, whole, began=began)
            self.unreadable.update(evaluation.unreadable)
            values, self._limit = evaluation.metrics, evaluation.limit
        values = run.processes.from_first(values)
        if values is None:
            raise ValidationInterrupted
        return values

    def _find(self) -> Found | None:
        """This process's part, or None when it was asked to stop."""
        run = self._run
        for buffer in run.detector.buffers():  # each process has its own statistics where norms learn
            run.processes.copy_from_first(buffer)
        try:
            # float32 whatever the run's precision: `fpn evaluate` on the saved file then finds the same AP.
            return find_objects(
                run.detector,
                self._dataset,
                batch_size=run.config.batch_size,
                workers=run.config.workers,
                proposals=self._proposals,
                skip_unreadable=run.config.skip_unreadable,
                progress=self._leave_if_wished,
                part=(run.processes.rank, run.processes.count),
            )
        except ValidationInterrupted:
            return None

    def _leave_if_wished(self, _: int) -> None:
        if self._interrupt.wished:
            raise ValidationInterrupted
