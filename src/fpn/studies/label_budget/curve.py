"""A learning curve: error = c + a * n ** -b of n labelled images, with how sure each part of it is.

The power law is Hestness et al. 2017 (arXiv:1712.00409); Mahmood et al. 2022 (arXiv:2107.01198) use it to ask how many
labels a goal needs. A handful of noisy pilots fits many such curves, so that no best one is looked for: all of a grid
are weighed by how well they fit, and a forecast is drawn from them. The images that were measured on are drawn anew as
well, the same for all pilots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from fpn.errors import ConfigError
from fpn.evaluation.bootstrap import Interval

# What is believed of curves before any pilot: b about 0.5, two thirds of them within a factor of e ** 0.6; any share of
# the error may stay for ever. Few pilots can't tell b from that share, and then this decides.
_EXPONENTS = np.geomspace(0.05, 3.0, 32)
_USUAL_EXPONENT, _EXPONENT_SPREAD = 0.5, 0.6
_SHARES = (np.arange(20) + 0.5) / 20
# Levels that are looked at, around what the largest pilots reached.
_LEVELS = np.linspace(-0.1, 0.1, 50)
# Of a pilot's AP from one seed and choice of images to the next: what it was in drawn scenes, worth so many pilots.
_USUAL_NOISE, _NOISE_WORTH = 0.015, 3.0
# A curve need not be a power law: standard deviation of the error of that, a doubling beyond the largest pilot.
_BEYOND = 0.01
_DRAWS = 4000


@dataclass(frozen=True)
class LearningCurve:
    """Curves that fit the pilots, one a draw; more likely ones come more often.

    Attributes:
        largest: images of the largest pilots.
        level: (D,) error with so many images, 0..1.
        share: (D,) of it that no number of labels takes away.
        exponent: (D,) b.
        noise: (D,) standard deviation of a pilot's error.
        seed: of what is drawn for forecasts.
    """

    largest: int
    level: Float64[np.ndarray, " d"]
    share: Float64[np.ndarray, " d"]
    exponent: Float64[np.ndarray, " d"]
    noise: Float64[np.ndarray, " d"]
    seed: int = 0

    def errors(self, images: float) -> Float64[np.ndarray, " d"]:
        """Mean error of trainings on so many images, by each curve."""
        return _error(self.level, self.share, self.exponent, images / self.largest)

    def mean(self, images: float, confidence: float) -> Interval:
        """AP of trainings on so many images, on average over their seeds."""
        return _interval(1 - self._bent(images), confidence)

    def one(self, images: float, confidence: float) -> Interval:
        """AP of one training on so many images: what a single measurement is to be compared with."""
        drawn = np.random.default_rng((self.seed, 1)).standard_normal(len(self.level))
        return _interval(1 - self._bent(images) - self.noise * drawn, confidence)

    def gain(self, images: float, confidence: float) -> Interval:
        """AP of so many images less that of the largest pilots' number, both on average."""
        return _interval(self.errors(float(self.largest)) - self._bent(images), confidence)

    def ceiling(self, confidence: float) -> Interval:
        """AP of any number of images: what the curve approaches."""
        return _interval(1 - self.level * self.share, confidence)

    def _bent(self, images: float) -> Float64[np.ndarray, " d"]:
        """`errors`, with what a power law may be wrong by beyond the pilots."""
        doublings = max(0.0, math.log2(images / self.largest))
        drawn = np.random.default_rng((self.seed, 0)).standard_normal(len(self.level))
        return np.clip(self.errors(images) + _BEYOND * doublings * drawn, 0.0, 1.0)


def fit_curve(
    images: Sequence[int],
    errors: Sequence[float],
    *,
    resampled: Float64[np.ndarray, "r p"] | None = None,
    seed: int = 0,
) -> LearningCurve:
    """Curves through pilots.

    Args:
        images: how many each of P pilots was trained on.
        errors: 1 - AP of each.
        resampled: the errors again, each row on measured images that were drawn anew, the same ones for all pilots.
            None: these images are all that counts.
        seed: of the draw.

    Raises:
        ConfigError: fewer than three pilots, or all with the same number of images.
    """
    if len(images) < 3 or len(set(images)) < 2:
        raise ConfigError(f"{len(images)} pilots on {sorted(set(images))} images: a curve needs 3, of 2 sizes")
    measured = np.asarray(errors, dtype=np.float64)
    rows = measured[None] if resampled is None else _centred(resampled, measured)
    ratios = np.asarray(images, dtype=np.float64) / max(images)
    grid = _Grid(ratios, measured[ratios == 1.0].mean())
    random = np.random.default_rng(seed)
    drawn = [grid.draw(row, -(-_DRAWS // len(rows)), random) for row in rows]
    level, share, exponent, noise = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    return LearningCurve(max(images), level, share, exponent, noise, seed)


def _centred(resampled: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Rows around what was measured: images that are there twice make AP a little better than it is."""
    return np.asarray(resampled - resampled.mean(axis=0) + measured)


class _Grid:
    """Curves that are looked at, and what pilots would have found if they were true.

    Args:
        ratios: (P,) images of each pilot, of the largest ones' 1.
        level: error of the largest pilots, around which levels lie.
    """

    def __init__(self, ratios: np.ndarray, level: float) -> None:
        axes = np.meshgrid(level + _LEVELS, _SHARES, _EXPONENTS, indexing="ij")
        self.level, self.share, self.exponent = (axis.ravel() for axis in axes)
        columns = [_error(self.level, self.share, self.exponent, ratio) for ratio in ratios]
        self.told = np.stack(columns, axis=1)
        self.squares = (self.told**2).sum(axis=1)
        # Exponents lie on a geometric grid, so that a normal distribution of their logarithm needs no other factor.
        self.prior = -0.5 * (np.log(self.exponent / _USUAL_EXPONENT) / _EXPONENT_SPREAD) ** 2

    def draw(self, errors: np.ndarray, count: int, random: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Level, share, exponent and noise of some curves, by their probability given the pilots' errors.

        The noise's variance, of which an inverse gamma distribution is believed, is integrated out in closed form.
        """
        left = np.maximum((errors**2).sum() - 2 * self.told @ errors + self.squares, 0.0)
        degrees = (_NOISE_WORTH + len(errors)) / 2
        scale = (_NOISE_WORTH * _USUAL_NOISE**2 + left) / 2
        logarithm = self.prior - degrees * np.log(scale)
        weights = np.exp(logarithm - logarithm.max())
        chosen = random.choice(len(weights), size=count, p=weights / weights.sum())
        noise = np.sqrt(scale[chosen] / random.gamma(degrees, size=count))
        between = random.uniform(-0.5, 0.5, size=count) * (_LEVELS[1] - _LEVELS[0])
        return np.clip(self.level[chosen] + between, 0.0, 1.0), self.share[chosen], self.exponent[chosen], noise


def _error(level: np.ndarray, share: np.ndarray, exponent: np.ndarray, ratio: float) -> np.ndarray:
    """Of so many times the largest pilots' images. So few that nothing is found are as good as fewer of them."""
    return np.minimum(level * (share + (1 - share) * ratio**-exponent), 1.0)


def _interval(values: np.ndarray, confidence: float) -> Interval:
    outside = (1 - confidence) / 2
    low, middle, high = np.quantile(values, [outside, 0.5, 1 - outside])
    return Interval(float(middle), float(low), float(high))
