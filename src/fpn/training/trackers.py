"""Experiment trackers, by accelerate's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from fpn.errors import ConfigError, MissingExtraError, TrainingError

# What a tracker's package is called where pip gets it, if not like the tracker.
_PACKAGES = {"comet_ml": "comet-ml", "tensorboard": "fpn[tensorboard]"}
# The project, or experiment, that runs appear under.
_PROJECT = "fpn"


def check_trackers(names: Sequence[str], output: Path | None) -> None:
    """See that trackers can be started.

    Raises:
        ConfigError: accelerate has no such tracker, or it writes files and there is no folder.
        MissingExtraError: its package is not installed.
    """
    installed = [str(name) for name in get_available_trackers()]
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ConfigError(f"tracker {name!r}: the installed accelerate has {', '.join(LOGGER_TYPE_TO_CLASS)}")
        if name not in installed:
            package = _PACKAGES.get(name, name)
            raise MissingExtraError(f"tracker {name!r}: is not installed. Get it with: pip install '{package}'")
        if output is None and LOGGER_TYPE_TO_CLASS[name].requires_logging_directory:
            raise ConfigError(f"tracker {name!r}: needs an output folder to write to")


class Trackers:
    """A run's trackers, to which the first process speaks.

    Args:
        accelerator: knows them by `names`.
        names: see `check_trackers`; may be empty.
    """

    def __init__(self, accelerator: Accelerator, names: Sequence[str]) -> None:
        self._accelerator = accelerator
        self._names = tuple(names)

    def start(self, settings: Mapping[str, Any]) -> None:
        """Begin a run in each of them.

        Args:
            settings: the run's, by name; told as text where they are no plain values.

        Raises:
            ConfigError: a tracker does not start, for want of a login, say.
        """
        if not self._names:
            return
        plain = (str, int, float)
        values = {name: value if isinstance(value, plain) else str(value) for name, value in settings.items()}
        try:
            self._accelerator.init_trackers(_PROJECT, values)
        except Exception as error:
            raise ConfigError(f"tracker {', '.join(self._names)}: can't be started ({_say(error)})") from error

    def write(self, line: Mapping[str, Any]) -> None:
        """Send the numbers of one line of `metrics.jsonl`, as "step/loss" or "epoch/ap".

        Raises:
            TrainingError: a tracker does not take them.
        """
        if not self._names:
            return
        kind = line["kind"]
        values = {f"{kind}/{name}": value for name, value in line.items() if name not in ("kind", "step")}
        try:
            self._accelerator.log(values, step=line["step"])
        except Exception as error:
            raise TrainingError(
                f"tracker {', '.join(self._names)}: failed after step {line['step']} ({_say(error)}). The last "
                "checkpoint is intact: --resume goes on from there, with this tracker or with others."
            ) from error


def _say(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
