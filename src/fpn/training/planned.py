"""What a recipe chose: settings with their reasons, and what a run and a detector take of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fpn.runtime.capacity import Capacity
from fpn.training.config import TrainConfig, detector_settings
from fpn.training.data_facts import DataFacts

DEFAULT_KIND = "faster_rcnn"


@dataclass(frozen=True)
class PlannedSetting:
    """One line of a plan.

    Attributes:
        name: of the option, with underscores.
        value: what holds.
        reason: why.
        given: who set it, such as "option"; empty: the recipe did.
    """

    name: str
    value: Any
    reason: str
    given: str = ""

    @property
    def option(self) -> str:
        """As one would type it."""
        name = self.name.replace("_", "-")
        if isinstance(self.value, bool):
            return f"--{name}" if self.value else f"--no-{name}"
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        return " ".join([f"--{name}", *(f"{each:g}" if isinstance(each, float) else str(each) for each in values)])


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What a recipe chose for a dataset on a device; `str` of it is a table for people.

    Attributes:
        recipe: its name.
        because: why that one.
        settings: one a line.
        facts: about the data.
        capacity: of the device.
        warnings: what costs quality, such as that there are no pretrained weights.
        notes: advice: what may help, which no recipe can know.
        given: all that was set by hand, by name.
    """

    recipe: str
    because: str
    settings: tuple[PlannedSetting, ...]
    facts: DataFacts
    capacity: Capacity
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chosen(self) -> dict[str, Any]:
        """What the recipe decided, by option; what was given is not in it."""
        return {each.name: each.value for each in self.settings if not each.given}

    @property
    def config(self) -> TrainConfig:
        """The settings of the run, as `fpn.train` takes them."""
        values = {**self.given, **self.chosen}
        return TrainConfig(**{name: value for name, value in values.items() if name in TrainConfig.model_fields})

    @property
    def shown(self) -> int:
        """Images that the run learns from, counted as often as they come."""
        config = self.config
        a_step = config.batch_size * config.accumulate
        return config.epochs * self.facts.images if config.steps is None else config.steps * a_step

    @property
    def kind(self) -> str:
        """Which detector: its preset is `fpn.detectors.named_preset(plan.kind)`."""
        return str(self.given.get("detector", DEFAULT_KIND))

    @property
    def detector(self) -> dict[str, Any]:
        """The settings of the detector, as the preset of its kind takes them beside `classes`."""
        values = {**self.given, **self.chosen}
        return detector_settings(self.kind, {k: v for k, v in values.items() if k not in TrainConfig.model_fields})

    def value(self, name: str) -> Any:
        """What holds for a setting of the plan, or that was given; None: neither."""
        return {**{each.name: each.value for each in self.settings}, **self.given}.get(name)

    def to_json(self) -> dict[str, Any]:
        """For `run.json`."""
        settings = {
            each.name: {"value": each.value, "reason": each.reason, "given": each.given} for each in self.settings
        }
        told = {"warnings": list(self.warnings), "notes": list(self.notes)}
        return {"recipe": self.recipe, "because": self.because, "settings": settings, **told}

    def __str__(self) -> str:
        lines = [f"recipe {self.recipe}: {self.because}", f"data: {self.facts}", f"device: {self.capacity}"]
        width = max((len(each.option) for each in self.settings), default=0)
        lines += [f"  {each.option:{width}}  {each.reason}" for each in self.settings]
        lines += [f"warning: {warning}" for warning in self.warnings]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])
