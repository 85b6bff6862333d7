"""Training and measuring the rows, one after the other, and going on where an earlier call stopped."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fpn.data.dataset import Dataset
from fpn.detectors import Detector, TwoStageDetector, faster_rcnn, load, save
from fpn.detectors.builder import refuse_unfit_parts
from fpn.detectors.presets import preset_dialect
from fpn.errors import ConfigError, DataError
from fpn.evaluation import Evaluation, evaluate
from fpn.features.necks.designs import DESIGNS, PAPER_ROWS
from fpn.shapes import Size
from fpn.studies.ablation.costs import measure_costs
from fpn.studies.ablation.outcomes import DETECTION_FIGURES, PROPOSAL_FIGURES, Outcome, OutcomeFolder
from fpn.studies.ablation.settings import BudgetSettings, DetectorSettings
from fpn.studies.screen import Screen
from fpn.studies.study_folder import about_dataset
from fpn.suggestions import nearest
from fpn.training.config import FREE_ON_RESUME
from fpn.training.precision import choose_precision
from fpn.training.trainer import train
from fpn.wording import describe_seconds


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What to compare, on what, and how.

    Attributes:
        train_set, held_out: labelled images with the same classes.
        rows: names of designs, in any order.
        seeds: how many times each row is trained.
        detector, budget: the same for all rows.
    """

    train_set: Dataset
    held_out: Dataset
    rows: tuple[str, ...] = PAPER_ROWS
    seeds: int = 3
    detector: DetectorSettings = field(default_factory=DetectorSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)

    def runs(self) -> list[tuple[str, int]]:
        """Row and seed of each run. All rows come before the second seed: a table after a third of the time."""
        first = self.budget.seed
        rows = [row for row in DESIGNS if row in self.rows]
        return [(row, seed) for seed in range(first, first + self.seeds) for row in rows]

    def settings(self) -> dict[str, Any]:
        """All that decides the results but row and seed, JSON-able."""
        device = torch.device("cuda" if self.budget.device == "auto" and torch.cuda.is_available() else "cpu")
        config = self.budget.training(0)
        return {
            "detector": {**self.detector.options(), "weights": self.detector.weights},
            "training": config.model_dump(mode="json", exclude={*FREE_ON_RESUME, "seed", "device", "precision"}),
            "data": {"training": about_dataset(self.train_set), "held_out": about_dataset(self.held_out)},
            "device": {"type": device.type, "precision": choose_precision(config, device)},
        }


def run_ablation(ablation: Ablation, output: Path, screen: Screen | None = None) -> OutcomeFolder:
    """Train and measure every row with every seed, but what is complete in the folder, and then what the rows cost.

    Args:
        ablation: what and how.
        output: a new folder, or that of an earlier call with the same settings.
        screen: where progress is shown; None: nowhere.

    Raises:
        ConfigError: an unknown row, or the folder was begun with other settings.
        OutputError: the folder holds something else or can't be written to.
        KeyboardInterrupt: after Ctrl-C. Complete rows are kept.
    """
    screen = screen or Screen()
    refuse_unfit_rows(ablation.rows, ablation.seeds, ablation.detector)
    for data in (ablation.train_set, ablation.held_out):
        if len(data) == 0:
            raise DataError(f"{data.name}: has no images")
    folder = OutcomeFolder(output, ablation.settings())
    _run_rows(ablation, folder, screen)
    _measure_costs(ablation, folder, screen)
    return folder


def refuse_unfit_rows(rows: Sequence[str], seeds: int, detector: DetectorSettings) -> None:
    """Stop at rows that can't be trained, before data are read for them.

    Raises:
        ConfigError: an unknown row, backbone or neck, none of them, or another kind of detector.
    """
    if detector.detector != "faster_rcnn":
        raise ConfigError(
            f"detector {detector.detector!r}: an ablation compares the paper's designs, proposals among their "
            "figures, which faster_rcnn has. Leave it out."
        )
    if not rows or seeds < 1:
        raise ConfigError(f"rows {list(rows)}, seeds {seeds}: an ablation needs at least one of each")
    dialect = preset_dialect(detector.detector, detector.options())
    for row in rows:
        if row not in DESIGNS:
            raise ConfigError(f"rows {row!r}: choose of {', '.join(DESIGNS)}.{nearest(row, DESIGNS)}")
        refuse_unfit_parts(detector.backbone, row, dialect.neck, detector.weights)


def _run_rows(ablation: Ablation, folder: OutcomeFolder, screen: Screen) -> None:
    runs = ablation.runs()
    seconds: dict[str, list[float]] = {}
    for number, (row, seed) in enumerate(runs, start=1):
        outcome, known = folder.read(row, seed), "complete, from before"
        if outcome is None:
            screen.tell(f"[{number}/{len(runs)}] {row}, seed {seed}{_time_left(runs[number - 1 :], seconds)}")
            outcome = run_row(ablation, row, seed, folder, screen)
            known = f"{outcome.training_seconds:.0f} s of training, {outcome.measuring_seconds:.0f} s of measuring"
        seconds.setdefault(row, []).append(outcome.training_seconds + outcome.measuring_seconds)
        screen.tell(f"[{number}/{len(runs)}] {row}, seed {seed}: {_figures(outcome)} ({known})")


def run_row(ablation: Ablation, row: str, seed: int, folder: OutcomeFolder, screen: Screen) -> Outcome:
    """Train one row with one seed, measure it on the held-out images, keep the model and the outcome."""
    detector = build_row(ablation, row, seed)
    trained = train(detector, ablation.train_set, ablation.budget.training(seed), progress=screen.training)
    with screen.bar(f"{row}, seed {seed}: measuring", len(ablation.held_out)) as progress:
        measured = evaluate(
            detector,
            ablation.held_out,
            batch_size=ablation.budget.batch_size,
            workers=ablation.budget.workers,
            tasks=("boxes", "proposals"),
            progress=progress,
        )
    detector.training_record = {"ablation": {"row": row, "seed": seed, **folder.settings}}
    save(detector, folder.model(row, seed))
    outcome = Outcome(
        row=row,
        seed=seed,
        figures=_figures_of(measured),
        anchors=_count_anchors(detector, ablation.held_out),
        steps=trained.steps,
        training_seconds=round(trained.seconds, 1),
        measuring_seconds=round(measured.seconds, 1),
    )
    folder.write(outcome)
    return outcome


def build_row(ablation: Ablation, row: str, seed: int) -> TwoStageDetector:
    """A row's detector before training."""
    torch.manual_seed(seed)
    options = ablation.detector.options()
    # A design whose backbone ends at C4 has no fifth stage to freeze.
    options["frozen_stages"] = min(options["frozen_stages"], max(DESIGNS[row].out))
    weights, classes = ablation.detector.weights, ablation.train_set.classes
    return faster_rcnn(classes=classes, weights=weights, neck=row, **options)


def _measure_costs(ablation: Ablation, folder: OutcomeFolder, screen: Screen) -> None:
    """All complete rows together, with the models of the first seed; again only if a row has been added."""
    models = {row: folder.model(row, ablation.budget.seed) for row in DESIGNS}
    models = {row: path for row, path in models.items() if path.exists()}
    if set(folder.read_costs()) >= set(models):
        return
    screen.tell(f"timing {len(models)} rows in turns")
    device = folder.settings["device"]["type"]
    detectors = {row: _in_training_layout(load(path, device=device), ablation) for row, path in models.items()}
    folder.write_costs(_costs_of(detectors, ablation, screen))


def _costs_of(detectors: Mapping[str, Detector], ablation: Ablation, screen: Screen) -> dict[str, Any]:
    first = next(iter(detectors.values()))
    sample = ablation.held_out[_typical(ablation.held_out)]
    prepared = first.preprocessor.prepare(sample.image, sample.targets)
    images = first.preprocessor.collate([prepared.pixels], [prepared.frame]).to(first.device)
    assert prepared.targets is not None, "given"
    rounds = 7
    with screen.bar("timing", rounds) as progress:
        return dict(
            measure_costs(detectors, images, [prepared.targets.to(first.device)], rounds=rounds, progress=progress)
        )


def _in_training_layout(detector: Detector, ablation: Ablation) -> Detector:
    return detector.to(memory_format=torch.channels_last) if ablation.budget.training(0).channels_last else detector


def _typical(dataset: Dataset) -> int:
    """The image whose number of objects is the median: a step with no object costs less."""
    counts = [len(dataset.targets(index).boxes) for index in range(len(dataset))]
    return counts.index(statistics.median_low(counts))


def _count_anchors(detector: TwoStageDetector, dataset: Dataset) -> int:
    size = _padded_size(detector, dataset)
    plan = detector.rpn.anchors
    cells = [-(-size.height // level.stride) * -(-size.width // level.stride) for level in detector.rpn.levels]
    return sum(number * each for number, each in zip(cells, plan.per_cell(), strict=True))


def _padded_size(detector: TwoStageDetector, dataset: Dataset) -> Size:
    prepared = detector.preprocessor.prepare(dataset.image(0))
    return detector.preprocessor.collate([prepared.pixels], [prepared.frame]).padded_size


def _time_left(runs: Sequence[tuple[str, int]], seconds: Mapping[str, Sequence[float]]) -> str:
    """From the rows' earlier seeds where there are any, else from the other rows."""
    known = [each for row in seconds.values() for each in row]
    if not known:
        return ""
    left = sum(statistics.fmean(seconds.get(row, known)) for row, _ in runs)
    return f", about {describe_seconds(left)} left"


def _figures_of(measured: Evaluation) -> dict[str, float | None]:
    assert measured.proposals is not None, "asked for"
    found = {name: getattr(measured.proposals, name) for name in PROPOSAL_FIGURES}
    found |= {name: getattr(measured, name) for name in DETECTION_FIGURES}
    return {name: None if value < 0 else value for name, value in found.items()}


def _figures(outcome: Outcome) -> str:
    shown = {"AR1k": outcome.figures["ar1000"], "AP": outcome.figures["ap"]}
    return ", ".join(f"{name} {'-' if value is None else f'{100 * value:.1f}'}" for name, value in shown.items())
