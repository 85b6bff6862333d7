"""Means over seeds, and differences that are paired by seed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fpn.studies.ablation.outcomes import Outcome

# A mean difference that exceeds this many standard deviations of the seeds' differences is outside their spread. With
# 3 seeds it is a t of 3.5 with 2 degrees of freedom: by chance in 4 of 100 cases.
CLEAR = 2.0


@dataclass(frozen=True, slots=True)
class Spread:
    """Some numbers' mean and standard deviation.

    Attributes:
        mean: of all.
        deviation: of a sample; None for a single number, which says nothing about spread.
        count: how many.
    """

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one number."""
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), deviation, len(values))

    @property
    def clear(self) -> bool:
        """Whether the mean is away from 0 by more than the spread explains."""
        return self.deviation is not None and abs(self.mean) > CLEAR * self.deviation


def values(outcomes: Iterable[Outcome], row: str, figure: str) -> dict[int, float]:
    """Seed -> figure, where it could be measured."""
    found = {outcome.seed: outcome.figures[figure] for outcome in outcomes if outcome.row == row}
    return {seed: value for seed, value in found.items() if value is not None}


def summary(outcomes: Iterable[Outcome], row: str, figure: str) -> Spread | None:
    """A row's figure over its seeds; None where nothing was measured."""
    found = values(outcomes, row, figure)
    return Spread.of(list(found.values())) if found else None


def paired(outcomes: Sequence[Outcome], row: str, other: str, figure: str) -> Spread | None:
    """`row` minus `other`, seed by seed, over the seeds that both have; None where there is none."""
    ours, theirs = values(outcomes, row, figure), values(outcomes, other, figure)
    differences = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    return Spread.of(differences) if differences else None


def ranking(outcomes: Sequence[Outcome], rows: Iterable[str], figure: str) -> list[str]:
    """Rows by their mean figure, best first; those without one are left out."""
    means: Mapping[str, Spread | None] = {row: summary(outcomes, row, figure) for row in rows}
    known = {row: spread.mean for row, spread in means.items() if spread is not None}
    return sorted(known, key=lambda row: -known[row])
