"""What can be measured of a detector: each task's COCO type, its metrics' names, and what it needs of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal, TypeAlias

from fpn.detectors.prediction import TaskName
from fpn.errors import ConfigError
from fpn.evaluation.coco import (
    CocoMetrics,
    IouType,
    KeypointMetrics,
    ProposalRecall,
    SegmentRecall,
    coco_metrics,
    keypoint_metrics,
    proposal_recall,
    segment_recall,
)
from fpn.suggestions import nearest

Figures: TypeAlias = CocoMetrics | KeypointMetrics | ProposalRecall | SegmentRecall


@dataclass(frozen=True, kw_only=True)
class Task:
    """One thing that can be measured of a detector.

    Attributes:
        name: key in `TASKS`, and what a detector lists in its `tasks` if it gives this.
        iou_type: what COCO compares: boxes ("bbox"), masks ("segm") or points ("keypoints").
        output: the detector's verb whose results are measured: "detect" or "proposals".
        labels: what an annotation of the truth must have: a key of a COCO record.
        prefix: what the names of its metrics begin with: no two tasks share a name.
        figures: the figures' class; each number of it is a metric.
        count: from a COCO json and results to figures. Results are COCO records; of proposals, boxes and scores by
            image id.
    """

    name: TaskName
    iou_type: IouType
    output: Literal["detect", "proposals"] = "detect"
    labels: str
    prefix: str
    figures: type[Figures]
    count: Callable[[Mapping[str, Any], Any], Figures]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of its metrics, the one that says most first. All are fractions, more is better."""
        return tuple(self.prefix + field.name for field in fields(self.figures) if field.name != "per_class")

    def with_sigmas(self, sigmas: Sequence[float]) -> Task:
        """The same task for objects whose points have these spreads; nothing changes where no points are compared."""
        if self.iou_type != "keypoints" or not sigmas:
            return self
        return replace(self, count=partial(keypoint_metrics, sigmas=sigmas))

    def named(self, figures: Figures) -> dict[str, float]:
        """Metric -> number, 0..1 or -1 where there was nothing to measure."""
        return {name: float(getattr(figures, name.removeprefix(self.prefix))) for name in self.metrics}


TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(name="boxes", iou_type="bbox", labels="bbox", prefix="", figures=CocoMetrics, count=coco_metrics),
        Task(
            name="masks",
            iou_type="segm",
            labels="segmentation",
            prefix="mask_",
            figures=CocoMetrics,
            count=partial(coco_metrics, iou_type="segm"),
        ),
        Task(
            name="segments",
            iou_type="segm",
            labels="segmentation",
            prefix="segment_",
            figures=SegmentRecall,
            count=segment_recall,
        ),
        Task(
            name="keypoints",
            iou_type="keypoints",
            labels="keypoints",
            prefix="keypoint_",
            figures=KeypointMetrics,
            count=keypoint_metrics,
        ),
        Task(
            name="proposals",
            iou_type="bbox",
            output="proposals",
            labels="bbox",
            prefix="proposal_",
            figures=ProposalRecall,
            count=proposal_recall,
        ),
    )
}


def find_task(metric: str) -> Task:
    """The task that a metric belongs to.

    Raises:
        ConfigError: no task has a metric of that name.
    """
    for task in TASKS.values():
        if metric in task.metrics:
            return task
    names = [name for task in TASKS.values() for name in task.metrics]
    raise ConfigError(f"metric {metric!r}: choose one of {', '.join(names)}.{nearest(metric, names)}")


def find_tasks(names: Iterable[str]) -> tuple[Task, ...]:
    """Tasks by name, in the order of `TASKS`, each once.

    Raises:
        ConfigError: there is no task of that name.
    """
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in TASKS:
            raise ConfigError(f"task {name!r}: choose from {', '.join(TASKS)}.{nearest(name, TASKS)}")
    return tuple(task for name, task in TASKS.items() if name in wanted)
