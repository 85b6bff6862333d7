"""Pilots: which images each learns from, and what it came to.

The images are dealt into four quarters with the same share of every class. Each quarter is a pilot, so are both halves
that they make, and all images together with two seeds. Every image is used equally often for each size, so that no
size has the easier ones; and pilots of one size share no image, so that their spread shows chance as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from fpn.data.dataset import Dataset
from fpn.data.division import stratify
from fpn.data.split import count_objects
from fpn.errors import DataError
from fpn.studies.study_folder import StudyFolder

# Fewer labelled images than these, held-out ones included, make no curve.
FEWEST_IMAGES = 20
_NAMES = {4: "quarter", 2: "half", 1: "all"}
_WHOLE = 2


@dataclass(frozen=True)
class Pilot:
    """One training to come.

    Attributes:
        part: all images are so many times those of the pilot: 4, 2 or 1.
        number: of the pilot among those with that part, 1, 2, ...
        rows: numbers of its images.
        seed: of its training.
    """

    part: int
    number: int
    rows: tuple[int, ...]
    seed: int

    @property
    def name(self) -> str:
        """Such as "quarter 3"."""
        return f"{_NAMES[self.part]} {self.number}"


@dataclass(frozen=True, kw_only=True)
class PilotOutcome:
    """What a pilot came to.

    Attributes:
        part, number, seed: as the pilot has them.
        images: how many it learned from.
        ap, ap50: on the held-out images.
        resampled: AP again, on held-out images drawn with replacement; the same draws for all pilots.
        steps: optimizer steps.
        training_seconds, measuring_seconds: wall time.
    """

    part: int
    number: int
    seed: int
    images: int
    ap: float
    ap50: float
    resampled: Sequence[float]
    steps: int
    training_seconds: float
    measuring_seconds: float


class PilotFolder(StudyFolder):
    """The folder of a label budget: `settings.json`, then `pilots/` with a file each."""

    verb, part = "fpn plan", "pilot"

    def write(self, pilot: Pilot, outcome: PilotOutcome) -> None:
        """Keep an outcome."""
        self.keep(self._file(pilot), asdict(outcome))

    def read(self, pilot: Pilot) -> PilotOutcome | None:
        """An outcome, if that pilot is complete.

        Raises:
            ConfigError: it was measured under other settings.
            OutputError: the file is damaged.
        """
        values = self.kept(self._file(pilot))
        if values is None:
            return None
        return PilotOutcome(**{each.name: values[each.name] for each in fields(PilotOutcome)})

    def _file(self, pilot: Pilot) -> Path:
        return self.root / "pilots" / f"{pilot.name.replace(' ', '-')}.json"


def refuse_few(dataset: Dataset, images: int) -> None:
    """Stop if that many images, those to measure on included, make no curve.

    Raises:
        DataError: they don't.
    """
    if images < FEWEST_IMAGES:
        raise DataError(_too_few(dataset.name, f"{images} labelled images"))


def _too_few(name: str, images: str) -> str:
    return (
        f"{name}: {images} are too few for a learning curve, since a quarter of them shows nothing. Label at least "
        f"{FEWEST_IMAGES} images first, better 50."
    )


def deal_pilots(dataset: Dataset, *, seed: int) -> list[Pilot]:
    """The pilots, small ones first.

    Args:
        dataset: what there is to learn from.
        seed: of the deal; the pilots' own seeds follow it.

    Raises:
        DataError: there are too few images.
    """
    if len(dataset) < FEWEST_IMAGES // 2:
        raise DataError(_too_few(dataset.name, f"{len(dataset)} images to learn from"))
    shares = {str(part): 0.25 for part in range(4)}
    dealt = stratify(count_objects(dataset), np.arange(len(dataset)), shares, seed=seed)
    quarters = list(dealt.values())
    halves = [quarters[0] + quarters[1], quarters[2] + quarters[3]]
    groups = [(4, quarters), (2, halves), (1, [list(range(len(dataset)))] * _WHOLE)]
    numbered = [(part, number, rows) for part, parts in groups for number, rows in enumerate(parts, start=1)]
    return [
        Pilot(part, number, tuple(sorted(rows)), seed + place) for place, (part, number, rows) in enumerate(numbered)
    ]
