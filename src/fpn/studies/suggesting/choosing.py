"""Chooses images one after the other: each time the one with the most gain that looks unlike those chosen before.

Gain alone takes near-duplicates; being unlike alone takes odd images. So the gain is multiplied by how unlike an image
is, from 0 for one that is there already to 1 from half of the usual distance on: to be odder is no merit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fpn.studies.suggesting.gain import gains

# What an image in which nothing is found is worth for being unlike the others.
_UNKNOWN = 0.01
# From this part of the usual distance on, images are not alike at all.
_APART = 0.5
# Distances between so many images tell which one is usual.
_SAMPLE = 500


@dataclass(frozen=True, slots=True)
class Choice:
    """An image at the moment of its choice.

    Attributes:
        number: of the image.
        gain: what it was chosen for: its gain times how unlike it is.
        by_class: (K,) the part of each class, before being unlike counts.
        unlike: 0 (as one that is labelled or chosen) to 1 (at least half as far from these as images usually are).
        nearest: distance to the nearest such image, in parts of the usual distance; above 1 for an odd one.
        known: (K,) objects of each class that were labelled or chosen before.
    """

    number: int
    gain: float
    by_class: np.ndarray
    unlike: float
    nearest: float
    known: np.ndarray


@dataclass
class Choosing:
    """The state of the choice.

    Attributes:
        worths: (N, K) see `fpn.studies.suggesting.gain.class_worths`.
        known: (K,) objects of each class that are labelled.
        descriptors: (N, D) what the images look like.
        labelled: (M, D) what those look like that are labelled.
        alike: number -> numbers of images that show nearly the same; only one of them is chosen.
        open: (N,) which may be chosen.
    """

    worths: np.ndarray
    known: np.ndarray
    descriptors: np.ndarray
    labelled: np.ndarray
    alike: Mapping[int, Sequence[int]]
    open: np.ndarray

    def __post_init__(self) -> None:
        self.known, self.open = self.known.copy(), self.open.copy()
        self.descriptors, self.labelled = standardized(self.descriptors, self.labelled)
        self._usual = _usual_distance(self.descriptors)
        self._nearest = np.full(len(self.worths), np.inf)
        for row in self.labelled:
            self._approach(row)

    def choose(self, count: int) -> list[Choice]:
        """So many images, or all that there are, the best first."""
        chosen: list[Choice] = []
        while len(chosen) < count and self.open.any():
            chosen.append(self._next())
        return chosen

    def rest(self) -> list[Choice]:
        """Those that are open still, the best first, as if each were the next."""
        order = np.argsort(-self._scores(), kind="stable")
        return [self._choice(number) for number in order.tolist() if self.open[number]]

    def _next(self) -> Choice:
        number = int(np.argmax(np.where(self.open, self._scores(), -np.inf)))
        choice = self._choice(number)
        self.known += self.worths[number]
        self.open[[number, *self.alike.get(number, ())]] = False
        self._approach(self.descriptors[number])
        return choice

    def _scores(self) -> np.ndarray:
        by_class = gains(self.worths, self.known)
        return np.asarray((by_class.sum(axis=1) + _UNKNOWN) * self._unlike())

    def _unlike(self) -> np.ndarray:
        """(N,) 1 where nothing is labelled or chosen, or nothing is known of looks."""
        return np.asarray(np.minimum(self._nearest / _APART, 1.0))

    def _choice(self, number: int) -> Choice:
        (by_class,) = gains(self.worths[[number]], self.known)
        unlike = float(self._unlike()[number])
        gain = (float(by_class.sum()) + _UNKNOWN) * unlike
        return Choice(number, gain, by_class, unlike, float(self._nearest[number]), self.known.copy())

    def _approach(self, descriptor: np.ndarray) -> None:
        """An image that looks like this is labelled, or will be."""
        if self._usual > 0:
            distance = np.linalg.norm(self.descriptors - descriptor, axis=1) / self._usual
            self._nearest = np.minimum(self._nearest, distance)


def standardized(descriptors: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with mean 0 and spread 1 of each value over `descriptors`; values without spread are 0."""
    mean, spread = descriptors.mean(axis=0), descriptors.std(axis=0)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-6)
    return (descriptors - mean) * scale, (others - mean) * scale


def _usual_distance(descriptors: np.ndarray) -> float:
    """The median distance of two images; 0 where images can't be told apart."""
    some = descriptors[:: max(1, len(descriptors) // _SAMPLE)]
    if len(some) < 2 or not some.shape[1]:
        return 0.0
    squares = (some**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * some @ some.T, 0))
    return float(np.median(distances[np.triu_indices(len(some), k=1)]))
