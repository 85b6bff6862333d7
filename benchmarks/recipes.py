"""`small-data` against `standard` with the same time, on drawn scenes that are hard in three ways.

    python benchmarks/recipes.py [--images 564] [--seeds 0 1] [--sets tiny rare few] [--recipes standard small-data]

tiny: 200 scenes of 128 x 128 with objects of 4 to 16 pixels. rare: 300 scenes, where 1 object in 100 is a star and the
others are of five other classes. few: 40 scenes. Both recipes plan for the same set on this machine and for a time in
which so many images can be learned from, counted as often as they come, as `fpn train --time-budget` does; an image
takes both as long, and each run's processor time of one thread stands in the table, so that what else runs on the
machine counts little. AP is of 150 scenes of another seed, drawn alike (for `rare` with all classes as often as each
other). Rows are added to those in results/recipes.json, and take the place of those of the same run.
"""

from __future__ import annotations

import argparse
import json
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
from fpn.training.planned import TrainingPlan

RECIPES = ("standard", "small-data")
_SIDES = {"height": 128, "width": 128}
_TESTED = 150
_RARE, _RARE_SHARE = "star", 0.01
_IMAGES = 564


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


def plan(recipe: str, dataset: Dataset, images: int, **given: Any) -> TrainingPlan:
    """The recipe's plan for a time for so many images, for one process that validates only at its end."""
    given = {"workers": 0, "validate_every": 0, "device": "cpu", **given}
    return fpn.plan_training(dataset, recipe, given=given, room=images)


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


def measure(recipe: str, sets: tuple[Dataset, Dataset], seed: int, images: int) -> dict[str, Any]:
    """Train by one recipe on so many images; what it reached."""
    dataset, tested = sets
    chosen = plan(recipe, dataset, images, seed=seed)
    steps = max(1, images // (chosen.config.batch_size * chosen.config.accumulate))
    with tempfile.TemporaryDirectory() as name:
        best, spent = train(chosen, dataset, Path(name) / "run", steps)
        metrics = fpn.evaluate(fpn.load(best), tested, workers=0)
    each = {row.name: row.ap for row in metrics.per_class}
    told = {"recipe": recipe, "seed": seed, "images": images, "steps": steps, "seconds": spent}
    reached = {"ap": metrics.ap, "ap50": metrics.ap50, "ap_by_class": each}
    return {**told, **reached, "settings": dict(chosen.chosen)}


def main(words: Sequence[str] | None = None) -> None:
    reads = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reads.add_argument("--images", type=int, default=_IMAGES)
    reads.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    reads.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    reads.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    asked = reads.parse_args(words)
    torch.set_num_threads(1)
    rows = kept()
    for seed in asked.seeds:
        for name in asked.sets:
            sets = SETS[name](seed)
            for recipe in asked.recipes:
                row = {"set": name, **measure(recipe, sets, seed, asked.images)}
                print(f"{name:5} {seed} {recipe:10} {row['steps']:4} steps  AP {100 * row['ap']:.1f}", flush=True)
                rows = [each for each in rows if _which(each) != _which(row)] + [row]
                turns.keep("recipes", {"rows": rows})
    print(table(rows))


def kept() -> list[dict[str, Any]]:
    """Rows of earlier calls."""
    path = turns.RESULTS / "recipes.json"
    return list(json.loads(path.read_text(encoding="utf-8"))["rows"]) if path.exists() else []


def _which(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["set"], row["recipe"], row["seed"]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line a set and seed, in Markdown."""
    found = {_which(row): row for row in rows}
    lines = ["| scenes | seed | standard | small-data | difference | seconds |", "|---|---:|---:|---:|---:|---:|"]
    for name, seed in dict.fromkeys((row["set"], row["seed"]) for row in rows):
        pair = [found.get((name, recipe, seed)) for recipe in RECIPES]
        first, second = pair
        if first is None or second is None:
            continue
        points = [100 * row["ap"] for row in (first, second)]
        told = f"{points[0]:.1f} | {points[1]:.1f} | **{points[1] - points[0]:+.1f}**"
        lines.append(f"| {name} | {seed} | {told} | {first['seconds']:.0f}, {second['seconds']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
