"""`diagnose`: every missed object traced to the stage that lost it, every false alarm to its kind, on a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from fpn.data.dataset import Dataset
from fpn.detectors import Detector, OneStageDetector, TwoStageDetector
from fpn.detectors.prediction import detecting, enter
from fpn.errors import ConfigError, DataError
from fpn.evaluation.batches import read_batches
from fpn.evaluation.coco import CocoMetrics
from fpn.evaluation.evaluate import seen_by
from fpn.evaluation.known_truth import KnownTruth, known_truth
from fpn.evaluation.unfinished import KeptImage, Unfinished
from fpn.heads.box import BoxHead
from fpn.heads.dense_towers import TowerHead
from fpn.preprocessing.frame import Frame
from fpn.preprocessing.preprocessor import Prepared
from fpn.structures import Detections, Targets
from fpn.studies.diagnosis.budget import BudgetLine, coco_rows, gains, measure_rows, only_level, size_name, with_points
from fpn.studies.diagnosis.cascade import CascadeTracer
from fpn.studies.diagnosis.false_alarms import FALSE_KINDS, MISSED, Alarm, sort_alarms, without_fault
from fpn.studies.diagnosis.one_stage import OneStageTracer
from fpn.studies.diagnosis.stages import ImageTrace, LostObject, Mark, Stage, Tracer
from fpn.studies.diagnosis.two_stage import TwoStageTracer
from fpn.studies.diagnosis.unfinished_traces import pack_trace, unpack_trace


@dataclass(frozen=True)
class Miss:
    """A lost object and where it is: `index` of its image in the dataset, its path and id, and the object's area.

    `lost` has its marks in pixels of the original image.
    """

    index: int
    path: str
    image_id: int
    class_name: str
    area: float
    lost: LostObject


@dataclass(frozen=True)
class FalseAlarm:
    """A detection that found no object: image, class, score, kind, box xyxy in original pixels, level of its size."""

    path: str
    image_id: int
    class_name: str
    score: float
    kind: str
    box: tuple[float, float, float, float]
    area: float
    level: str


@dataclass(frozen=True)
class Diagnosis:
    """What a detector loses and finds in vain on a dataset.

    Attributes:
        dataset: its name.
        classes: of the detector, that the dataset labels, too.
        threshold: scores from here on count, also in AP.
        images, objects: measured; objects that are to be ignored are not counted.
        per_class, per_level: objects of each.
        now: COCO's figures of detections that reach the threshold.
        stages: in the order in which an image passes.
        kinds: of false alarms, and what they leave of the misses.
        misses, alarms: one by one.
        unreadable: path -> why, of images that were left out.
    """

    dataset: str
    classes: tuple[str, ...]
    threshold: float
    images: int
    objects: int
    per_class: Mapping[str, int]
    per_level: Mapping[str, int]
    now: CocoMetrics
    stages: tuple[BudgetLine, ...]
    kinds: tuple[BudgetLine, ...]
    misses: tuple[Miss, ...]
    alarms: tuple[FalseAlarm, ...]
    unreadable: Mapping[str, str]


def find_tracer(detector: Detector, threshold: float) -> Tracer:
    """What follows objects through this kind of detector.

    Raises:
        ConfigError: nothing does.
    """
    if isinstance(detector, TwoStageDetector) and isinstance(detector.roi_heads.box, BoxHead):
        return TwoStageTracer(detector, threshold)
    if isinstance(detector, TwoStageDetector):
        return CascadeTracer(detector, threshold)
    if isinstance(detector, OneStageDetector) and isinstance(detector.head, TowerHead):
        return OneStageTracer(detector, detector.head, threshold)
    kind = detector.recipe.kind
    raise ConfigError(
        f"a {kind} can't be diagnosed yet: detectors of boxes can. fpn report shows its worst images, what it takes "
        "for what, and labels that look wrong"
    )


def diagnose(
    detector: Detector,
    dataset: Dataset,
    *,
    threshold: float = 0.5,
    batch_size: int = 4,
    workers: int | None = None,
    skip_unreadable: bool = False,
    progress: Callable[[int], None] | None = None,
    unfinished: Unfinished | None = None,
) -> Diagnosis:
    """Trace what a detector misses in a dataset, and what it finds in vain.

    Args:
        detector: a two-stage one, where it is.
        dataset: labelled images.
        threshold: an object is found by a detection of its class with this score or more and an IoU of 0.5.
        batch_size: images that go through the network together.
        workers: processes that read ahead; see `fpn.evaluate`.
        skip_unreadable: leave out images that can't be read, and name them.
        progress: called with the number of images done after each batch.
        unfinished: keeps what became of each image, and has what an earlier call traced that was stopped.

    Raises:
        ConfigError: the threshold is not in 0..1, another kind of detector, or no class in common.
        DataError: no image (can be read).
        ImageError, DataNotFoundError: an image can't be read.
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold {threshold:g}: a score from 0 to 1")
    tracer = find_tracer(detector, threshold)
    if len(dataset) == 0:
        raise DataError(f"{dataset.name}: has no images to diagnose")
    dataset = seen_by(detector, dataset)
    gathered = _Gathered(detector, dataset, known_truth(detector.classes, dataset), tracer)
    unreadable: dict[int, str] | None = {} if skip_unreadable else None
    for number, finding in ({} if unfinished is None else unfinished.known).items():
        frame, trace = unpack_trace(finding)
        gathered.add(number, frame, _into_network(gathered.truth(number), frame), trace)
    for numbers, prepared in read_batches(
        dataset,
        detector.preprocessor,
        batch_size=batch_size,
        workers=workers,
        unreadable=unreadable,
        known=tuple(gathered.rows),
    ):
        images = enter(detector, prepared)
        truths = [gathered.truth(number) for number in numbers]
        seen = [_into_network(truth, each.frame) for truth, each in zip(truths, prepared, strict=True)]
        with detecting(detector):
            traces = tracer.trace(images, [each.to(detector.device) for each in seen])
        for number, each, truth, trace in zip(numbers, prepared, seen, traces, strict=True):
            if number not in gathered.rows:
                gathered.add(number, each.frame, truth, trace)
        if unfinished is not None:
            unfinished.keep(numbers, _packing(numbers, prepared, traces))
        if progress is not None:
            progress(len(gathered.rows) + len(unreadable or ()))
    return gathered.sum_up(threshold, unreadable or {})


def _packing(
    numbers: Sequence[int], prepared: Sequence[Prepared], traces: Sequence[ImageTrace]
) -> Callable[[int], KeptImage]:
    gone = {number: (each.frame, trace) for number, each, trace in zip(numbers, prepared, traces, strict=True)}
    return lambda number: pack_trace(*gone[number])


def _into_network(truth: Targets, frame: Frame) -> Targets:
    return Targets(frame.to_network(truth.boxes), truth.labels, truth.ignore)


@dataclass
class _Gathered:
    """What came so far. Rows are COCO's, by image number; a stage or kind has rows only where it changes something."""

    detector: Detector
    dataset: Dataset
    known: KnownTruth
    tracer: Tracer
    rows: dict[int, np.ndarray] = field(default_factory=dict)
    changed: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)
    misses: list[Miss] = field(default_factory=list)
    alarms: list[FalseAlarm] = field(default_factory=list)
    unnoticed: dict[int, set[int]] = field(default_factory=dict)
    per_class: Counter[str] = field(default_factory=Counter)
    levels: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def truth(self, number: int) -> Targets:
        """An image's objects of classes that the detector knows, with its labels, original pixels."""
        truth, names = self.dataset.targets(number), self.detector.classes.names
        labels = [names.index(name) if name in names else -1 for name in self.dataset.classes.names]
        renamed = torch.tensor(labels, dtype=torch.int64)[truth.labels]
        return Targets(truth.boxes, renamed, truth.ignore)[renamed >= 0]

    def areas(self, number: int) -> list[float]:
        """Of the same objects, as COCO counts sizes."""
        ids = set(self.known.category_ids.values())
        return [each["area"] for each in self.dataset.annotations(number) if each["category_id"] in ids]

    def add(self, number: int, frame: Frame, truth: Targets, trace: ImageTrace) -> None:
        """Take one image; `truth` is in network pixels, as its trace is."""
        self.rows[number] = self._rows(number, trace.found, frame)
        for stage, repaired in trace.repaired.items():
            self.changed.setdefault(stage, {})[number] = self._rows(number, repaired, frame)
        areas, path, image_id = self.areas(number), self.dataset.path(number), self.dataset.image_id(number)
        for lost in trace.lost:
            name = self.detector.classes.names[lost.label]
            self.misses.append(Miss(number, path, image_id, name, areas[lost.row], _back(lost, frame)))
        real = truth[~truth.ignore]
        self.per_class.update(self.detector.classes.names[label] for label in real.labels.tolist())
        self.levels[number] = trace.levels
        self._add_alarms(number, frame, truth, trace)

    def _add_alarms(self, number: int, frame: Frame, truth: Targets, trace: ImageTrace) -> None:
        known = self._is_known(trace.found.labels)
        found, matched = trace.found.to("cpu")[known], trace.matched[known]
        levels = [level for level, mine in zip(trace.found_levels, known.tolist(), strict=True) if mine]
        alarms = sort_alarms(found, matched, truth)
        for kind in {alarm.kind for alarm in alarms}:
            fixed = without_fault(found, matched, truth, alarms, kind)
            self.changed.setdefault(kind, {})[number] = self._rows(number, fixed, frame)
        for alarm in alarms:
            self.alarms.append(self._alarm(number, frame, found, alarm, levels[alarm.number]))
        noticed = {alarm.row for alarm in alarms if alarm.kind in ("classification", "localisation")}
        if missed := {lost.row for lost in trace.lost} - noticed:
            self.unnoticed[number] = missed

    def _alarm(self, number: int, frame: Frame, found: Detections, alarm: Alarm, level: str) -> FalseAlarm:
        x1, y1, x2, y2 = frame.to_original(found.boxes[alarm.number][None])[0].tolist()
        name = self.detector.classes.names[int(found.labels[alarm.number])]
        path, image_id, area = self.dataset.path(number), self.dataset.image_id(number), (x2 - x1) * (y2 - y1)
        score = float(found.scores[alarm.number])
        return FalseAlarm(path, image_id, name, score, alarm.kind, (x1, y1, x2, y2), area, level)

    def _is_known(self, labels: torch.Tensor) -> torch.Tensor:
        """Of classes that the dataset labels: what is found of others is neither right nor wrong."""
        return torch.tensor([label in self.known.category_ids for label in labels.tolist()], dtype=torch.bool)

    def _rows(self, number: int, found: Detections, frame: Frame) -> np.ndarray:
        restored = self.detector.preprocessor.restore(found.to("cpu"), frame)
        return coco_rows(self.dataset.image_id(number), restored, self.known.category_ids)

    def sum_up(self, threshold: float, unreadable: Mapping[int, str]) -> Diagnosis:
        """The whole."""
        dataset, known = self.dataset, self.known
        if not self.rows:
            raise DataError(f"{dataset.name}: none of its {len(dataset)} images can be read")
        if unreadable:
            dataset = dataset.subset(sorted(self.rows))
            known = known_truth(self.detector.classes, dataset)
        now = measure_rows(known.coco, list(self.rows.values()))
        lines = _Lines(self, known.coco, now)
        return Diagnosis(
            dataset=dataset.name,
            classes=tuple(self.detector.classes.names[label] for label in sorted(known.category_ids)),
            threshold=threshold,
            images=len(self.rows),
            objects=sum(self.per_class.values()),
            per_class=dict(self.per_class),
            per_level=dict(sorted(Counter(level for each in self.levels.values() for level in each).items())),
            now=now,
            stages=tuple(lines.stage(stage) for stage in self.tracer.stages),
            kinds=(*(lines.kind(kind) for kind in FALSE_KINDS), lines.missed()),
            misses=tuple(self.misses),
            alarms=tuple(self.alarms),
            unreadable={self.dataset.path(number): why for number, why in unreadable.items()},
        )


def _back(lost: LostObject, frame: Frame) -> LostObject:
    marks = []
    for mark in lost.marks:
        x1, y1, x2, y2 = frame.to_original(torch.tensor([mark.box]))[0].tolist()
        marks.append(Mark(mark.what, (x1, y1, x2, y2), mark.text))
    return replace(lost, marks=tuple(marks))


class _Lines:
    """Makes the lines of the budget."""

    def __init__(self, gathered: _Gathered, truth: Mapping[str, Any], now: CocoMetrics) -> None:
        self.gathered, self.truth, self.now = gathered, truth, now
        self.levels = self._levels_by_id()
        self._now_of_level: dict[str, CocoMetrics] = {}

    def stage(self, stage: Stage) -> BudgetLine:
        mine = [miss for miss in self.gathered.misses if miss.lost.stage == stage.name]
        values = [miss.lost.value for miss in mine if miss.lost.value is not None]
        whole = len(self.gathered.misses)
        return self._line(stage, list(map(_Group.of_miss, mine)), whole, values)

    def kind(self, kind: Stage) -> BudgetLine:
        mine = [_Group.of_alarm(alarm) for alarm in self.gathered.alarms if alarm.kind == kind.name]
        return self._line(kind, mine, len(self.gathered.alarms), [])

    def missed(self) -> BudgetLine:
        """What no false alarm is about: the objects do not count."""
        unnoticed = self.gathered.unnoticed
        mine = [miss for miss in self.gathered.misses if miss.lost.row in unnoticed.get(miss.index, ())]
        truth = {**self.truth, "annotations": list(self._noticed())} if mine else self.truth
        return self._line(MISSED, list(map(_Group.of_miss, mine)), len(self.gathered.misses), [], truth)

    def _noticed(self) -> Iterable[Mapping[str, Any]]:
        """The truth's records without those of objects that nothing was about."""
        left = self.gathered.unnoticed
        return (record for number, row, record in self._records() if row not in left.get(number, ()))

    def _records(self) -> Iterable[tuple[int, int, Mapping[str, Any]]]:
        """The truth's records with their image's number and their row in it, in whose order they are."""
        rows: Counter[int] = Counter()
        numbers = {self.gathered.dataset.image_id(number): number for number in self.gathered.rows}
        for record in self.truth["annotations"]:
            number = numbers[record["image_id"]]
            yield number, rows[number], record
            rows[number] += 1

    def _levels_by_id(self) -> dict[int, str]:
        """Level of the size of each object that counts, by its record's id."""
        remaining = {number: iter(levels) for number, levels in self.gathered.levels.items()}
        return {record["id"]: next(remaining[number]) for number, _, record in self._records() if not record["iscrowd"]}

    def _line(
        self,
        stage: Stage,
        mine: list[_Group],
        whole: int,
        values: list[float],
        truth: Mapping[str, Any] | None = None,
    ) -> BudgetLine:
        changed = self.gathered.changed.get(stage.name, {})
        truth = self.truth if truth is None else truth
        rows = list({**self.gathered.rows, **changed}.values())
        same = not changed and truth is self.truth
        gained = gains(self.now, self.now if same else measure_rows(truth, rows))
        levels = Counter(each.level for each in mine)
        return BudgetLine(
            name=stage.name,
            title=stage.title,
            meaning=stage.meaning,
            repair=stage.repair,
            count=len(mine),
            share=len(mine) / whole if whole else 0.0,
            points=gained["points"],
            points50=gained["points50"],
            remedy=self.gathered.tracer.remedy(stage.name, values) if mine else "",
            by_class=with_points(Counter(each.class_name for each in mine), gained["by_class"]),
            by_size=with_points(Counter(size_name(each.area) for each in mine), gained["by_size"]),
            by_level={name: (levels[name], self._points_of(name, truth, rows)) for name in sorted(levels)},
        )

    def _points_of(self, level: str, truth: Mapping[str, Any], rows: list[np.ndarray]) -> float:
        """Points of the level's own AP."""
        if level not in self._now_of_level:
            own = only_level(self.truth, self.levels, level)
            self._now_of_level[level] = measure_rows(own, list(self.gathered.rows.values()))
        then = measure_rows(only_level(truth, self.levels, level), rows)
        return float(gains(self._now_of_level[level], then)["points"])


@dataclass(frozen=True)
class _Group:
    """What a miss or a false alarm is counted by."""

    class_name: str
    area: float
    level: str

    @classmethod
    def of_miss(cls, miss: Miss) -> _Group:
        return cls(miss.class_name, miss.area, miss.lost.level)

    @classmethod
    def of_alarm(cls, alarm: FalseAlarm) -> _Group:
        return cls(alarm.class_name, alarm.area, alarm.level)
