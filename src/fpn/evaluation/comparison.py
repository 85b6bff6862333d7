"""Is B better than A? Their figures on the same images, drawn over again with replacement for both at once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, Int64
from rich.table import Table

from fpn.errors import ConfigError
from fpn.evaluation.bootstrap import (
    RESAMPLED,
    alone,
    as_it_is,
    average_precisions,
    check_confidence,
    draw_images,
    interval,
    mean_of_defined,
    metric_values,
)
from fpn.evaluation.matches import Matches
from fpn.evaluation.report import without_nan
from fpn.files import write_figures
from fpn.spreadsheets import beside, write_csv
from fpn.wording import counted

_HEADINGS = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "small",
    "ap_medium": "medium",
    "ap_large": "large",
}

_WITHOUT = (
    "Without it: what B - A would be if that image were not there. All images share one ranking of scores, so that an "
    "image on which both have AP 0 matters, too: by its false detections, and by objects that both miss."
)
# Images from which on an interval is believed: drawn again and again, fewer are too much alike.
_BELIEVED = 20
# Each image is left out once, which costs as much as a resample: of a large set only those that differ most alone.
MOST_IMAGES = 2000
_TOGETHER = 64


@dataclass(frozen=True)
class Difference:
    """One figure of two models; NaN where it has no value.

    Attributes:
        metric: such as "ap".
        name: the class; None: all.
        a, b: the models' values.
        difference: b - a.
        low, high: the interval of the difference.
        probability: share of the resamples in which B is better, those in which both are equal counted by half.
    """

    metric: str
    name: str | None
    a: float
    b: float
    difference: float
    low: float
    high: float
    probability: float


@dataclass(frozen=True)
class ImageDifference:
    """What one image adds to the difference of AP.

    Attributes:
        image_id, file_name: as the truth has them.
        objects: how many count.
        a, b: the models' AP on this image alone; NaN where it has no object.
        influence: the difference of AP on all images, less that on all but this one. Above 0: it speaks for B.
    """

    image_id: int
    file_name: str
    objects: int
    a: float
    b: float
    influence: float


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images.

    Attributes:
        a, b: what they are called.
        dataset: name of the images.
        images: how many these are.
        confidence: of the intervals, 0..1.
        resamples: how many times images were drawn.
        identical: whether all their figures are the same in every resample.
        differences: all classes first, then class by class.
        by_image: those that matter most first; of more than 2000 those whose own AP differs most.
    """

    a: str
    b: str
    dataset: str
    images: int
    confidence: float
    resamples: int
    identical: bool
    differences: tuple[Difference, ...]
    by_image: tuple[ImageDifference, ...]

    def find(self, metric: str, name: str | None = None) -> Difference:
        """One figure's difference.

        Raises:
            ConfigError: there is none of that metric and class.
        """
        for each in self.differences:
            if (each.metric, each.name) == (metric, name):
                return each
        raise ConfigError(f"metric {metric!r} of {name or 'all classes'}: no object counts for it in {self.dataset}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; what has no value is None."""
        about = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("differences", "by_image")}
        return {
            **about,
            "differences": [without_nan(asdict(each)) for each in self.differences],
            "by_image": [without_nan(asdict(each)) for each in self.by_image],
        }

    def save(self, path: str | os.PathLike[str]) -> tuple[Path, Path, Path]:
        """Write `to_dict` as JSON, and beside it the differences and the images as CSV; each file atomically.

        Returns:
            The three files: for figures.json also figures.csv and figures-images.csv.

        Raises:
            OutputError: a file can't be written.
        """
        path = Path(path)
        images = path.with_name(f"{path.stem}-images.csv")
        write_figures(path, "fpn compare", self.to_dict())
        table = write_csv(beside(path), (without_nan(asdict(each)) for each in self.differences))
        return path, table, write_csv(images, (without_nan(asdict(each)) for each in self.by_image))

    def verdict(self) -> str:
        """Whether B is better in AP, by how much, and whether that is more than chance, in words."""
        if self.identical:
            return "Verdict: A and B are equal in every draw: not a bit of a difference."
        found = self.find("ap")
        size = f"its AP is {found.b:.3f}, that of A {found.a:.3f} ({found.difference:+z.3f})"
        if math.isnan(found.low):
            return f"Verdict: not known. B against A: {size}, and too few images tell whether by chance."
        chance = f"{self.confidence:.0%} interval {found.low:+z.3f} .. {found.high:+z.3f}"
        if (found.low > 0 or found.high < 0) and self.images < _BELIEVED:
            return (
                f"Verdict: not sure. B against A: {size}; the {chance} is without 0, but from so few images (fewer "
                f"than {_BELIEVED}) an interval comes out too narrow. Compare on more."
            )
        if found.low > 0 or found.high < 0:
            better = "better" if found.low > 0 else "worse"
            return f"Verdict: B is {better} than A: {size}, which is more than chance ({chance} is without 0)."
        return (
            f"Verdict: B is neither surely better nor surely worse than A: {size}, which may be chance ({chance} holds "
            "0). More labelled images tell them apart sooner."
        )

    def table(self) -> Table:
        """Differences for a terminal of 80 columns or more: of all metrics, and of each class's AP and AP50."""
        title = f"{self.dataset}: {counted(self.images, 'image')}, B less A, {self.confidence:.0%} intervals"
        table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
        table.add_column("", overflow="fold", min_width=12)
        for heading in ("A", "B", "B - A", "interval", "P(B better)"):
            table.add_column(heading, justify="right", no_wrap=True)
        last: str | None = None
        for each in self.differences:
            if each.name is not None and each.metric not in ("ap", "ap50"):
                continue
            if each.name != last:
                table.add_section()
            last = each.name
            heading = f"{_HEADINGS[each.metric]} {each.name or ''}".strip()
            between = f"{each.low:+z.3f} .. {each.high:+z.3f}"
            figures = (f"{each.a:.3f}", f"{each.b:.3f}", f"{each.difference:+z.3f}", between, f"{each.probability:.3f}")
            # Surely different: the interval does not hold 0.
            sure = each.low > 0 or each.high < 0
            table.add_row(heading, *figures, style="bold" if sure else "")
        return table

    def image_table(self, count: int) -> Table:
        """The images that matter most, each with what the difference of AP would be if it were left out."""
        whole = next((each.difference for each in self.differences), 0.0)  # the first is AP of all classes
        title = f"images that matter most to B - A of AP ({whole:+z.4f} with all)"
        table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
        table.caption, table.caption_justify = _WITHOUT, "left"
        table.add_column("image", overflow="fold", min_width=16)
        for heading in ("objects", "AP of A", "AP of B", "B - A without it"):
            table.add_column(heading, justify="right", no_wrap=True)
        for each in self.by_image[:count]:
            own = ("-" if math.isnan(value) else f"{value:.3f}" for value in (each.a, each.b))
            table.add_row(each.file_name, str(each.objects), *own, f"{whole - each.influence:+z.4f}")
        return table


def compare_matches(
    a: Matches,
    b: Matches,
    *,
    names: tuple[str, str] = ("A", "B"),
    dataset: str,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Comparison:
    """Compare what two models found in the same images.

    Args:
        a, b: what each found.
        names: what they are called.
        dataset: name of the images.
        resamples: how many times images are drawn.
        confidence: of the intervals, 0..1.
        seed: of the draw.
        progress: called with the number of steps done, of `count_steps`.

    Raises:
        ConfigError: fewer than 2 images, no resamples, a confidence outside of 0..1, or not the same images and
            classes.
    """
    check_confidence(confidence)
    if (a.image_ids, a.classes) != (b.image_ids, b.classes):
        raise ConfigError(f"{' and '.join(names)} were matched with different images or classes")
    weights = draw_images(len(a), resamples, seed)
    tell = _Steps(progress)
    at_hand = [metric_values(average_precisions(each, as_it_is(each)), each.classes.names) for each in (a, b)]
    drawn = [_counted(each, weights, tell) for each in (a, b)]
    pairs = [
        _difference(
            key,
            [float(values[key][0]) for values in at_hand],
            [values[key] for values in drawn],
            confidence=confidence,
            images=len(a),
        )
        for key in _keys(a.classes.names)
        if not np.isnan(at_hand[0][key][0])
    ]
    return Comparison(
        a=names[0],
        b=names[1],
        dataset=dataset,
        images=len(a),
        confidence=confidence,
        resamples=resamples,
        identical=all(np.array_equal(drawn[0][key], drawn[1][key], equal_nan=True) for key in drawn[0]),
        differences=tuple(pairs),
        by_image=_by_image(a, b, tell),
    )


def count_steps(images: int, resamples: int) -> int:
    """How many times it counts, for its progress: resamples, then without each image, for each model."""
    return 2 * (resamples + min(images, MOST_IMAGES))


class _Steps:
    """Adds up what several counts have done."""

    def __init__(self, progress: Callable[[int], None] | None) -> None:
        self.progress = progress
        self.before = 0

    def __call__(self, done: int) -> None:
        if self.progress is not None:
            self.progress(self.before + done)

    def next(self, done: int) -> None:
        """A count has ended that did so many."""
        self.before += done


def _counted(matches: Matches, weights: Int32[np.ndarray, "r i"], tell: _Steps) -> dict[Any, Float64[np.ndarray, " r"]]:
    values = metric_values(average_precisions(matches, weights, progress=tell), matches.classes.names)
    tell.next(len(weights))
    return values


def _keys(classes: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    for name in (None, *classes):
        for metric in RESAMPLED:
            yield metric, name


def _difference(
    key: tuple[str, str | None],
    values: Sequence[float],
    drawn: Sequence[Float64[np.ndarray, " r"]],
    *,
    confidence: float,
    images: int,
) -> Difference:
    (metric, name), (a, b) = key, values
    differences = drawn[1] - drawn[0]
    found = interval(b - a, differences, confidence, images=images)
    defined = differences[~np.isnan(differences)]
    probability = np.mean((defined > 0) + (defined == 0) / 2) if len(defined) else math.nan
    return Difference(metric, name, a, b, found.value, found.low, found.high, float(probability))


def _by_image(a: Matches, b: Matches, tell: _Steps) -> tuple[ImageDifference, ...]:
    own = np.array([[alone(each, place) for place in range(len(each))] for each in (a, b)])
    # Those that differ most by themselves; who has no object comes last.
    places = np.argsort(-np.abs(np.nan_to_num(own[1] - own[0])), kind="stable")[:MOST_IMAGES]
    influence = _left_out(b, places, tell) - _left_out(a, places, tell)
    objects = np.sum([tables[0].objects for tables in a.tables], axis=0)
    found = [
        ImageDifference(
            image_id=a.image_ids[place],
            file_name=a.file_names[place],
            objects=int(objects[place]),
            a=float(own[0, place]),
            b=float(own[1, place]),
            influence=float(each),
        )
        for place, each in zip(places, influence, strict=True)
    ]
    return tuple(sorted(found, key=lambda each: (-abs(each.influence), each.image_id)))


def _left_out(matches: Matches, places: Int64[np.ndarray, " j"], tell: _Steps) -> Float64[np.ndarray, " j"]:
    """How much lower AP is without each of these images."""
    (whole,) = mean_of_defined(_over_overlaps(matches, as_it_is(matches)))
    less = []
    for start in range(0, len(places), _TOGETHER):
        some = places[start : start + _TOGETHER]
        weights = np.repeat(as_it_is(matches), len(some), axis=0)
        weights[np.arange(len(some)), some] = 0
        less.append(whole - mean_of_defined(_over_overlaps(matches, weights)))
        tell.next(len(some))
        tell(0)
    return np.asarray(np.nan_to_num(np.concatenate(less)))


def _over_overlaps(matches: Matches, weights: Int32[np.ndarray, "r i"]) -> Float64[np.ndarray, "r k"]:
    return np.asarray(average_precisions(matches, weights, sizes=1)[..., 0].mean(axis=1))
