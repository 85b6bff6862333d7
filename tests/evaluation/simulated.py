"""What detectors of known quality would find: matches without images, networks or boxes."""

from __future__ import annotations

import numpy as np

from fpn.evaluation.matches import OVERLAPS, ClassMatches, Matches
from fpn.structures import Classes

NAMES = ("bolt", "nut")


def simulate(random: np.random.Generator, images: int, *, objects: float = 3.0, skill: float = 0.0) -> Matches:
    """Images of unequal difficulty: of an object in an easy one the score is higher, and so is the overlap.

    Args:
        random: all that is drawn comes from it.
        images: how many.
        objects: of each class, in the mean.
        skill: 0: an average detector; more finds more.
    """
    ease = random.normal(skill, 0.7, images)
    tables = tuple((_table(random, ease, objects / (place + 1)),) for place in range(len(NAMES)))
    return Matches(
        image_ids=tuple(range(images)),
        file_names=tuple(f"{number}.jpg" for number in range(images)),
        classes=Classes.of(NAMES),
        tables=tables,
    )


def _table(random: np.random.Generator, ease: np.ndarray, mean: float) -> ClassMatches:
    objects = random.poisson(mean, len(ease))
    of_objects = np.repeat(np.arange(len(ease)), objects)
    easy = ease[of_objects] + random.normal(0, 1, len(of_objects))
    found = easy > -1.2  # what is not found leaves no detection at all
    of_objects, easy = of_objects[found], easy[found]
    overlap = _logistic(easy + random.normal(1.2, 0.6, len(easy)))
    astray = np.repeat(np.arange(len(ease)), random.poisson(1.5, len(ease)))
    images = np.concatenate([of_objects, astray])
    raw = np.concatenate([easy + random.normal(1, 0.8, len(easy)), random.normal(-1.5, 1.0, len(astray))])
    overlap = np.concatenate([overlap, np.zeros(len(astray))])
    scores = _logistic(raw)
    order = np.argsort(-scores, kind="stable")
    true = overlap[order] >= np.arange(0.5, 1.0, 0.05)[:OVERLAPS, None]
    return ClassMatches(images[order], scores[order], true, ~true, objects.astype(np.int64))


def _logistic(values: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-values)))
