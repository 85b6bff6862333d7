"""All figures of a report as one JSON-able table; the network sees each image once, and once more for the budget."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpn.data.dataset import Dataset
from fpn.data.progress import no_bar
from fpn.detectors import Detector
from fpn.detectors.detector import count_parameters
from fpn.detectors.operating_point import USUAL_SCORE, middle_score
from fpn.errors import ConfigError, DataError
from fpn.evaluation import Goal, bootstrap_intervals, calibrate, evaluate, judge_thresholds, match_detections
from fpn.evaluation.bootstrap import alone
from fpn.evaluation.calibration import Chosen
from fpn.evaluation.evaluate import seen_by
from fpn.evaluation.known_truth import known_truth
from fpn.evaluation.matches import Matches
from fpn.evaluation.report import without_nan
from fpn.evaluation.unfinished import Unfinished
from fpn.inference.optimize import Precision, optimize
from fpn.studies.benchmark.machine import describe_machine
from fpn.studies.diagnosis.diagnosis import diagnose, find_tracer
from fpn.studies.diagnosis.diagnosis_tables import diagnosis_json, save_diagnosis
from fpn.studies.diagnosis.pairing import NOTHING
from fpn.studies.report.curves import class_curves, reliability
from fpn.studies.report.draft import Draft
from fpn.studies.report.label_errors import LabelError, find_label_errors
from fpn.studies.report.outcomes import ImageOutcome, confusion, found_by_size, judge_images
from fpn.studies.report.training_curves import read_curves
from fpn.training.data_facts import DataFacts
from fpn.training.run_record import LearnedImages, describe_data, learned_from
from fpn.version import __version__

if TYPE_CHECKING:
    from fpn.data.checks.inspection import CheckReport

BarMaker = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]

_RESAMPLES = 1000
_DETECTIONS, _FIGURES = "detections.json", "figures.json"
# Findings of each kind of a check that are kept with their words.
_ENTRIES = 20


def silent(what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """No progress is shown."""
    return no_bar(total)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a report is made; see `report`."""

    name: str
    run: Path | None
    batch_size: int
    workers: int | None
    precision: Precision
    skip_unreadable: bool
    budget: bool
    check: Callable[[], CheckReport] | None
    learned: LearnedImages | None = None
    bar: BarMaker = silent

    def key(self, detector: Detector, dataset: Dataset) -> dict[str, Any]:
        """What decides the figures."""
        thresholds = None if detector.thresholds is None else detector.thresholds.to_json()
        return {
            "fpn": __version__,
            "recipe": detector.recipe.to_json(),
            "weights": _digest(detector),
            "thresholds": thresholds,
            "data": describe_data(dataset),
            "settings": [self.batch_size, self.precision, self.skip_unreadable, str(detector.device)],
        }


@dataclass(frozen=True)
class Gathered:
    """A report before it is drawn.

    Attributes:
        figures: all numbers and words, JSON-able.
        dataset: the images that could be read.
        outcomes: of each.
        errors: labels that are likely wrong.
        worst: places in `outcomes`, most faults first.
    """

    figures: dict[str, Any]
    dataset: Dataset
    outcomes: Sequence[ImageOutcome]
    errors: Sequence[LabelError]
    worst: Sequence[int]


def gather(detector: Detector, dataset: Dataset, settings: Settings, draft: Draft) -> Gathered:
    """Measure a detector, look at what it does image by image, and trace what it misses.

    Raises:
        DataError, ConfigError, ImageError: as `fpn.evaluate`.
    """
    dataset = seen_by(detector, dataset)
    measured = draft.step("figures", partial(_measure, detector, dataset, settings, draft.folder))
    readable = [index for index in range(len(dataset)) if dataset.path(index) not in measured["unreadable"]]
    seen = dataset.subset(readable) if measured["unreadable"] else dataset
    truth = known_truth(detector.classes, seen).coco
    records = json.loads((draft.folder / _DETECTIONS).read_text(encoding="utf-8"))
    matches = match_detections(truth, records)
    point = operating_point(detector, matches, seen.name)
    outcomes = judge_images(seen, truth, records, point["thresholds"])
    names = list(matches.classes.names)
    errors = find_label_errors(outcomes, names)
    worst = _worst(outcomes, matches)
    figures = {
        "made_by": "fpn report",
        "version": __version__,
        "model": _model(detector, settings.name),
        "dataset": _data(seen, dataset, settings.learned or _learned(detector, dataset), measured),
        "figures": measured["figures"],
        "intervals": _intervals(matches, settings.bar),
        "operating_point": point,
        "curves": class_curves(matches),
        "confusion": {"classes": names, "table": confusion(outcomes, len(names))},
        "calibration": reliability(matches),
        "sizes": found_by_size(outcomes),
        "speed": measured["speed"],
        "budget": _budget(detector, dataset, point, settings, draft),
        "worst_images": [_image_entry(outcomes[place], names) for place in worst],
        "label_errors": [error.to_dict() for error in errors],
        "training": read_curves(settings.run),
        "check": _check(settings, draft),
    }
    return Gathered(figures, seen, outcomes, errors, worst)


def _measure(detector: Detector, dataset: Dataset, settings: Settings, folder: Path) -> dict[str, Any]:
    """Evaluate, and write what `fpn evaluate` would."""
    fast = optimize(detector, settings.precision)
    with Unfinished(folder / "found") as unfinished, settings.bar("detecting", len(dataset)) as progress:
        known = len(unfinished.known)
        found = evaluate(
            fast,
            dataset,
            batch_size=settings.batch_size,
            workers=settings.workers,
            skip_unreadable=settings.skip_unreadable,
            progress=progress,
            unfinished=unfinished,
        )
    found.save(folder / _FIGURES)
    found.save_detections(folder / _DETECTIONS)
    return {
        "figures": _portable(found.to_dict(), dataset),
        "unreadable": dict(found.unreadable),
        "speed": {
            "images": found.images - known,
            "seconds": found.seconds,
            "images_per_second": (found.images - known) / found.seconds,
            "batch_size": settings.batch_size,
            "network": str(fast.info),
            "machine": describe_machine(detector.device),
        },
    }


def _portable(figures: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """Without the place of the images on this machine: the page is passed on."""
    limit = figures["limit"]
    if limit is not None:
        limit["advice"] = limit["advice"].replace(f"{dataset.root}/", "")
    return figures


def _digest(detector: Detector) -> str:
    """Of the weights."""
    digest = hashlib.sha256()
    for name, tensor in detector.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def operating_point(detector: Detector, matches: Matches, dataset: str) -> dict[str, Any]:
    """From which score on detections of each class count, as `fpn predict` has it, and what that comes to.

    Beside it, the score of the best F1 on these images.
    """
    names, own = matches.classes.names, detector.thresholds
    if own is None:
        thresholds, how = dict.fromkeys(names, USUAL_SCORE), "usual"
    else:
        thresholds, how = {name: own.by_class(detector.classes)[name] for name in names}, "calibrated"
    classes, overall = judge_thresholds(matches, thresholds)
    try:
        best = calibrate(matches, Goal("f1"), dataset=dataset)
    except DataError:  # nothing is labelled, so nothing can be chosen
        best = None
    return {
        "how": how,
        "goal": None if own is None else own.goal,
        "chosen_on": None if own is None else {"dataset": own.dataset, "images": own.images},
        "thresholds": thresholds,
        "per_class": [_chosen(each) for each in classes],
        "overall": _chosen(overall),
        "best_f1": None if best is None else [_chosen(each) for each in best.classes],
        "best_f1_overall": None if best is None else _chosen(best.overall),
    }


def _chosen(each: Chosen) -> dict[str, Any]:
    return without_nan(asdict(each))


def _intervals(matches: Matches, bar: BarMaker) -> dict[str, Any] | None:
    """None: one image can't be drawn over again."""
    if len(matches) < 2:
        return None
    with bar("resampling", _RESAMPLES) as progress:
        found = bootstrap_intervals(matches, resamples=_RESAMPLES, progress=progress).to_dict()
    per_class = {name: _defined(each) for name, each in found.pop("per_class").items()}
    return {**_defined(found), "per_class": per_class}


def _defined(figures: Mapping[str, Any]) -> dict[str, Any]:
    """NaN, which JSON can't hold, as None."""
    return {
        name: [None if math.isnan(end) else end for end in value] if isinstance(value, list) else value
        for name, value in figures.items()
    }


def _budget(
    detector: Detector, dataset: Dataset, point: Mapping[str, Any], settings: Settings, draft: Draft
) -> dict[str, Any]:
    """What `fpn diagnose` says, at one score for all classes: the middle of those in use."""
    if not settings.budget:
        return {"found": False, "why": "it was not asked for (--no-budget)"}
    score = middle_score(point["thresholds"].values())
    try:
        find_tracer(detector, score)
    except ConfigError as error:
        return {"found": False, "why": str(error)}

    def trace() -> dict[str, Any]:
        keeping = Unfinished(draft.folder / f"traced-{score:.6f}")
        with keeping as unfinished, settings.bar("tracing", len(dataset)) as progress:
            found = diagnose(
                detector,
                dataset,
                threshold=score,
                batch_size=settings.batch_size,
                workers=settings.workers,
                skip_unreadable=settings.skip_unreadable,
                progress=progress,
                unfinished=unfinished,
            )
        save_diagnosis(found, draft.folder)
        left_out = {"made_by", "version", "misses", "alarms", "unreadable"}  # they are in diagnosis.json
        return {key: value for key, value in diagnosis_json(found).items() if key not in left_out}

    return {"found": True, "why": "", **draft.step(f"budget-{score:.6f}", trace)}


def _check(settings: Settings, draft: Draft) -> dict[str, Any]:
    """What `fpn check` finds in the whole dataset."""
    check = settings.check
    if check is None:
        return {"found": False, "why": "it was not asked for"}

    def look() -> dict[str, Any]:
        found = check().to_dict()
        for kind in found["findings"]:
            kind["entries"] = kind["entries"][:_ENTRIES]
        return dict(found)

    return {"found": True, "why": "", **draft.step("check", look)}


def _worst(outcomes: Sequence[ImageOutcome], matches: Matches) -> list[int]:
    """Images with faults, most first; of equal ones the one with the lower AP of its own."""
    places = {image_id: place for place, image_id in enumerate(matches.image_ids)}
    faulty = [place for place, each in enumerate(outcomes) if each.wrong or each.missed]

    def faults(place: int) -> tuple[int, float]:
        each = outcomes[place]
        ap = alone(matches, places[each.image_id])
        return -(each.wrong + len(each.missed)), ap if ap == ap else 1.0

    return sorted(faulty, key=faults)


def _image_entry(outcome: ImageOutcome, names: Sequence[str]) -> dict[str, Any]:
    missed = Counter(names[int(outcome.truth.labels[row])] for row in outcome.missed)
    said = zip(outcome.sure.labels.tolist(), outcome.matched, strict=True)
    wrong = Counter(names[label] for label, row in said if row == NOTHING)
    return {
        "image": outcome.path,
        "objects": len(outcome.real),
        "found": outcome.right,
        "missed": dict(missed),
        "wrong": dict(wrong),
    }


def _model(detector: Detector, name: str) -> dict[str, Any]:
    record = detector.training_record
    return {
        "name": name,
        "kind": detector.recipe.kind,
        "parameters": count_parameters(detector),
        "classes": list(detector.classes),
        "recipe": detector.recipe.to_json(),
        "trained": {key: record[key] for key in ("epoch", "step", "metrics") if key in record},
        "trained_on": {key: record.get("data", {}).get(key) for key in ("name", "images")},
        "config": record.get("config", {}),
        "plan": record.get("notes", {}).get("plan"),
    }


def _learned(detector: Detector, dataset: Dataset) -> LearnedImages | None:
    """What nobody told: whether the detector learned from the whole."""
    count = len(dataset)
    if not learned_from(detector.training_record, dataset):
        return None
    return LearnedImages(count, count, "Measure on images that it has not seen (--split).")


def _data(seen: Dataset, whole: Dataset, learned: LearnedImages | None, measured: Mapping[str, Any]) -> dict[str, Any]:
    """What is measured on; which objects it has, and how much of it the model learned from."""
    facts = DataFacts.of(seen)
    counts: Counter[int] = Counter()
    for index in range(len(seen)):
        targets = seen.targets(index)
        counts.update(targets.labels[~targets.ignore].tolist())
    return {
        "name": seen.name,
        "images": len(seen),
        "objects": facts.objects,
        "without_objects": facts.empty,
        "most_objects": facts.most,
        "in_words": str(facts),
        "classes": [
            {"class": name, "objects": counts[label], "share_of_images": facts.shares[name]}
            for label, name in enumerate(seen.classes)
        ],
        "unreadable": {_relative(path, whole): why for path, why in measured["unreadable"].items()},
        "dropped": len(whole.dropped),
        "learned_from_these": learned is not None and learned.images == learned.of,
        "learned_images": 0 if learned is None else learned.images,
        "learned": "" if learned is None else str(learned),
    }


def _relative(path: str, dataset: Dataset) -> str:
    return path.removeprefix(f"{dataset.root}/")
