"""From which score on a detection is taken to be one: a threshold for each class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from fpn.errors import ConfigError
from fpn.structures.classes import Classes
from fpn.structures.instances import Detections


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The operating point of a detector.

    Attributes:
        scores: K scores 0..1 in label order; a detection of class k counts from `scores[k]` on.
        goal: what they were chosen for, such as "f1" or "precision 0.9".
        dataset: name of the images that they were chosen on.
        images: how many these were.
        reached: K flags, whether the class reaches the goal on these images.
    """

    scores: tuple[float, ...]
    goal: str
    dataset: str
    images: int
    reached: tuple[bool, ...]

    def __post_init__(self) -> None:
        wrong = [score for score in self.scores if not 0 <= score <= 1]  # NaN is not, either
        if wrong:
            raise ConfigError(f"threshold {wrong[0]}: a score from 0 to 1")
        if len(self.reached) != len(self.scores):
            raise ConfigError(f"{len(self.scores)} thresholds, but {len(self.reached)} flags of what is reached")

    def __len__(self) -> int:
        return len(self.scores)

    def which(self, found: Detections) -> Bool[Tensor, " n"]:
        """Which detections reach their class's threshold: `found[thresholds.which(found)]`."""
        # As double: a score of float32 that is a threshold's very value must reach it.
        scores = torch.tensor(self.scores, dtype=torch.float64, device=found.scores.device)
        return found.scores.double() >= scores[found.labels]

    def by_class(self, classes: Classes) -> dict[str, float]:
        """Class name -> threshold."""
        return dict(zip(classes, self.scores, strict=True))

    def to_json(self) -> dict[str, Any]:
        """As a model file holds it."""
        return {
            "scores": list(self.scores),
            "goal": self.goal,
            "dataset": self.dataset,
            "images": self.images,
            "reached": list(self.reached),
        }


def read_thresholds(values: object, classes: int) -> Thresholds:
    """Check thresholds that came from a file.

    Raises:
        ConfigError: not what `to_json` writes for so many classes.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"thresholds are {type(values).__name__}, not a table")
    scores, reached = (_list(values.get(key), key, classes) for key in ("scores", "reached"))
    if not all(_is_number(score) for score in scores) or not all(isinstance(flag, bool) for flag in reached):
        raise ConfigError("thresholds: expected numbers under scores and true or false under reached")
    goal, dataset, images = (values.get(key) for key in ("goal", "dataset", "images"))
    if not isinstance(goal, str) or not isinstance(dataset, str) or not isinstance(images, int):
        raise ConfigError("thresholds: expected texts under goal and dataset, and a whole number under images")
    return Thresholds(tuple(float(score) for score in scores), goal, dataset, images, tuple(reached))


def _list(value: object, key: str, length: int) -> Sequence[Any]:
    if not isinstance(value, list) or len(value) != length:
        raise ConfigError(f"thresholds: expected a list of {length} under {key}, one a class")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
