"""What others see of a run: the base of callbacks, the view that they are given, and who calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from fpn.detectors import Detector
from fpn.errors import ConfigError, TrainingError
from fpn.training.loss_monitor import StepValues
from fpn.training.run import Run

Event = Literal["begin", "step", "epoch", "end"]


@dataclass(frozen=True, kw_only=True)
class RunView:
    """Where a run is. It holds still: what happens later does not change it, but for the detector's weights.

    Attributes:
        step: optimizer steps done.
        steps: optimizer steps of the whole run.
        epoch: the one that the latest step belongs to: 1, 2, ...; 0: no step yet.
        epochs: epochs of the whole run.
        metrics: of the latest validation in this process by name, such as "ap" in 0..1; empty before the first.
        detector: to look at and to predict with, never to change. In `epoch` and `end` it has the weights that are
            validated and saved (averaged ones, unless `ema_decay` is 0), in `begin` and `step` those that learn.
        folder: the run's folder, or None.
        latest: the latest step's numbers as they are on the device; `losses` reads them.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    metrics: Mapping[str, float]
    detector: Detector = field(repr=False)
    folder: Path | None
    latest: StepValues | None = field(repr=False)

    @property
    def losses(self) -> Mapping[str, float]:
        """The latest step's "loss", then its terms, of this process's images; empty before the first step.

        A GPU is waited for each time, so ask in every step only if that is worth it.
        """
        if self.latest is None:
            return {}
        named = self.latest.named()
        return {name: named[name] for name in ("loss", *self.latest.terms)}


class Callback:
    """The base of what is called while a detector trains: override what you need.

    Of several processes only the first one calls, while the others wait: a callback must not talk to them. It looks on,
    and what it draws from global sources of randomness changes nothing. An exception ends the run, with a note that
    names the callback and what was saved; a callback that has changed weights, statistics, gradients or modes of the
    detector ends it, too. After `--resume`, steps since the last checkpoint are done and told once more.
    """

    def begin(self, view: RunView) -> None:
        """Before the first step, also the first one after a resume."""

    def step(self, view: RunView) -> None:
        """After each optimizer step, its log line and its checkpoint."""

    def epoch(self, view: RunView) -> None:
        """After each epoch, its validation and its checkpoint."""

    def end(self, view: RunView) -> None:
        """After the last epoch, with the best weights in the detector; not after an error or Ctrl-C."""


class Callbacks:
    """Calls callbacks in their order, and sees to it that they only look.

    Args:
        callbacks: those of the first process; the others have none.
        run: what they look at.
        folder: the run's folder, or None.
        hint: says what was saved and how to go on.
    """

    def __init__(
        self, callbacks: Sequence[Callback], run: Run, folder: Path | None, *, hint: Callable[[], str]
    ) -> None:
        self._callbacks = tuple(callbacks) if run.processes.first else ()
        self._run = run
        self._folder = folder
        self._hint = hint
        self._watch = _Watch(run.detector)

    def call(self, event: Event, metrics: Mapping[str, float]) -> None:
        """Call every callback.

        Raises:
            TrainingError: one has changed the detector.
            Exception: what a callback raised, with a note.
        """
        if not self._callbacks:
            return
        view = self._view(metrics)
        for callback in self._callbacks:
            before = self._watch.look()
            try:
                getattr(callback, event)(view)
                self._refuse_change(before, callback)
            except Exception as error:
                error.add_note(self._where(callback, event))
                raise

    def _view(self, metrics: Mapping[str, float]) -> RunView:
        run, position = self._run, self._run.position
        return RunView(
            step=position.step,
            steps=run.total,
            epoch=position.epoch + (position.batch > 0),
            epochs=run.epochs,
            metrics=MappingProxyType(dict(metrics)),
            detector=run.detector,
            folder=self._folder,
            latest=run.meter.latest,
        )

    def _refuse_change(self, before: Mapping[str, object], callback: Callback) -> None:
        after = self._watch.look()
        changed = next((name for name in after if after[name] != before[name]), None)
        if changed is not None:
            raise TrainingError(
                f"callback {_name(callback)}: has changed the detector's {changed}, but callbacks may only look. "
                "`predict` leaves all as it was; for anything else work on a copy (copy.deepcopy)."
            )

    def _where(self, callback: Callback, event: Event) -> str:
        return f"in `{event}` of the callback {_name(callback)} after step {self._run.position.step}; {self._hint()}"


def _name(callback: Callback) -> str:
    kind = type(callback)
    return f"{kind.__module__}.{kind.__qualname__}"


class _Watch:
    """Notices changes of a detector without reading its weights: torch counts how often each tensor was written to."""

    def __init__(self, detector: Detector) -> None:
        self._tensors = list(detector.state_dict(keep_vars=True).items())
        self._modules = list(detector.named_modules())

    def look(self) -> dict[str, object]:
        tensors = {name: (tensor._version, tensor.grad is None) for name, tensor in self._tensors}
        modes = {f"mode ({name or 'as a whole'})": module.training for name, module in self._modules}
        return {**tensors, **modes}


def refuse_other_than_callbacks(callbacks: Sequence[object] | Callback) -> None:
    """Stop at what can't be called.

    Raises:
        ConfigError: something is no instance of a subclass of `Callback`.
    """
    if isinstance(callbacks, Callback):
        raise ConfigError(f"callbacks: expected a list, got {_name(callbacks)} alone. Write callbacks=[...].")
    for place, callback in enumerate(callbacks):
        if not isinstance(callback, Callback):
            what = callback.__name__ if isinstance(callback, type) else repr(callback)
            remedy = f"Write {what}() instead of {what}." if isinstance(callback, type) else "Derive its class from it."
            raise ConfigError(f"callbacks[{place}]: {what} is no instance of fpn.Callback. {remedy}")
