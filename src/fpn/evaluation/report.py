"""What measuring a detector came to, as numbers, as JSON and as a table."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from rich.table import Table

from fpn.evaluation.bootstrap import Intervals
from fpn.evaluation.coco import CocoMetrics, KeypointMetrics, LimitMetrics, ProposalRecall, SegmentRecall
from fpn.evaluation.limits import LimitReport
from fpn.evaluation.tasks import TASKS, Figures
from fpn.files import write_figures, write_text
from fpn.spreadsheets import DETECTION_COLUMNS, beside, detection_row, write_csv
from fpn.wording import counted


@dataclass(frozen=True, kw_only=True)
class Evaluation(CocoMetrics):
    """COCO's numbers of a detector on a dataset; -1 where there was nothing to measure.

    Attributes:
        dataset: name of the dataset.
        images: how many were looked at.
        objects: how many counted.
        ignored: crowds and difficult objects, which neither count nor hurt.
        left_out: class that the detector does not know -> its objects, which are not among `objects`.
        limit: what the detector's limit of detections an image did, if it has one.
        seconds: wall time of reading, detecting and counting.
        detections: COCO result records, with the dataset's image and category ids.
        unreadable: path -> why, of images that could not be read and were left out.
        file_names: image id -> the image's path in the dataset's folder.
        masks: the same twelve numbers and classes, masks compared instead of boxes, if they were measured.
        segments: recall of class-free masks, if they were measured.
        keypoints: of the keypoints, if they were measured.
        proposals: recall of the class-free proposals, if it was asked for.
        intervals: of the boxes' AP, by drawing images with replacement, if they were asked for.
    """

    dataset: str
    images: int
    objects: int
    ignored: int
    seconds: float
    detections: list[dict[str, Any]]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    limit: LimitReport | None = None
    file_names: Mapping[int, str] = field(default_factory=dict)
    masks: CocoMetrics | None = None
    segments: SegmentRecall | None = None
    keypoints: KeypointMetrics | None = None
    proposals: ProposalRecall | None = None
    intervals: Intervals | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """All numbers by the names that tasks give them, such as "ap", "mask_ap50", "proposal_ar100"; "limit_ap" and so
        on with more than COCO's 100 detections an image, where the detector gives more."""
        found: dict[str, float] = {}
        for name, figures in self._measured().items():
            found |= TASKS[name].named(figures)
        if self.limit is not None and self.limit.figures is not None:
            found |= {f"limit_{name}": value for name, value in asdict(self.limit.figures).items()}
        return found

    def _measured(self) -> dict[str, Figures]:
        """The figures of each task that was measured."""
        others = {name: getattr(self, name) for name in TASKS if name != "boxes"}
        return {"boxes": self, **{name: figures for name, figures in others.items() if figures is not None}}

    def rows(self) -> list[dict[str, Any]]:
        """The figures as a table: for each task a row for all classes together, without a class, and one for each."""
        found: list[dict[str, Any]] = []
        for name, figures in self._measured().items():
            numbers = {metric: getattr(figures, metric) for metric in _metrics_of(figures)}
            about = {"objects": self.objects} if name == "boxes" else {}
            found.append({"task": name, "class": None, "category_id": None, **about, **_without_gaps(numbers)})
            for each in figures.per_class if isinstance(figures, CocoMetrics) else ():
                values = _without_gaps(asdict(each))
                found.append({"task": name, "class": values.pop("name"), **values})
        if self.limit is not None and self.limit.figures is not None:
            numbers = _without_gaps(asdict(self.limit.figures))
            found.append({"task": f"limit {self.limit.limit}", "class": None, **numbers})
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-able figures, without the detections; what was not measured is None."""
        about = {name: getattr(self, name) for name in ("dataset", "images", "objects", "ignored")}
        figures = {f.name: getattr(self, f.name) for f in fields(CocoMetrics) if f.name != "per_class"}
        found: dict[str, Any] = {"detections": len(self.detections), "seconds": round(self.seconds, 2)}
        found |= {"unreadable": dict(self.unreadable)} if self.unreadable else {}
        per_class = [_without_gaps(asdict(each)) for each in self.per_class]
        others = {name: getattr(self, name) for name in TASKS if name != "boxes"}
        tasks = {name: None if each is None else _json_of(each) for name, each in others.items()}
        more = {"left_out": dict(self.left_out), "limit": None if self.limit is None else _limit_json(self.limit)}
        # Only where they were asked for: what reads these files knows nothing of them otherwise.
        intervals = {} if self.intervals is None else {"intervals": self.intervals.to_dict()}
        return {**about, **more, **found, **_without_gaps(figures), "per_class": per_class, **tasks, **intervals}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_dict` as JSON, and `rows` as CSV beside it, each atomically.

        Raises:
            OutputError: a file can't be written.
        """
        write_figures(path, "fpn evaluate", self.to_dict())
        write_csv(beside(path), self.rows())
        return Path(path)

    def save_detections(self, path: str | os.PathLike[str]) -> Path:
        """Write the detections as a COCO results file, and as CSV beside it, each atomically.

        pycocotools takes the former (`COCO.loadRes`); each record says the image's file name, too.

        Raises:
            OutputError: a file can't be written.
        """
        names = {each.category_id: each.name for each in self.per_class}
        files = [self.file_names.get(each["image_id"], "") for each in self.detections]
        named = [{**each, "file_name": file} for each, file in zip(self.detections, files, strict=True)]
        write_text(path, json.dumps(named) + "\n")
        rows = (detection_row(each, each["file_name"], names[each["category_id"]]) for each in named)
        write_csv(beside(path), rows, DETECTION_COLUMNS)
        return Path(path)

    def table(self) -> Table:
        """The figures for a terminal of 80 columns or more; a dash where there was nothing to measure.

        AR@100 is the average recall with up to 100 detections an image, of which COCO's AP is, too.
        """
        table = Table(title=self._title(), title_justify="left", title_style="bold", header_style="bold")
        table.add_column("", overflow="fold", min_width=14)
        for heading in ("objects", "all", "IoU.50", "IoU.75", "small", "medium", "large"):
            table.add_column(heading, justify="right", no_wrap=True)
        values = (self.ap, self.ap50, self.ap75, self.ap_small, self.ap_medium, self.ap_large)
        table.add_row("AP", str(self.objects), *_figures(values), style="bold")
        for each in self.per_class:
            values = (each.ap, each.ap50, each.ap75, each.ap_small, each.ap_medium, each.ap_large)
            table.add_row(f"  {each.name}", str(each.objects), *_figures(values))
        table.add_section()
        table.add_row("AR@1", "", *_figures((self.ar1,)))
        table.add_row("AR@10", "", *_figures((self.ar10,)))
        by_size = (self.ar_small, self.ar_medium, self.ar_large)
        table.add_row("AR@100", "", *_figures((self.ar100,)), "", "", *_figures(by_size))
        if self.limit is not None and self.limit.figures is not None:
            _add_limit(table, self.limit.limit, self.limit.figures)
        if self.masks is not None:
            _add_masks(table, self.masks)
        if self.segments is not None:
            _add_recall(table, "segments", self.segments, (10, 100, 1000))
        if self.keypoints is not None:
            _add_keypoints(table, self.keypoints)
        if self.proposals is not None:
            _add_recall(table, "proposals", self.proposals, (100, 1000))
        return table

    def _title(self) -> str:
        ignored = f", {self.ignored} more ignored" if self.ignored else ""
        unread = f", {counted(len(self.unreadable), 'image')} could not be read" if self.unreadable else ""
        left = "".join(f"\nnot measured, as the model does not know it: {each}" for each in self._left_out())
        return (
            f"{self.dataset}: {counted(self.images, 'image')}, {counted(self.objects, 'object')}{ignored}{unread}{left}"
        )

    def _left_out(self) -> list[str]:
        return [f"{name} ({counted(count, 'object')})" for name, count in self.left_out.items() if count]


def _limit_json(report: LimitReport) -> dict[str, Any]:
    figures = None if report.figures is None else _without_gaps(asdict(report.figures))
    return {**asdict(report), "figures": figures}


def _metrics_of(figures: Figures) -> list[str]:
    kind = CocoMetrics if isinstance(figures, CocoMetrics) else type(figures)
    return [each.name for each in fields(kind) if each.name != "per_class"]


def _json_of(figures: Figures) -> dict[str, Any]:
    """A task's numbers, and its classes' if it has them."""
    found = _without_gaps(asdict(figures))
    if isinstance(figures, CocoMetrics):
        found["per_class"] = [_without_gaps(asdict(each)) for each in figures.per_class]
    return found


def _add_limit(table: Table, limit: int, metrics: LimitMetrics) -> None:
    values = (metrics.ap, metrics.ap50, metrics.ap75, metrics.ap_small, metrics.ap_medium, metrics.ap_large)
    table.add_row(f"AP@{limit}", "", *_figures(values))
    sizes = (metrics.ar_small, metrics.ar_medium, metrics.ar_large)
    table.add_row(f"AR@{limit}", "", *_figures((metrics.ar,)), "", "", *_figures(sizes))


def _add_masks(table: Table, metrics: CocoMetrics) -> None:
    table.add_section()
    values = (metrics.ap, metrics.ap50, metrics.ap75, metrics.ap_small, metrics.ap_medium, metrics.ap_large)
    table.add_row("mask AP", "", *_figures(values), style="bold")
    for each in metrics.per_class:
        values = (each.ap, each.ap50, each.ap75, each.ap_small, each.ap_medium, each.ap_large)
        table.add_row(f"  {each.name}", "", *_figures(values))


def _add_keypoints(table: Table, metrics: KeypointMetrics) -> None:
    table.add_section()
    values = (metrics.ap, metrics.ap50, metrics.ap75), (metrics.ap_medium, metrics.ap_large)
    table.add_row("keypoint AP", "", *_figures(values[0]), "", *_figures(values[1]), style="bold")
    values = (metrics.ar, metrics.ar50, metrics.ar75), (metrics.ar_medium, metrics.ar_large)
    table.add_row("keypoint AR", "", *_figures(values[0]), "", *_figures(values[1]))


def _add_recall(table: Table, what: str, recall: ProposalRecall | SegmentRecall, limits: tuple[int, ...]) -> None:
    table.add_section()
    for limit in limits:
        sizes = (getattr(recall, f"ar{limit}_{size}") for size in ("small", "medium", "large"))
        overall = getattr(recall, f"ar{limit}")
        table.add_row(f"{what} @{limit}", "", *_figures((overall,)), "", "", *_figures(sizes))


def _figures(values: Iterable[float]) -> list[str]:
    return ["-" if value < 0 else f"{value:.3f}" for value in values]


def _without_gaps(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and value < 0 else value for name, value in figures.items()}


def without_nan(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What has no value as None, which JSON and CSV can hold."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in figures.items()}
