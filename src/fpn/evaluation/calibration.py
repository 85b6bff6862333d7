"""Where to put the threshold: each class's score for a wanted precision, recall, F1, or for a bound that holds.

A threshold lies half-way between two scores, so that rounding, of which other processors do a little more or less,
changes nothing. All figures are of detections that overlap an object of their class by half (IoU 0.5) or more.

The bounds hold for one more image of the same kind, whatever the detector and the images are, as an image's loss lies
within 0..B and can only grow with the threshold (or only fall). The highest (lowest) threshold is taken for which

- surely, with a probability of 1 - d over calibrations: betting that the mean loss is above the level would have lost
  all but the share d of its stake (Waudby-Smith and Ramdas; Bates et al. 2021, arXiv:2101.02703, proposition 5);
- on average over calibrations: n / (n + 1) * mean loss + B / (n + 1) <= level, for n images (conformal risk control,
  Angelopoulos et al. 2022, arXiv:2208.02814). That needs fewer images, and many single calibrations miss more.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float64
from rich.table import Table

from fpn.errors import ConfigError, DataError
from fpn.evaluation.matches import ClassMatches, Matches
from fpn.evaluation.report import without_nan
from fpn.files import write_figures
from fpn.spreadsheets import beside, write_csv
from fpn.structures import Thresholds
from fpn.wording import counted

GoalKind: TypeAlias = Literal["f1", "precision", "recall", "guarantee", "false-alarms"]

# IoU 0.5 among COCO's overlaps.
_OVERLAP = 0
# False alarms of an image that count for a bound: it needs a largest loss. It is this or so many times the level.
_MOST_ALARMS, _MOST_TIMES = 10, 4
# A class without any detection has nothing to choose from.
_NOTHING_FOUND = 0.5


@dataclass(frozen=True)
class Goal:
    """What thresholds are chosen for.

    Attributes:
        kind: "f1": the best. "precision", "recall": at least `level` on these images, with as many objects found, or as
            few false ones, as that leaves. "guarantee": of an image's objects on average at least the share `level` is
            found, by a bound. "false-alarms": on average at most `level` an image, by a bound.
        level: 0..1; of false alarms any number above 0; None for f1.
        sure: share of calibrations in which a bound holds, 0..1. 0: it holds on average over them.
    """

    kind: GoalKind
    level: float | None = None
    sure: float = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.sure < 1:
            raise ConfigError(f"sure {self.sure}: a share of calibrations from 0 to below 1, such as 0.95")
        if self.kind == "f1":
            if self.level is not None:
                raise ConfigError(f"f1 {self.level}: is as high as can be, without a level")
        elif self.kind == "false-alarms":
            if self.level is None or not 0 < self.level < math.inf:
                raise ConfigError(f"false alarms {self.level}: a number an image above 0, such as 0.5")
        elif self.level is None or not 0 < self.level < 1:
            raise ConfigError(f"{self.kind} {self.level}: a share between 0 and 1, such as 0.9")

    @property
    def bounds(self) -> bool:
        """Whether it is a bound for images to come, not a figure of those at hand."""
        return self.kind in ("guarantee", "false-alarms")

    @property
    def most_alarms(self) -> float:
        """False alarms of one image that count at most."""
        return max(float(_MOST_ALARMS), _MOST_TIMES * (self.level or 0.0))

    def __str__(self) -> str:
        return self.kind if self.level is None else f"{self.kind} {self.level:g}"


@dataclass(frozen=True)
class Chosen:
    """The threshold of a class, or of all together, and what it comes to on the images it was chosen on.

    Attributes:
        name: the class; None: all.
        threshold: detections count from this score on; of all together the lowest one.
        reached: whether the goal is.
        why: what stands in its way if it is not, else "".
        objects: how many there are.
        images: of how many images.
        precision, recall, f1: 0..1; precision is NaN where nothing is found.
        false_alarms: false detections an image.
    """

    name: str | None
    threshold: float
    reached: bool
    why: str
    objects: int
    images: int
    precision: float
    recall: float
    f1: float
    false_alarms: float


@dataclass(frozen=True)
class Calibration:
    """Thresholds, and what they come to.

    Attributes:
        dataset: name of the images they were chosen on.
        images: how many these are.
        goal: what they were chosen for.
        classes: one each, in the truth's order.
        overall: all of them together, each with its own threshold.
    """

    dataset: str
    images: int
    goal: Goal
    classes: tuple[Chosen, ...]
    overall: Chosen

    def thresholds(self, names: Sequence[str]) -> Thresholds:
        """As a model file keeps them.

        Args:
            names: the detector's classes. One that these images do not label gets the threshold in the middle of the
                others', and does not count as one that reaches the goal.
        """
        chosen = {each.name: each for each in self.classes}
        middle = float(np.median([each.threshold for each in self.classes if each.reached] or [_NOTHING_FOUND]))
        return Thresholds(
            scores=tuple(chosen[name].threshold if name in chosen else middle for name in names),
            goal=str(self.goal),
            dataset=self.dataset,
            images=self.images,
            reached=tuple(name in chosen and chosen[name].reached for name in names),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; what has no value is None."""
        return {
            "dataset": self.dataset,
            "images": self.images,
            "goal": {"kind": self.goal.kind, "level": self.goal.level},
            "overall": without_nan(asdict(self.overall)),
            "per_class": [without_nan(asdict(each)) for each in self.classes],
        }

    def save(self, path: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write `to_dict` as JSON, and beside it the classes as CSV; each file atomically.

        Returns:
            The two files: for figures.json also figures.csv.

        Raises:
            OutputError: a file can't be written.
        """
        write_figures(path, "fpn calibrate", self.to_dict())
        return Path(path), write_csv(beside(path), (without_nan(asdict(each)) for each in self.classes))

    def table(self) -> Table:
        """For a terminal of 80 columns or more."""
        title = f"{self.dataset}: {counted(self.images, 'image')}, thresholds for {self.goal}"
        table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
        table.add_column("", overflow="fold", min_width=11)
        for heading in ("objects", "threshold", "precision", "recall", "F1", "false/image"):
            table.add_column(heading, justify="right", no_wrap=True)
        for each in self.classes:
            mark = "" if each.reached else " *"
            table.add_row(f"{each.name}{mark}", str(each.objects), f"{each.threshold:.3f}", *_figures(each))
        table.add_section()
        table.add_row("all", str(self.overall.objects), "", *_figures(self.overall), style="bold")
        return table


def calibrate(matches: Matches, goal: Goal, *, dataset: str, together: bool = False) -> Calibration:
    """Choose a threshold for each class.

    Args:
        matches: what the detector found on images that it was not trained on.
        goal: what to choose for. False alarms are those of all classes, so that these have one threshold together.
        dataset: name of the images.
        together: one threshold for all classes.

    Raises:
        DataError: no object to choose by.
    """
    tables = [sizes[0] for sizes in matches.tables]
    names = matches.classes.names
    everything = _merged(tables)
    if not everything.objects.any():
        raise DataError(f"{dataset}: no labelled object in {len(matches)} images, so no threshold can be chosen")
    if together or goal.kind == "false-alarms":
        threshold, why = _choose(everything, goal)
        picked = [(threshold, why)] * len(tables)
    else:
        picked = [_choose(table, goal) for table in tables]
    kept = [table.scores >= threshold for table, (threshold, _) in zip(tables, picked, strict=True)]
    classes = [
        _chosen(name, [table], [which], threshold, why)
        for name, table, which, (threshold, why) in zip(names, tables, kept, picked, strict=True)
    ]
    lacking = [each.name for each in classes if not each.reached]
    lowest = min(threshold for threshold, _ in picked)
    overall = _chosen(None, tables, kept, lowest, f"not reached by {', '.join(map(str, lacking))}" if lacking else "")
    return Calibration(dataset, len(matches), goal, tuple(classes), overall)


def judge_thresholds(matches: Matches, thresholds: Mapping[str, float]) -> tuple[tuple[Chosen, ...], Chosen]:
    """What given thresholds come to: class by class in the truth's order, and all of them together.

    Args:
        matches: what a detector found.
        thresholds: class -> score from which on its detections count.
    """
    names, tables = matches.classes.names, [sizes[0] for sizes in matches.tables]
    scores = [thresholds[name] for name in names]
    kept = [table.scores >= score for table, score in zip(tables, scores, strict=True)]
    classes = [
        _chosen(name, [table], [which], score, "")
        for name, table, which, score in zip(names, tables, kept, scores, strict=True)
    ]
    return tuple(classes), _chosen(None, tables, kept, min(scores), "")


def _merged(tables: Sequence[ClassMatches]) -> ClassMatches:
    """All classes as one; what is true or false stays so."""
    scores = np.concatenate([table.scores for table in tables])
    order = np.argsort(-scores, kind="stable")
    return ClassMatches(
        np.concatenate([table.images for table in tables])[order],
        scores[order],
        np.concatenate([table.true for table in tables], axis=1)[:, order],
        np.concatenate([table.false for table in tables], axis=1)[:, order],
        np.sum([table.objects for table in tables], axis=0),
    )


@dataclass(frozen=True)
class _Cuts:
    """Thresholds that make a difference, the highest first: none of the detections, then more and more.

    Attributes:
        scores: (c,) the thresholds.
        ends: (c,) how many detections each lets through.
    """

    scores: Float64[np.ndarray, " c"]
    ends: np.ndarray


def _cuts(scores: Float64[np.ndarray, " d"]) -> _Cuts:
    """Half-way between any two scores that differ, and above and below all of them."""
    ends = np.flatnonzero(np.append(scores[1:] < scores[:-1], True)) + 1 if len(scores) else np.zeros(0, dtype=int)
    ends = np.concatenate([[0], ends])
    upper = np.concatenate([[1.0], scores])[ends]
    lower = np.concatenate([scores, [0.0]])[ends]
    return _Cuts((upper + lower) / 2, ends)


def _choose(table: ClassMatches, goal: Goal) -> tuple[float, str]:
    """The threshold, and why the goal is not reached with it, or ""."""
    if not table.objects.any() and goal.kind != "false-alarms":
        return _NOTHING_FOUND, "no object of it in these images"
    if not table.true[_OVERLAP].any() and goal.kind != "false-alarms":
        return _NOTHING_FOUND, "none of its objects is found at any score"
    cuts = _cuts(table.scores)
    if goal.bounds:
        return _choose_bound(table, cuts, goal)
    true, false = (np.concatenate([[0], np.cumsum(flags[_OVERLAP])])[cuts.ends] for flags in (table.true, table.false))
    objects = int(table.objects.sum())
    if goal.kind == "f1":
        # Of equal ones the highest threshold: fewer false ones.
        return float(cuts.scores[np.argmax(_f1(true, false, objects))]), ""
    assert goal.level is not None, "Goal has checked it"
    if goal.kind == "precision":
        return _choose_precision(cuts, true, false, goal.level, objects)
    assert goal.kind == "recall", goal.kind
    enough = true >= goal.level * objects - 1e-9
    if enough.any():
        return float(cuts.scores[np.argmax(enough)]), ""
    # The lowest score that finds one more: below it there are false ones alone.
    return float(cuts.scores[np.argmax(true)]), f"only {true[-1] / objects:.1%} of its objects are found at any score"


def _f1(true: np.ndarray, false: np.ndarray, objects: int) -> Float64[np.ndarray, " c"]:
    return np.asarray(2 * true / (true + false + objects))


def _choose_precision(
    cuts: _Cuts, true: np.ndarray, false: np.ndarray, level: float, objects: int
) -> tuple[float, str]:
    """The lowest threshold that is precise enough; else the best F1 with no more false ones than there are objects.

    The most precise one may be a flood: of a class that is never found for sure, precision says next to nothing.
    """
    precision = true / np.maximum(true + false, 1)
    enough = np.flatnonzero(precision >= level - 1e-9)
    if len(enough):
        return float(cuts.scores[enough[-1]]), ""
    best = int(np.argmax(np.where(false <= objects, _f1(true, false, objects), -1)))
    return float(cuts.scores[best]), f"its precision is {precision.max():.1%} at best"


def _choose_bound(table: ClassMatches, cuts: _Cuts, goal: Goal) -> tuple[float, str]:
    """From the threshold without loss on, as far as the bound holds all the way."""
    assert goal.level is not None, "Goal has checked it"
    missing = goal.kind == "guarantee"
    level = 1 - goal.level if missing else goal.level / goal.most_alarms
    chosen: int | None = None
    first = last = math.nan
    for cut, counts in _walk(table, cuts, missing=missing):
        losses = _missed(table, counts) if missing else np.minimum(counts, goal.most_alarms) / goal.most_alarms
        mean = float(losses.mean())
        first = mean if math.isnan(first) else first
        if mean != last and not _holds(losses, level, goal.sure):
            break
        chosen, last = cut, mean
    if chosen is not None:
        return float(cuts.scores[chosen]), ""
    images, needed = len(losses), _images_needed(level, goal.sure)
    if images < needed:
        few = f"{counted(images, 'image')}{' with it' if missing else ''} {'is' if images == 1 else 'are'} too few"
        return float(cuts.scores[-1 if missing else 0]), f"{few} for any bound: {needed} at least"
    missed = f"at any score {first:.1%} of an image's objects are missed, in {images} images"
    if first <= level:  # The images at hand keep to it; only the bound does not follow from so few.
        missed += f": too few to be sure of at most {level:.1%} in others"
    return float(cuts.scores[-1]), missed


def _walk(table: ClassMatches, cuts: _Cuts, *, missing: bool) -> Iterator[tuple[int, np.ndarray]]:
    """Each threshold with every image's true (or false) detections, from the one with the least loss on."""
    flags = (table.true if missing else table.false)[_OVERLAP]
    images = len(table.objects)
    counts = np.bincount(table.images[flags], minlength=images) if missing else np.zeros(images, dtype=np.int64)
    places = range(len(cuts.ends) - 1, -1, -1) if missing else range(len(cuts.ends))
    for before, cut in pairwise([places[0], *places]):
        start, end = sorted((int(cuts.ends[before]), int(cuts.ends[cut])))
        some = np.bincount(table.images[start:end][flags[start:end]], minlength=images)
        counts = counts - some if missing else counts + some
        yield cut, counts


def _missed(table: ClassMatches, found: np.ndarray) -> Float64[np.ndarray, " j"]:
    """The share of its objects that is missed, for each image that has any."""
    there = table.objects > 0
    return np.asarray(1 - found[there] / table.objects[there])


def _holds(losses: Float64[np.ndarray, " j"], level: float, sure: float) -> bool:
    """Whether the expected loss is at most `level`; losses are within 0..1, of one image each."""
    count = len(losses)
    if sure == 0:
        return bool((losses.sum() + 1) / (count + 1) <= level + 1e-12)
    so_far = np.arange(1, count + 1)
    means = (0.5 + np.cumsum(losses)) / (so_far + 1)
    spread = (0.25 + np.cumsum((losses - means) ** 2)) / (so_far + 1)
    # Each stake is made before its image is seen.
    before = np.concatenate([[0.25], spread[:-1]])
    stakes = np.minimum(1, np.sqrt(2 * math.log(1 / (1 - sure)) / (count * before)))
    won = np.cumsum(np.log1p(np.maximum(-stakes * (losses - level), -1 + 1e-12)))
    return bool(won.max() >= math.log(1 / (1 - sure)))


def _images_needed(level: float, sure: float) -> int:
    """How many images a bound needs that have no loss at all."""
    if sure == 0:
        return math.ceil(1 / level - 1 - 1e-9)
    least = math.ceil(math.log(1 / (1 - sure)) / math.log1p(level))
    return next(count for count in itertools.count(least) if _holds(np.zeros(count), level, sure))


def _chosen(
    name: str | None,
    tables: Sequence[ClassMatches],
    kept: Sequence[np.ndarray],
    threshold: float,
    why: str,
) -> Chosen:
    pairs = list(zip(tables, kept, strict=True))
    true = int(sum(table.true[_OVERLAP, which].sum() for table, which in pairs))
    false = int(sum(table.false[_OVERLAP, which].sum() for table, which in pairs))
    by_image = np.sum([table.objects for table in tables], axis=0)
    objects = int(by_image.sum())
    return Chosen(
        name=name,
        threshold=threshold,
        reached=not why,
        why=why,
        objects=objects,
        images=int((by_image > 0).sum()),
        precision=true / (true + false) if true + false else float("nan"),
        recall=true / objects if objects else float("nan"),
        f1=2 * true / (true + false + objects) if true + false + objects else float("nan"),
        false_alarms=false / len(by_image),
    )


def _figures(each: Chosen) -> list[str]:
    shares = ["-" if math.isnan(value) else f"{value:.3f}" for value in (each.precision, each.recall, each.f1)]
    return [*shares, f"{each.false_alarms:.2f}"]
