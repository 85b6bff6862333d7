"""An LR range test: the rate rises from step to step, and the losses show which rates teach and which break.

Smith 2015 (arXiv:1506.01186); that the rate rises exponentially and the suggestion is a tenth of the best one's is
fastai's. What is trained is a copy: neither the detector nor anybody's random numbers are touched.
"""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from fpn.data.dataset import Dataset
from fpn.detectors import Detector
from fpn.errors import ConfigError, TrainingError
from fpn.evaluation.known_truth import told_apart
from fpn.runtime.device import algorithms
from fpn.runtime.waiting import considerate
from fpn.training.config import TrainConfig
from fpn.training.openings import Openings
from fpn.training.pixel_range import agree_on_range
from fpn.training.run import Run
from fpn.training.setup import assemble, refuse_bad_data
from fpn.training.validation import find_metric

# Share of the running mean of the losses that each step keeps; and how far above its best the mean may rise.
_KEPT, _DIVERGED = 0.8, 4.0
# Standard deviation of the window that smooths, in steps.
_NEIGHBOURS = 3.0
# Fewer steps than these show nothing.
FEWEST_STEPS = 20
# The suggestion as a share of the rate where the loss is lowest.
_BELOW_LOWEST = 0.1
# A fall of the loss that is less than this share of it, or than its noise, is none.
_VISIBLE = 0.05


@dataclass(frozen=True)
class RisingRate:
    """A rate that rises by the same factor from step to step.

    Attributes:
        low, high: rates of the first and the last step.
        total: number of steps.
    """

    low: float
    high: float
    total: int

    def rate(self, step: int) -> float:
        """The rate of step 0, 1, ... total - 1."""
        return float(self.low * (self.high / self.low) ** (step / max(1, self.total - 1)))


@dataclass(frozen=True, kw_only=True)
class RateRange:
    """What a range test saw.

    Attributes:
        rates: of each step.
        losses: of each step, measured before its rate acted.
        smoothed: the same without the steps' own noise.
        suggestion: a peak rate for the run; None: the losses don't show one.
        lowest: the rate where the smoothed loss was lowest.
        steepest: the rate where it fell fastest; None: it never fell.
        reason: why this suggestion, or none.
        stopped: why the test ended.
        usual: the peak rate that the run would have without a suggestion.
        seconds: wall time.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float | None
    lowest: float
    steepest: float | None
    reason: str
    stopped: str
    usual: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def find_learning_rate(
    detector: Detector,
    dataset: Dataset,
    config: TrainConfig | None = None,
    *,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
    seconds: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> RateRange:
    """Train a copy of a detector for some steps at rising rates, and suggest a peak rate for its run.

    The detector and all sources of random numbers are as before afterwards, so that a run is the same to the bit
    whether this was called before it or not.

    Args:
        detector: what is to be trained.
        dataset: what it is to learn from.
        config: of the run: optimizer, batch, augmentation, ...; None: the defaults.
        low, high: the first and the last rate.
        steps: how many there are between them; the test ends sooner where the loss breaks.
        seconds: of wall time after which it ends; None: however long it takes.
        progress: called with the number of steps done.

    Raises:
        ConfigError: rates or steps out of range, or the data's classes are not the detector's.
        TrainingError: no images or no objects.
    """
    config = config or TrainConfig()
    _check(low, high, steps, seconds)
    dataset = told_apart(detector, dataset)
    refuse_bad_data(detector, dataset, None, find_metric("ap"))
    began = time.monotonic()
    with _same_randomness(), considerate(lambda _: None), algorithms(config.deterministic):
        run = _begin(copy.deepcopy(detector), dataset, config, RisingRate(low, high, steps))
        usual = run.schedule.rate(steps)
        run.schedule = RisingRate(low, high, steps)
        try:
            losses, stopped = _climb(run, began + (math.inf if seconds is None else seconds), progress)
        finally:
            run.loader.close()
    rates = [run.schedule.rate(step) for step in range(len(losses))]
    return judge(rates, losses, stopped=stopped, usual=usual, seconds=time.monotonic() - began)


def _check(low: float, high: float, steps: int, seconds: float | None) -> None:
    if not 0 < low < high < math.inf:
        raise ConfigError(f"low {low:g}, high {high:g}: expected rates above 0, the first below the second")
    if steps < FEWEST_STEPS:
        raise ConfigError(f"steps {steps}: a range test needs at least {FEWEST_STEPS}, better 100")
    if seconds is not None and not seconds > 0:
        raise ConfigError(f"seconds {seconds:g}: expected more than 0")


@contextmanager
def _same_randomness() -> Iterator[None]:
    """All sources of random numbers are afterwards what they were."""
    own, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count())
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(own)
        np.random.set_state(numpy)


def _begin(detector: Detector, dataset: Dataset, config: TrainConfig, rising: RisingRate) -> Run:
    """A run whose schedule is still that of the configuration, without warm-up or fall."""
    alone = {"workers": 0, "tracker": (), "compile": False, "skip_unreadable": True, "ema_decay": 0.0}
    length = {"steps": rising.total, "warmup_steps": 0, "schedule": "constant"}
    changed = TrainConfig(**{**config.model_dump(), **alone, **length})
    dataset, _, _ = agree_on_range(detector, dataset, None)
    return assemble(detector, dataset, changed, None, openings=Openings())


def _climb(run: Run, until: float, progress: Callable[[int], None] | None) -> tuple[list[float], str]:
    """The loss of each step, and why there are no more of them."""
    losses: list[float] = []
    mean = lowest = math.inf
    while len(losses) < run.total:
        for group in run.groups():
            try:
                run.take_step(group)
            except TrainingError:  # a CPU looks at each step before it changes the weights
                return losses, "the loss was not finite any more"
            loss = run.meter.read()["loss"]
            if not math.isfinite(loss):
                return losses, "the loss was not finite any more"
            losses.append(loss)
            mean = loss if math.isinf(mean) else _KEPT * mean + (1 - _KEPT) * loss
            lowest = min(lowest, mean)
            if progress is not None:
                progress(len(losses))
            if mean > _DIVERGED * lowest:
                return losses, f"the loss rose above {_DIVERGED:g} times its lowest value"
            if len(losses) >= run.total:
                break
            if time.monotonic() > until:
                return losses, "its time was over"
        run.position.epoch, run.position.batch = run.position.epoch + 1, 0
    return losses, "the highest rate was reached"


def judge(rates: Sequence[float], losses: Sequence[float], *, stopped: str, usual: float, seconds: float) -> RateRange:
    """What the losses of a test say.

    Args:
        rates, losses: of each step.
        stopped: why the test ended.
        usual: the run's peak rate otherwise.
        seconds: that it took.

    Raises:
        TrainingError: there are too few steps to say anything.
    """
    if len(losses) < FEWEST_STEPS // 2:
        raise TrainingError(
            f"the range test ended after {len(losses)} steps, at a rate of {rates[-1] if rates else 0:.2g}: {stopped}. "
            "Begin at a lower rate, or give it more time."
        )
    smoothed = smooth(losses)
    best = int(np.argmin(smoothed))
    fell, noise = smoothed[0] - smoothed[best], float(np.std(np.subtract(losses, smoothed)[: best + 1]))
    steepest = None
    if best > 0:
        slopes = np.diff(np.asarray(smoothed[: best + 1]))
        steepest = rates[int(np.argmin(slopes))]
    suggestion, reason = None, "the loss hardly fell at any rate, so that no rate is better than another here"
    if fell > max(_VISIBLE * abs(smoothed[0]), noise):
        suggestion = _round(_BELOW_LOWEST * rates[best])
        reason = f"a tenth of {rates[best]:.1e}, where the loss was lowest; beyond it, it rises"
        if best >= len(losses) - 2:
            reason = f"a tenth of {rates[best]:.1e}, where the loss still fell when the test ended: it may be too low"
    return RateRange(
        rates=tuple(rates),
        losses=tuple(losses),
        smoothed=smoothed,
        suggestion=suggestion,
        lowest=rates[best],
        steepest=steepest,
        reason=reason,
        stopped=stopped,
        usual=usual,
        seconds=seconds,
    )


def smooth(losses: Sequence[float]) -> tuple[float, ...]:
    """Means of neighbours on both sides, near ones counting most: noise goes, and nothing is shifted to later steps."""
    values, places = np.asarray(losses, dtype=np.float64), np.arange(len(losses))
    weights = np.exp(-0.5 * ((places[:, None] - places[None]) / _NEIGHBOURS) ** 2)
    return tuple((weights @ values / weights.sum(axis=1)).tolist())


def _round(rate: float) -> float:
    """To two digits: more of them say nothing."""
    return float(f"{rate:.1e}")
