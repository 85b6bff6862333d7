"""Looking at the losses without making the device wait: running means, and the watch for values that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fpn.errors import TrainingError
from fpn.structures import LossTerms


@dataclass(frozen=True)
class StepValues:
    """One optimizer step's numbers, still on the device.

    Attributes:
        terms: names of the loss terms; the first `len(terms)` values.
        counts: names of the counts; the next ones. The last value is the gradient's norm.
        values: (len(terms) + len(counts) + 1,) float32.
    """

    terms: tuple[str, ...]
    counts: tuple[str, ...]
    values: Tensor

    @classmethod
    def of(cls, losses: Sequence[LossTerms], gradient_norm: Tensor) -> StepValues:
        """Means of a step's forward passes (more than one when gradients are accumulated)."""
        first = losses[0]
        rows = [
            torch.stack([value.detach().float() for value in (*one.terms.values(), *one.counts.values())])
            for one in losses
        ]
        values = torch.cat((torch.stack(rows).mean(0), gradient_norm.detach().float().reshape(1)))
        return cls(tuple(first.terms), tuple(first.counts), values)

    def named(self) -> dict[str, float]:
        """The numbers by name, the terms' total as "loss" first. Waits for the device."""
        return _named(self.terms, self.counts, self.values.tolist())


class Meter:
    """Running means over a log interval.

    Attributes:
        latest: what was added last, or None.
        sum: of what was added in the interval, or None.
        steps: how many that were.
    """

    def __init__(self) -> None:
        self.latest: StepValues | None = None
        self.steps = 0
        self.sum: Tensor | None = None

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the loss terms; none before the first step."""
        return () if self.latest is None else self.latest.terms

    def add(self, step: StepValues) -> None:
        """Count one step in, without waiting for it."""
        self.latest = step
        self.sum = step.values if self.sum is None else self.sum + step.values
        self.steps += 1

    def read(self, reduce: Callable[[Tensor], Tensor] = lambda mean: mean) -> dict[str, float]:
        """Means by name with their total as "loss" first; starts the next interval. One wait for the device.

        Args:
            reduce: takes the mean over processes.
        """
        assert self.sum is not None, "nothing was added since the last reading"
        assert self.latest is not None, "what was loaded is read after the next step"
        means = reduce(self.sum / self.steps).tolist()
        self.steps, self.sum = 0, None
        return _named(self.latest.terms, self.latest.counts, means)

    def load(self, steps: int, total: Tensor | None) -> None:
        """Go on in the middle of an interval."""
        self.steps, self.sum = steps, total


def _named(terms: Sequence[str], counts: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    named = dict(zip((*terms, *counts, "gradient_norm"), values, strict=True))
    return {"loss": math.fsum(values[: len(terms)]), **named}


class LossWatch:
    """Stops a run whose losses or gradients are not finite, and names the images.

    On a CPU looking costs nothing, so each step is looked at before it changes the weights. On a GPU every look would
    make it wait, so steps are kept and looked at together: at each log interval and before each checkpoint.

    Args:
        immediate: look at every step.
        names: from an image's index to its name.
        remedy: the last sentence of the message.
    """

    def __init__(self, *, immediate: bool, names: Callable[[int], str], remedy: str) -> None:
        self._immediate = immediate
        self._names = names
        self._remedy = remedy
        self._kept: list[tuple[int, StepValues, list[int]]] = []

    def add(self, step: int, values: StepValues, indices: list[int]) -> None:
        """Keep a step's values and images; look at once if that is free."""
        self._kept.append((step, values, indices))
        if self._immediate:
            self.look()

    def look(self) -> None:
        """Look at all steps kept.

        Raises:
            TrainingError: a value is not finite; names step, terms and images.
        """
        kept, self._kept = self._kept, []
        if not kept:
            return
        finite = torch.stack([values.values.isfinite().all() for _, values, _ in kept]).tolist()
        if not all(finite):
            self._stop(*kept[finite.index(False)])

    def _stop(self, step: int, values: StepValues, indices: list[int]) -> None:
        names = (*values.terms, *values.counts, "gradient_norm")
        wrong = [f"{n} = {v}" for n, v in zip(names, values.values.tolist(), strict=True) if not math.isfinite(v)]
        images = "\n  ".join(self._names(index) for index in indices)
        raise TrainingError(
            f"step {step}: {', '.join(wrong)} is not finite. Images in that step:\n  {images}\n"
            f"Look at their boxes with `fpn check`, or train with a lower --learning-rate. {self._remedy}"
        )
