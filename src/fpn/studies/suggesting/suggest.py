"""Which of many unlabelled images to label next."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fpn.data.checks.duplicates import find_duplicates
from fpn.data.checks.images import ImageInfo, inspect_images
from fpn.data.dataset import Dataset
from fpn.data.limits import Limits
from fpn.data.progress import Progress, no_bar
from fpn.detectors.prediction import Predictor
from fpn.errors import ConfigError, DataError
from fpn.evaluation.known_truth import shared_ids, told_apart
from fpn.evaluation.unfinished import Unfinished
from fpn.shapes import Size
from fpn.structures import Classes, Detections
from fpn.studies.suggesting.choosing import Choice, Choosing
from fpn.studies.suggesting.evidence import Evidence
from fpn.studies.suggesting.gain import class_worths, expected_objects
from fpn.studies.suggesting.looking import Looker
from fpn.studies.suggesting.pool import Pool
from fpn.studies.suggesting.reasons import count_unsure, reason_for


@dataclass(frozen=True)
class Suggestion:
    """An image, and why to label it.

    Attributes:
        path: where it is.
        name: its path within the folder that all are in.
        size: of the upright image.
        gain: what its labels may teach, in no unit: only the order and the proportions say something.
        unlike: 0 (as one that is labelled or chosen before) to 1 (at least half as unlike as images usually are).
        unsure: detections that may as well be wrong.
        found: what the detector found, boxes in pixels of the upright image, best first.
        reason: in words.
    """

    path: Path
    name: str
    size: Size
    gain: float
    unlike: float
    unsure: int
    found: Detections
    reason: str


@dataclass(frozen=True)
class Suggestions:
    """What to label next.

    Attributes:
        classes: of the detector.
        chosen: the images to label, best first.
        others: all other images that could have been chosen, best first.
        aside: name -> why an image was not considered: it shows what another one shows.
        unreadable: name -> why an image could not be read.
        objects: class -> objects that are labelled; None: nothing labelled was given.
        about: settings, JSON-able.
    """

    classes: Classes
    chosen: Sequence[Suggestion]
    others: Sequence[Suggestion]
    aside: Mapping[str, str]
    unreadable: Mapping[str, str]
    objects: Mapping[str, int] | None
    about: Mapping[str, Any]


def suggest(
    detector: Predictor,
    images: Sequence[str | os.PathLike[str]],
    *,
    count: int = 20,
    labelled: Dataset | None = None,
    mirror: bool = True,
    batch_size: int = 4,
    unfinished: Unfinished | None = None,
    limits: Limits | None = None,
    reading: Progress = no_bar,
    looking: Progress = no_bar,
) -> Suggestions:
    """Rank unlabelled images by what their labels may teach a detector, and by variety.

    The same images and weights give the same ranking.

    Args:
        detector: trained on what is labelled so far.
        images: paths.
        count: how many to choose.
        labelled: what is labelled so far. Images like these are not chosen, and their counts say which classes are
            rare; else the detector's own findings say that.
        mirror: look at each image and at its mirror image, which takes twice as long; what only one shows is unsure.
        batch_size: images that go through the network together.
        unfinished: what an earlier call that was stopped found of the same images with the same settings, and where
            this one's findings are kept.
        limits: sizes of files and images that are accepted.
        reading: shows how many images were read.
        looking: shows how many images the detector has looked at.

    Raises:
        ConfigError: a setting is out of range, or the labelled data has no class of the detector.
        DataError: no image can be read, or all show what is labelled.
    """
    if count < 1 or batch_size < 1:
        raise ConfigError(f"count {count}, batch_size {batch_size}: must be at least 1")
    labelled = None if labelled is None else told_apart(detector, labelled)
    pool = pool_of(detector, images, labelled, limits)
    if labelled is not None:
        shared_ids(detector.classes, labelled)
    files = [pool.path(number) for number in range(len(pool))]
    with reading(len(files)) as progress:
        infos = inspect_images(files, limits=pool.limits, progress=progress)
    with looking(len(pool)) as progress:
        seen = Looker(detector, batch_size, mirror).look(pool, unfinished=unfinished, progress=progress)
    about = {"count": count, "mirror": mirror, "labelled": None if labelled is None else labelled.name}
    return _Ranking(detector.classes, pool, infos, seen).rank(count, about)


def pool_of(
    detector: Predictor,
    images: Sequence[str | os.PathLike[str]],
    labelled: Dataset | None,
    limits: Limits | None = None,
) -> Pool:
    """All that `suggest` looks at, the labelled images first: by it a stopped look knows what it was.

    Raises:
        ConfigError: there is nothing to choose from.
    """
    pixel_range = detector.preprocessor.config.pixel_range
    return Pool(images, labelled, classes=detector.classes, limits=limits or Limits(), pixel_range=pixel_range)


@dataclass(frozen=True)
class _Ranking:
    """From what was seen to an order."""

    classes: Classes
    pool: Pool
    infos: Sequence[ImageInfo]
    seen: Sequence[Evidence]

    def rank(self, count: int, about: Mapping[str, Any]) -> Suggestions:
        known, names = self.pool.known, self.pool.names
        new = self.seen[known:]
        unreadable = self._unreadable(new)
        alike, taken = self._alike()
        free = np.array([not each.problem and row not in taken for row, each in enumerate(new)])
        if not free.any():
            raise DataError(f"nothing to choose from: all of {len(new)} images show what is labelled already")
        choosing = self._choosing(new, alike, free)
        chosen = choosing.choose(count)
        aside = {names[row]: why for row, why in taken.items()}
        for choice in chosen:
            same = f"shows nearly what {names[choice.number]} shows, which is chosen"
            aside |= {names[row]: same for row in alike.get(choice.number, ()) if free[row]}
        return Suggestions(
            classes=self.classes,
            chosen=[self._suggestion(choice) for choice in chosen],
            others=[self._suggestion(choice) for choice in choosing.rest()],
            aside=aside,
            unreadable=unreadable,
            objects=self._objects(),
            about=about,
        )

    def _unreadable(self, new: Sequence[Evidence]) -> dict[str, str]:
        """Name -> why it could not be read; not all may be like that."""
        rows = zip(self.pool.names, self.pool.paths, new, strict=True)
        found = {name: each.problem.removeprefix(f"{path}: ") for name, path, each in rows if each.problem}
        if len(found) == len(new):
            name, why = next(iter(found.items()))
            raise DataError(f"none of {len(new)} images can be read. The first: {name}: {why}")
        return found

    def _choosing(self, new: Sequence[Evidence], alike: Mapping[int, Sequence[int]], free: np.ndarray) -> Choosing:
        kinds = len(self.classes)
        objects = self._objects()
        expected = expected_objects(new, kinds)
        # Nothing labelled is known: as if one image in ten were, with classes as common as they seem to be here.
        labelled = expected.sum(axis=0) / 10 if objects is None else np.array([objects[name] for name in self.classes])
        length = max(len(each.descriptor) for each in new)
        old = [each for each in self.seen[: self.pool.known] if not each.problem]
        return Choosing(
            worths=class_worths(new, kinds),
            known=labelled.astype(np.float64),
            descriptors=_stacked(new, length),
            labelled=_stacked(old, length),
            alike=alike,
            open=free,
        )

    def _objects(self) -> dict[str, int] | None:
        """Objects of each class that are labelled."""
        labelled = self.pool.labelled
        if labelled is None:
            return None
        counts = np.zeros(len(labelled.classes), dtype=np.int64)
        for row in range(len(labelled)):
            targets = labelled.targets(row)
            np.add.at(counts, targets.labels[~targets.ignore].numpy(), 1)
        by_name = dict(zip(labelled.classes, counts.tolist(), strict=True))
        return {name: by_name.get(name, 0) for name in self.classes}

    def _alike(self) -> tuple[dict[int, list[int]], dict[int, str]]:
        """Numbers of new images that show nearly the same as each, and why some are not considered at all."""
        known, names = self.pool.known, self.pool.names
        alike: dict[int, list[int]] = {}
        taken: dict[int, str] = {}
        for pair in find_duplicates(self.infos):
            first, second = pair.first - known, pair.second - known
            if second < 0:
                continue
            if first < 0:
                taken.setdefault(second, f"shows what {Path(self.pool.path(pair.first)).name} shows, which is labelled")
            elif pair.equal:
                taken.setdefault(second, f"is the same file as {names[first]}")
            else:
                alike.setdefault(first, []).append(second)
                alike.setdefault(second, []).append(first)
        return alike, taken

    def _suggestion(self, choice: Choice) -> Suggestion:
        number = choice.number
        each = self.seen[self.pool.known + number]
        return Suggestion(
            path=self.pool.paths[number],
            name=self.pool.names[number],
            size=each.size,
            gain=choice.gain,
            unlike=choice.unlike,
            unsure=count_unsure(each.found),
            found=each.found,
            reason=reason_for(choice, each.found, self.classes),
        )


def _stacked(seen: Sequence[Evidence], length: int) -> np.ndarray:
    """(N, length) float64; zeros for an image that could not be read."""
    rows = np.zeros((len(seen), length))
    for row, each in zip(rows, seen, strict=True):
        row[: len(each.descriptor)] = each.descriptor.numpy()
    return rows
