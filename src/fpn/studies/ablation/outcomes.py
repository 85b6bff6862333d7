"""What one row with one seed came to, and the folder where such outcomes are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fpn.studies.study_folder import StudyFolder

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


class OutcomeFolder(StudyFolder):
    """An ablation's output folder: `settings.json`, then `results/` and `models/` with a file a row and seed."""

    verb, part = "fpn ablate", "row"

    def model(self, row: str, seed: int) -> Path:
        """Where the trained detector is."""
        return self.root / "models" / f"{row}-{seed}.safetensors"

    def write(self, outcome: Outcome) -> None:
        """Keep an outcome."""
        self.keep(self._result(outcome.row, outcome.seed), asdict(outcome))

    def read(self, row: str, seed: int) -> Outcome | None:
        """An outcome, if that row is complete with that seed.

        Raises:
            ConfigError: it was measured under other settings.
            OutputError: the file is damaged.
        """
        values = self.kept(self._result(row, seed))
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
        self.keep(self.root / "costs.json", {"rows": {row: asdict(cost) for row, cost in costs.items()}})

    def read_costs(self) -> dict[str, Cost]:
        """Costs by row; empty if they were not measured yet."""
        values = self.kept(self.root / "costs.json")
        return {} if values is None else {row: Cost(**_known(cost, Cost)) for row, cost in values["rows"].items()}

    def _result(self, row: str, seed: int) -> Path:
        return self.root / "results" / f"{row}-{seed}.json"


def _known(values: Mapping[str, Any], kind: type) -> dict[str, Any]:
    return {field.name: values[field.name] for field in fields(kind)}
