"""What a caller brings along to a run from outside: augmentation, optimizer, callbacks."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from fpn.data.dataset import Sample
from fpn.data.loading.augmentation.compositing import Partners
from fpn.data.loading.augmentation.config import AugmentationConfig
from fpn.errors import ConfigError, TrainingError
from fpn.training.callbacks import Callback, refuse_other_than_callbacks
from fpn.training.config import TrainConfig
from fpn.training.optimization import OptimizerFactory

Augmentation = Callable[[Sample, torch.Generator], Sample]

# Settings of what is built in, which do nothing beside what takes its place.
_OF_AUGMENTATION = tuple(AugmentationConfig.model_fields)
_OF_OPTIMIZER = ("optimizer", "momentum")


@dataclass(frozen=True, kw_only=True)
class Openings:
    """What takes the place of built-in parts, or looks on.

    Attributes:
        augment: instead of the random changes that the configuration describes; see `train`.
        optimizer: makes one from groups of weights, instead of the configuration's; see `train`.
        callbacks: see `Callback`.
    """

    augment: Augmentation | None = None
    optimizer: OptimizerFactory | None = None
    callbacks: Sequence[Callback] = ()

    def check(self, config: TrainConfig) -> None:
        """See that all of them can work, before anything else does.

        Raises:
            ConfigError: something can't be called, or not be sent to workers; or a setting would do nothing beside it.
        """
        refuse_other_than_callbacks(self.callbacks)
        for name, given, settings in (
            ("augment", self.augment, _OF_AUGMENTATION),
            ("optimizer", self.optimizer, _OF_OPTIMIZER),
        ):
            if given is not None:
                _refuse_unusable(name, given, settings, config)
        if self.augment is not None and config.workers != 0:
            _refuse_unsendable(self.augment)

    def describe(self) -> dict[str, str | None]:
        """Names of what decides the result, for `run.json`. What a callable has inside is not known."""
        given = {"augment": self.augment, "optimizer": self.optimizer}
        return {name: None if each is None else name_of(each) for name, each in given.items()}


@dataclass(frozen=True)
class OutsideAugmentation:
    """A caller's augmentation in the loader: it gets objects of its own, and what it returns is looked at.

    Attributes:
        augment: see `train`.
    """

    augment: Augmentation

    @property
    def wants_masks(self) -> bool:
        """It gets objects without masks, unless the detector learns from them."""
        return False

    def __call__(self, sample: Sample, random: torch.Generator, partners: Partners) -> Sample:
        """What the caller made of the sample; it sees no partners.

        Raises:
            TrainingError: that is no sample, or has a box without area.
        """
        # The dataset's own table must not change, else an image would look different from epoch to epoch.
        changed = self.augment(replace(sample, targets=copy.deepcopy(sample.targets)), random)
        name = name_of(self.augment)
        if not isinstance(changed, Sample):
            raise TrainingError(f"augment {name}: returned {type(changed).__name__}, expected a Sample")
        boxes = changed.targets.boxes
        wrong = ~((boxes[:, 2:] > boxes[:, :2]) & boxes.isfinite().view(-1, 2, 2).all(1)).all(1)
        if wrong.any():
            raise TrainingError(
                f"augment {name}: returned the box {boxes[wrong][0].tolist()}, expected x1 < x2 and y1 < y2 in pixels "
                "of the image. Leave out objects of which nothing is left."
            )
        return changed


def name_of(given: Callable[..., Any]) -> str:
    """Module and name of a function, of what a partial calls, or of an object's class."""
    while isinstance(given, partial):
        given = given.func
    named = given if hasattr(given, "__qualname__") else type(given)
    return f"{named.__module__}.{named.__qualname__}"


def _refuse_unusable(name: str, given: object, settings: Sequence[str], config: TrainConfig) -> None:
    if not callable(given):
        raise ConfigError(f"{name} {given!r}: expected something to call, got a {type(given).__name__}")
    fields = type(config).model_fields
    idle = [each for each in settings if getattr(config, each) != fields[each].default]
    if idle:
        said = ", ".join(f"{each}={getattr(config, each)!r}" for each in idle)
        raise ConfigError(f"{said}: would do nothing beside {name}={name_of(given)}, which takes its place")


def _refuse_unsendable(augment: Augmentation) -> None:
    try:
        pickle.dumps(augment)
    except Exception as error:
        raise ConfigError(
            f"augment {name_of(augment)}: can't be sent to the processes that read images ({error}). Define it at the "
            "top of a module, not inside of a function and not as a lambda; or read without them: workers=0."
        ) from error
