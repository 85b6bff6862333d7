"""What one row with one seed came to, and the folder where such outcomes are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fpn.errors import ConfigError, OutputError
from fpn.files import write_text

# Proposals are measured class-free (table 1), detections as COCO does (table 3). Sizes of proposals are at 1000.
PROPOSAL_FIGURES = ("ar100", "ar1000", "ar1000_small", "ar1000_medium", "ar1000_large")
DETECTION_FIGURES = ("ap50", "ap", "ap_small", "ap_medium", "ap_large")
FIGURES = PROPOSAL_FIGURES + DETECTION_FIGURES


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One row, trained and measured with one seed.

    Attributes:
        row: name of the design.
        seed: of the heads' first weights and of the order of images.
        figures: `FIGURES`, each 0..1, or None where there was nothing to measure.
        anchors: of the first held-out image, all levels.
        steps: optimizer steps.
        training_seconds, measuring_seconds: wall time.
    """

    row: str
    seed: int
    figures: Mapping[str, float | None]
    anchors: int
    steps: int
    training_seconds: float
    measuring_seconds: float


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a row costs, on one image.

    Attributes:
        detect_ms: from network pixels to detections.
        train_ms: losses and their gradients.
        parameters: weights, buffers not counted.
        multiply_adds: of one detection, convolutions and matrix products.
        detect_bytes: most memory in use at once while detecting: weights, maps and all between.
        train_bytes: likewise for losses and gradients; the optimizer's own state is not counted.
    """

    detect_ms: float
    train_ms: float
    parameters: int
    multiply_adds: int
    detect_bytes: int
    train_bytes: int


class OutcomeFolder:
    """An ablation's output folder: `settings.json`, then `results/` and `models/` with a file a row and seed.

    Every file is written atomically, and only when its row is complete: what is there can be counted on.
    """

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        """Take a new folder, or one that an ablation with the same settings began.

        Args:
            root: the folder.
            settings: all that decides the results but row and seed, JSON-able.

        Raises:
            ConfigError: it was begun with other settings.
            OutputError: it holds something else, or can't be written to.
        """
        self.root = root
        self.settings = json.loads(json.dumps(settings))  # tuples become lists, as in the file
        self._digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:16]
        self._claim()

    def model(self, row: str, seed: int) -> Path:
        """Where the trained detector is."""
        return self.root / "models" / f"{row}-{seed}.safetensors"

    def write(self, outcome: Outcome) -> None:
        """Keep an outcome."""
        self._write(self._result(outcome.row, outcome.seed), asdict(outcome))

    def read(self, row: str, seed: int) -> Outcome | None:
        """An outcome, if that row is complete with that seed.

        Raises:
            ConfigError: it was measured under other settings.
            OutputError: the file is damaged.
        """
        values = self._read(self._result(row, seed))
        return None if values is None else Outcome(**_known(values, Outcome))

    def outcomes(self, rows: tuple[str, ...]) -> Iterator[Outcome]:
        """All that are complete, by row in the order of `rows`, then by seed."""
        for row in rows:
            found = self.root.glob(f"results/{row}-*.json")
            for seed in sorted(int(path.stem.rpartition("-")[2]) for path in found):
                outcome = self.read(row, seed)
                if outcome is not None:
                    yield outcome

    def write_costs(self, costs: Mapping[str, Cost]) -> None:
        """Keep the costs of all rows, which were measured together."""
        self._write(self.root / "costs.json", {"rows": {row: asdict(cost) for row, cost in costs.items()}})

    def read_costs(self) -> dict[str, Cost]:
        """Costs by row; empty if they were not measured yet."""
        values = self._read(self.root / "costs.json")
        return {} if values is None else {row: Cost(**_known(cost, Cost)) for row, cost in values["rows"].items()}

    def _result(self, row: str, seed: int) -> Path:
        return self.root / "results" / f"{row}-{seed}.json"

    def _claim(self) -> None:
        path = self.root / "settings.json"
        if path.exists():
            before = _load(path)
            if before != self.settings:
                raise ConfigError(_other_settings(self.root, before, self.settings))
            return
        if self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir())):
            raise OutputError(f"{self.root}: holds something that is no ablation. Choose another --output.")
        write_text(path, json.dumps(self.settings, indent=2) + "\n")

    def _write(self, path: Path, values: Mapping[str, Any]) -> None:
        write_text(path, json.dumps({"settings": self._digest, **values}, indent=2) + "\n")

    def _read(self, path: Path) -> dict[str, Any] | None:
        if not path.exists():
            return None
        values = _load(path)
        if values.get("settings") != self._digest:
            raise ConfigError(
                f"{path}: was measured under other settings than {self.root / 'settings.json'} says, so it can't stand "
                "in the same table. Remove it, and its row is measured again."
            )
        return values


def _load(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: can't be read ({error}). Remove it, and it is made again.") from error
    if not isinstance(values, dict):
        raise OutputError(f"{path}: is not what an ablation wrote. Remove it, and it is made again.")
    return values


def _known(values: Mapping[str, Any], kind: type) -> dict[str, Any]:
    return {field.name: values[field.name] for field in fields(kind)}


def _other_settings(root: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    old, new = _flat(before), _flat(now)
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    more = f", and {len(changed) - 1} more settings differ" if len(changed) > 1 else ""
    return (
        f"{root}: was begun with {changed[0]} {old.get(changed[0])!r}, now it is {new.get(changed[0])!r}{more}. Rows "
        "measured under different settings can't be compared. Repeat the old ones, or choose another --output."
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
