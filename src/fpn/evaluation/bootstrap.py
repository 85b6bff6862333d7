"""How sure a figure is: average precision over again on images drawn with replacement.

Detections and objects are matched once. A resample is a whole number for each image, how often it was drawn, and all
that is counted anew for it are sums of these numbers along the detections of a class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32
from rich.table import Table

from fpn.errors import ConfigError
from fpn.evaluation.coco import SIZES
from fpn.evaluation.matches import OVERLAPS, ClassMatches, Matches

# COCO's 101 recalls at which precision is read.
_RECALLS = np.linspace(0.0, 1.0, 101)
# Places of IoU 0.5 and 0.75 among 0.5, 0.55, ..., 0.95.
_AT = {"ap50": 0, "ap75": 5}
_SIZED = {"ap_small": 1, "ap_medium": 2, "ap_large": 3}
# The metrics that are resampled, the one that says most first.
RESAMPLED = ("ap", *_AT, *_SIZED)
# Resamples that are counted together: enough for whole vector registers, few enough for the cache.
_TOGETHER = 64


@dataclass(frozen=True)
class Interval:
    """A figure and where its value on all images of this kind lies, most likely.

    Attributes:
        value: on the images at hand.
        low, high: the interval's ends.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """The intervals of one model's figures; what has no value, as no object counts for it, is not in it.

    Attributes:
        confidence: share of such intervals that hold the true value, 0..1.
        resamples: how many times images were drawn.
        overall: by metric, such as "ap".
        per_class: by class name, then by metric.
    """

    confidence: float
    resamples: int
    overall: Mapping[str, Interval]
    per_class: Mapping[str, Mapping[str, Interval]]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; each interval is its value, low and high end."""
        return {
            "confidence": self.confidence,
            "resamples": self.resamples,
            **_as_lists(self.overall),
            "per_class": {name: _as_lists(each) for name, each in self.per_class.items()},
        }

    def table(self) -> Table:
        """AP and AP50 for a terminal of 80 columns or more."""
        title = f"{self.confidence:.0%} intervals, images drawn {self.resamples} times"
        table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
        table.add_column("", overflow="fold", min_width=12)
        for heading in ("AP", "interval", "AP50", "interval"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_row("all", *_cells(self.overall), style="bold")
        for name, each in self.per_class.items():
            table.add_row(f"  {name}", *_cells(each))
        return table


def check_resamples(images: int, resamples: int) -> None:
    """Refuse what gives no interval.

    Raises:
        ConfigError: fewer than 2 images or 1 resample.
    """
    if images < 2 or resamples < 1:
        raise ConfigError(
            f"images: {images}, resamples: {resamples}; at least 2 and 1 are needed for an interval. Take more images."
        )


def draw_images(images: int, resamples: int, seed: int) -> Int32[np.ndarray, "r i"]:
    """How often each image is drawn in each resample; every row sums to the number of images."""
    check_resamples(images, resamples)
    shares = np.full(images, 1 / images)
    return np.random.default_rng(seed).multinomial(images, shares, size=resamples).astype(np.int32)


def average_precisions(
    matches: Matches,
    weights: Int32[np.ndarray, "r i"],
    *,
    sizes: int = len(SIZES),
    progress: Callable[[int], None] | None = None,
) -> Float64[np.ndarray, "r t k a"]:
    """COCO's average precision at each overlap, by class and size, as if each image were there so many times.

    The first of these weights is for the image with the lowest id. NaN: no object of that class and size counts.

    Args:
        matches: what was found.
        weights: one row a resample; all one: the data as it is.
        sizes: how many of `SIZES` are counted; 1: only all of them together.
        progress: called with the number of resamples done.
    """
    found = np.full((len(weights), OVERLAPS, len(matches.tables), sizes), np.nan)
    for start in range(0, len(weights), _TOGETHER):
        some = np.ascontiguousarray(weights[start : start + _TOGETHER].T)
        for place, tables in enumerate(matches.tables):
            for size, table in enumerate(tables[:sizes]):
                found[start : start + _TOGETHER, :, place, size] = _weighted(table, some)
        if progress is not None:
            progress(min(start + _TOGETHER, len(weights)))
    return found


def alone(matches: Matches, place: int) -> float:
    """Average precision of one image as if it were all there is; NaN if it has no object that counts."""
    once = np.ones((1, 1), dtype=np.int32)
    tables = [tables[0].in_image(place) for tables in matches.tables if tables[0].objects[place]]
    return float(np.mean([_weighted(table, once) for table in tables])) if tables else float("nan")


def _weighted(table: ClassMatches, weights: Int32[np.ndarray, "i r"]) -> Float64[np.ndarray, "r t"]:
    """Precision is read where an object is found: between two such places it only falls."""
    objects = table.objects.astype(np.int32) @ weights
    found = np.zeros((weights.shape[1], OVERLAPS))
    found[objects == 0] = np.nan
    if not table.true.any() or not objects.any():
        return found
    # How many of the 101 recalls are reached with so many objects found, for each resample.
    recall = np.arange(objects.max() + 1)[:, None] / np.maximum(objects, 1)
    reached = np.searchsorted(_RECALLS, recall, side="right").astype(np.int32)
    drawn = weights[table.images]
    for overlap, places, behind in _steps(table, drawn):
        true = np.cumsum(drawn[places], axis=0, dtype=np.int32)
        # COCO's own guard against a division by zero.
        precision = true / (behind + np.spacing(1))
        best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        read = np.diff(np.take_along_axis(reached, true, axis=0), axis=0, prepend=np.int32(0))
        figures = (best * read).sum(axis=0) / len(_RECALLS)
        found[:, overlap] = np.where(objects > 0, figures, np.nan)
    return found


def _steps(table: ClassMatches, drawn: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Each overlap at which something is found: where it is, and how many true and false ones there are by then."""
    counted: bytes | None = None
    sums = drawn
    for overlap in range(OVERLAPS):
        places = np.flatnonzero(table.true[overlap])
        if not len(places):
            continue
        counts = table.true[overlap] | table.false[overlap]
        if counts.tobytes() != counted:  # most often all of them count, at every overlap
            counted = counts.tobytes()
            sums = np.cumsum(drawn * counts[:, None], axis=0, dtype=np.int32)
        yield overlap, places, sums[places]


def metric_values(
    precisions: Float64[np.ndarray, "r t k a"], classes: tuple[str, ...]
) -> dict[tuple[str, str | None], Float64[np.ndarray, " r"]]:
    """By metric and class, None for all classes: its value in each resample; NaN where it has none."""
    values: dict[tuple[str, str | None], np.ndarray] = {}
    for metric in RESAMPLED:
        by_class = _by_class(precisions, metric)
        values[metric, None] = mean_of_defined(by_class)
        values |= {(metric, name): by_class[:, place] for place, name in enumerate(classes)}
    return values


def _by_class(precisions: np.ndarray, metric: str) -> np.ndarray:
    if metric in _AT:
        return precisions[:, _AT[metric], :, 0]
    return np.asarray(precisions[..., _SIZED.get(metric, 0)].mean(axis=1))


def mean_of_defined(values: Float64[np.ndarray, "r k"]) -> Float64[np.ndarray, " r"]:
    """NaN only where all are."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=1)
    return np.where(count > 0, np.where(defined, values, 0).sum(axis=1) / np.maximum(count, 1), np.nan)


def interval(value: float, resampled: Float64[np.ndarray, " r"], confidence: float, *, images: int) -> Interval:
    """The middle part of what the resamples gave (the percentile bootstrap), a little wider where images are few.

    Drawn again, n images spread by sqrt((n - 1) / n) too little, and as for a mean the t distribution has the right
    tails (Hesterberg 2015, arXiv:1411.5279, "expanded percentile").

    Args:
        value: the figure on the data as it is.
        resampled: the same on each resample; NaN where it had no value.
        confidence: 0..1.
        images: how many there are.
    """
    defined = resampled[~np.isnan(resampled)]
    if not len(defined):
        return Interval(value, float("nan"), float("nan"))
    outside = NormalDist().cdf(-math.sqrt(images / (images - 1)) * _student((1 + confidence) / 2, images - 1))
    low, high = np.quantile(defined, [outside, 1 - outside])
    return Interval(value, float(low), float(high))


def _student(share: float, freedom: int) -> float:
    """Quantile of the t distribution (Abramowitz and Stegun 1964, 26.7.5), within 1 % from 5 degrees of freedom on."""
    z = NormalDist().inv_cdf(share)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def bootstrap_intervals(
    matches: Matches,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Intervals:
    """Intervals of one model's average precision, overall and by class.

    Args:
        matches: what it found.
        resamples: how many times images are drawn.
        confidence: 0..1.
        seed: of the draw.
        progress: called with the number of resamples done.

    Raises:
        ConfigError: fewer than 2 images, no resamples, or a confidence outside of 0..1.
    """
    check_confidence(confidence)
    weights = draw_images(len(matches), resamples, seed)
    names = matches.classes.names
    at_hand = metric_values(average_precisions(matches, as_it_is(matches)), names)
    drawn = metric_values(average_precisions(matches, weights, progress=progress), names)
    overall: dict[str, Interval] = {}
    per_class: dict[str, dict[str, Interval]] = {name: {} for name in names}
    for (metric, name), values in drawn.items():
        value = float(at_hand[metric, name][0])
        if not np.isnan(value):
            (overall if name is None else per_class[name])[metric] = interval(
                value, values, confidence, images=len(matches)
            )
    return Intervals(confidence, resamples, overall, per_class)


def as_it_is(matches: Matches) -> Int32[np.ndarray, "1 i"]:
    """The weights of the data itself: each image once."""
    return np.ones((1, len(matches)), dtype=np.int32)


def check_confidence(confidence: float) -> None:
    """Raises ConfigError unless it is between 0 and 1."""
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence {confidence}: a share between 0 and 1, such as 0.95")


def _as_lists(figures: Mapping[str, Interval]) -> dict[str, list[float]]:
    return {name: [each.value, each.low, each.high] for name, each in figures.items()}


def _cells(figures: Mapping[str, Interval]) -> list[str]:
    cells = []
    for metric in ("ap", "ap50"):
        each = figures.get(metric)
        cells += ["-", ""] if each is None else [f"{each.value:.3f}", f"{each.low:.3f} .. {each.high:.3f}"]
    return cells
