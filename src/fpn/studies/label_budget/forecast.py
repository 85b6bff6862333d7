"""What pilots say about more labels: figures with their intervals, and what they mean in sentences."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fpn.evaluation.bootstrap import Interval
from fpn.studies.label_budget.curve import LearningCurve, fit_curve
from fpn.studies.label_budget.pilots import PilotOutcome

# Times the images at hand that are forecast. Further out, a curve through so few pilots says nothing.
TIMES = (2, 4)
# A gain of fewer points than this is none worth the labels.
_WORTH = 0.01
# AP of pilots on all images below which they have learned too little to tell anything by.
_LEARNED = 0.05


@dataclass(frozen=True, kw_only=True)
class TimeHere:
    """How long trainings take on this machine.

    Attributes:
        pilot_step: seconds a step of a pilot.
        pilot_image: seconds an image that is measured.
        full_seconds: of the whole training that `fpn train` would do on all images.
        full_steps, full_step: its number of steps, and seconds of one.
    """

    pilot_step: float
    pilot_image: float
    full_seconds: float
    full_steps: int
    full_step: float

    def pilot_seconds(self, steps: int, measured: int) -> float:
        """Of one pilot of so many steps that is measured on so many images."""
        return steps * self.pilot_step + measured * self.pilot_image

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True)
class SizeForecast:
    """What so many images would bring.

    Attributes:
        times: the images at hand this often.
        images: how many that are.
        mean: AP of trainings like the pilots', on average over their seeds.
        one: AP of one such training, which a measurement is to be compared with.
        gain: `mean` less that of all images at hand.
    """

    times: int
    images: int
    mean: Interval
    one: Interval
    gain: Interval


@dataclass(frozen=True, kw_only=True)
class LabelForecast:
    """What more labels would bring.

    Attributes:
        dataset: what was learned from.
        held_out: name and number of the images that were measured on.
        confidence: of all intervals, 0..1.
        pilots: what they came to, small ones first.
        curve: through them.
        forecasts: of 2 and 4 times the images at hand.
        ceiling: AP that the curve approaches with any number of images.
        time: how long trainings take here.
        settings: all that decided the pilots.
    """

    dataset: str
    held_out: tuple[str, int]
    confidence: float
    pilots: Sequence[PilotOutcome]
    curve: LearningCurve
    forecasts: Sequence[SizeForecast]
    ceiling: Interval
    time: TimeHere
    settings: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        pilots: Sequence[PilotOutcome],
        *,
        dataset: str,
        held_out: tuple[str, int],
        confidence: float,
        time: TimeHere,
        settings: Mapping[str, Any],
    ) -> LabelForecast:
        """Fit the curve, and draw it further."""
        resampled = 1 - np.array([pilot.resampled for pilot in pilots]).T
        errors = [1 - max(pilot.ap, 0.0) for pilot in pilots]
        curve = fit_curve([pilot.images for pilot in pilots], errors, resampled=resampled)
        return cls(
            dataset=dataset,
            held_out=held_out,
            confidence=confidence,
            pilots=tuple(pilots),
            curve=curve,
            forecasts=tuple(forecast_size(curve, times, confidence) for times in TIMES),
            ceiling=curve.ceiling(confidence),
            time=time,
            settings=settings,
        )

    @property
    def images(self) -> int:
        """Labelled images at hand to learn from."""
        return self.curve.largest

    def sizes(self) -> dict[int, list[float]]:
        """Number of images -> AP of each pilot with so many, small ones first; quarters may differ by an image."""
        found: dict[int, list[PilotOutcome]] = {}
        for pilot in self.pilots:
            found.setdefault(pilot.part, []).append(pilot)
        return {
            round(statistics.fmean(each.images for each in some)): [each.ap for each in some]
            for _, some in sorted(found.items(), reverse=True)
        }

    def sentences(self) -> list[str]:
        """What the figures mean."""
        learned = statistics.fmean(pilot.ap for pilot in self.pilots if pilot.part == 1)
        if learned < _LEARNED:
            return [
                f"The pilots have learned next to nothing: {100 * learned:.1f} points of AP with all images. What the "
                "curve says of more labels means nothing yet.",
                f"Give each more than {self.pilots[-1].steps} steps (--steps, --time-budget), and another --output.",
            ]
        twice, sure = self.forecasts[0], f"{self.confidence:.0%}"
        low, high = 100 * twice.gain.low, 100 * twice.gain.high
        return [
            f"Twice the labels, {twice.images} images, would bring {100 * twice.gain.value:+z.1f} points of AP "
            f"({sure} interval {low:+z.1f} to {high:+z.1f}).",
            _verdict(twice.gain),
            f"No number of such labels would bring more than AP {self.ceiling.value:.2f} "
            f"({self.ceiling.low:.2f} to {self.ceiling.high:.2f}). That is what the fitted curve approaches: the noise "
            "of the labels, objects that can't be seen and the limits of so short a training are all in it.",
            "Pilots are small and short: a whole training reaches a higher AP. What carries over is how it grows with "
            "labels.",
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; an interval is its value, low and high end."""
        exponent = np.quantile(self.curve.exponent, [0.5, (1 - self.confidence) / 2, (1 + self.confidence) / 2])
        return {
            "dataset": self.dataset,
            "images": self.images,
            "held_out": {"name": self.held_out[0], "images": self.held_out[1]},
            "confidence": self.confidence,
            "pilots": [asdict(pilot) for pilot in self.pilots],
            "curve": {"form": "error = c + a * images ** -b", "b": exponent.tolist()},
            "forecasts": [_size_json(each) for each in self.forecasts],
            "ceiling": {"ap": _ends(self.ceiling), "reckoned": "1 - c of the fitted curve"},
            "time": self.time.to_dict(),
            "findings": self.sentences(),
            "settings": dict(self.settings),
        }


def forecast_size(curve: LearningCurve, times: int, confidence: float) -> SizeForecast:
    """What so many times the images at hand would bring."""
    images = times * curve.largest
    return SizeForecast(
        times,
        images,
        curve.mean(float(images), confidence),
        curve.one(float(images), confidence),
        curve.gain(float(images), confidence),
    )


def _verdict(gain: Interval) -> str:
    if gain.low >= _WORTH:
        return "Labels are what is missing: label more, the most telling ones first."
    if gain.high < _WORTH:
        return "More labels of this kind bring next to nothing: look at their quality, and train longer or larger."
    return "More labels may help or not: what is known does not say. More pilot steps or held-out images narrow it."


def _size_json(each: SizeForecast) -> dict[str, Any]:
    intervals = {"ap": each.mean, "ap_of_one_training": each.one, "gain": each.gain}
    return {"times": each.times, "images": each.images, **{name: _ends(value) for name, value in intervals.items()}}


def _ends(interval: Interval) -> list[float]:
    return [interval.value, interval.low, interval.high]
