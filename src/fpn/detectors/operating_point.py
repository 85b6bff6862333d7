"""Which of its detections a detector gives: those from one score on, or from each class's own threshold on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from jaxtyping import Bool
from torch import Tensor

from fpn.errors import ConfigError
from fpn.structures import Detections, Thresholds

# What `predict` takes: a score, "calibrated", or None for calibrated where that is there, else everything.
Score: TypeAlias = float | Literal["calibrated"] | None
# From which score on detections are shown where nobody said and the model was not calibrated.
USUAL_SCORE = 0.5


def choose_score(score: Score, thresholds: Thresholds | None) -> float | Thresholds:
    """A score for all classes, or each class's own.

    Raises:
        ConfigError: not a score, or calibrated ones are asked for that are not there.
    """
    if score is None:
        return 0.0 if thresholds is None else thresholds
    if score == "calibrated":
        if thresholds is None:
            raise ConfigError(
                'score "calibrated": this model has no thresholds yet. `fpn calibrate MODEL DATA` chooses them; or '
                "give a number."
            )
        return thresholds
    if not isinstance(score, int | float) or not 0 <= score <= 1:
        raise ConfigError(f'score {score!r}: a number from 0 to 1, or "calibrated"')
    return float(score)


def middle_score(thresholds: Iterable[float]) -> float:
    """One score for all classes in place of each one's own: the middle one, of an even number the upper."""
    ordered = sorted(thresholds)
    return float(ordered[len(ordered) // 2])


def sure_ones(found: Detections, chosen: float | Thresholds) -> Detections:
    """The detections that reach the score, or their class's threshold."""
    return found if chosen == 0 else found[are_sure(found, chosen)]


def are_sure(found: Detections, chosen: float | Thresholds) -> Bool[Tensor, " N"]:
    """Which detections reach the score, or their class's threshold."""
    return chosen.which(found) if isinstance(chosen, Thresholds) else found.scores >= chosen
