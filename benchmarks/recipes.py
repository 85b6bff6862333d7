"""`small-data` against `standard` with the same time, on drawn scenes that are hard in three ways.

    python benchmarks/recipes.py [--seconds 180] [--seeds 0 1]

tiny: 200 scenes of 128 x 128 with objects of 4 to 16 pixels. rare: 300 scenes, where 1 object in 100 is a star and the
others are of five other classes. few: 40 scenes. Both recipes plan for the same set on this machine; then each trains
as many steps as fit into the time, reckoned from steps that are timed before: processor time of one thread, so that
what else runs on the machine does not count. AP is of 150 scenes of another seed, drawn alike (for `rare` with all
classes as often as each other). Results go to results/recipes.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import turns

import fpn
from fpn.data.dataset import Dataset
from fpn.data.synthetic.scenes import SceneDataset
from fpn.training.recipes import TrainingPlan

RECIPES = ("standard", "small-data")
_SIDES = {"height": 128, "width": 128}
_TESTED = 150
_RARE, _RARE_SHARE = "star", 0.01
_TIMED = 6


def tiny(seed: int) -> tuple[Dataset, Dataset]:
    settings: dict[str, Any] = {**_SIDES, "objects": (3, 9), "extent": (4.0, 16.0)}
    return SceneDataset(200, seed=10 + seed, **settings), SceneDataset(_TESTED, seed=1000, **settings)


def few(seed: int) -> tuple[Dataset, Dataset]:
    settings: dict[str, Any] = {**_SIDES, "objects": (1, 5)}
    return SceneDataset(40, seed=20 + seed, **settings), SceneDataset(_TESTED, seed=1001, **settings)


def rare(seed: int) -> tuple[Dataset, Dataset]:
    """Scenes with a star are taken only while they are rare enough."""
    settings: dict[str, Any] = {**_SIDES, "objects": (1, 3)}
    pool = SceneDataset(3000, seed=30 + seed, **settings)
    label, wanted = pool.classes.names.index(_RARE), 300
    chosen: list[int] = []
    stars = objects = 0
    for index in range(len(pool)):
        labels = pool.targets(index).labels
        mine = int((labels == label).sum())
        if mine and stars + mine > _RARE_SHARE * (objects + len(labels)):
            continue
        chosen.append(index)
        stars, objects = stars + mine, objects + len(labels)
        if len(chosen) == wanted:
            break
    return pool.subset(chosen), SceneDataset(_TESTED, seed=1002, **settings)


SETS: dict[str, Callable[[int], tuple[Dataset, Dataset]]] = {"tiny": tiny, "rare": rare, "few": few}


def plan(recipe: str, dataset: Dataset, **given: Any) -> TrainingPlan:
    """The recipe's plan, for one process that validates only at its end."""
    return fpn.plan_training(dataset, recipe, given={"workers": 0, "validate_every": 0, "device": "cpu", **given})


def build(chosen: TrainingPlan, dataset: Dataset) -> fpn.Detector:
    settings = {name: value for name, value in chosen.detector.items() if name not in ("workers", "device")}
    torch.manual_seed(chosen.config.seed)
    return fpn.faster_rcnn(classes=dataset.classes, **settings)


def train(chosen: TrainingPlan, dataset: Dataset, folder: Path, steps: int) -> tuple[Path, float]:
    """The weights that a run of so many steps leaves, and its processor time in seconds."""
    config = fpn.TrainConfig(**{**chosen.config.model_dump(), "steps": steps})
    began = time.process_time()
    fpn.train(build(chosen, dataset), dataset, config, output=folder, progress=False)
    return folder / "best.safetensors", time.process_time() - began


def seconds_a_step(chosen: TrainingPlan, dataset: Dataset, folder: Path) -> float:
    """What a longer run has more than a shorter one, a step."""
    _, short = train(chosen, dataset, folder / "short", 2)
    _, longer = train(chosen, dataset, folder / "longer", 2 + _TIMED)
    return (longer - short) / _TIMED


def measure(recipe: str, sets: tuple[Dataset, Dataset], seed: int, seconds: float) -> dict[str, Any]:
    """Train by one recipe for the time; what it reached."""
    dataset, tested = sets
    chosen = plan(recipe, dataset, seed=seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps = max(1, round(seconds / seconds_a_step(chosen, dataset, folder)))
        best, spent = train(chosen, dataset, folder / "run", steps)
        metrics = fpn.evaluate(fpn.load(best), tested, workers=0)
    each = {row.name: row.ap for row in metrics.per_class}
    told = {"recipe": recipe, "seed": seed, "steps": steps, "seconds": spent, "ap": metrics.ap, "ap50": metrics.ap50}
    return {**told, "ap_by_class": each, "settings": dict(chosen.chosen)}


def main(words: Sequence[str] | None = None) -> None:
    reads = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reads.add_argument("--seconds", type=float, default=180.0)
    reads.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    reads.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    asked = reads.parse_args(words)
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name in asked.sets:
        for seed in asked.seeds:
            sets = SETS[name](seed)
            for recipe in RECIPES:
                row = measure(recipe, sets, seed, asked.seconds)
                print(f"{name:5} {seed} {recipe:10} {row['steps']:4} steps  AP {100 * row['ap']:.1f}", flush=True)
                rows.append({"set": name, **row})
    turns.keep("recipes", {"seconds": asked.seconds, "rows": rows})
    print(table(rows))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means over the seeds, in Markdown."""
    lines = ["| scenes | standard | small-data | difference |", "|---|---:|---:|---:|"]
    for name in dict.fromkeys(row["set"] for row in rows):
        means = [
            100 * statistics.mean(row["ap"] for row in rows if (row["set"], row["recipe"]) == (name, recipe))
            for recipe in RECIPES
        ]
        lines.append(f"| {name} | {means[0]:.1f} | {means[1]:.1f} | **{means[1] - means[0]:+.1f}** |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
