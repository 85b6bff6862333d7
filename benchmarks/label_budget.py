"""Does the learning curve of half of the labels say what all of them bring? Drawn sets, pilots, and the truth.

    python benchmarks/label_budget.py [--sets 5] [--first 0] [--steps 50] [--output NAME]

For each set, scenes are drawn and half of the training ones are given to `forecast_labels`: quarters, halves and all of
that half. Its forecast for twice as many is then compared with one training on all of them, with the pilots' settings,
measured on the same held-out scenes. Sets differ in their number of classes, sizes and crowding. Each finished set is
kept in a scratch folder, so that a stopped run goes on. One thread. Writes results/label_budget.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import turns
from PIL import Image

from fpn.data.dataset import Dataset
from fpn.data.synthetic.scenes import SceneDataset
from fpn.shapes import Size
from fpn.structures import Classes, Targets
from fpn.studies.label_budget.forecast import LabelForecast, TimeHere
from fpn.studies.label_budget.pilots import Pilot
from fpn.studies.label_budget.running import LabelStudy, forecast_labels, run_pilot
from fpn.studies.label_budget.settings import PilotSettings
from fpn.studies.screen import Screen

HELD_OUT = 48
# Nothing is timed here: what else runs on the machine would be.
NOT_TIMED = TimeHere(pilot_step=0.0, pilot_image=0.0, full_seconds=0.0, full_steps=0, full_step=0.0)


@dataclass(frozen=True)
class Kind:
    """What a set's scenes are like: half of the training images, classes that shapes are joined to, objects, sizes."""

    half: int
    classes: int
    objects: tuple[int, int]
    extent: tuple[float, float]


KINDS = (
    Kind(32, 1, (1, 4), (16.0, 80.0)),
    Kind(48, 2, (1, 4), (20.0, 80.0)),
    Kind(64, 1, (3, 8), (10.0, 40.0)),
    Kind(48, 3, (1, 3), (24.0, 80.0)),
    Kind(96, 2, (2, 6), (12.0, 64.0)),
)


class KeptScenes(Dataset):
    """Scenes that are drawn once, their six shapes joined to fewer classes."""

    def __init__(self, scenes: Dataset, classes: int) -> None:
        self.classes = Classes.of([f"kind {number}" for number in range(classes)])
        self.name, self.root = scenes.name, scenes.root
        self._samples = list(scenes)
        labels = [sample.targets.labels % classes for sample in self._samples]
        self._targets = [
            Targets(sample.targets.boxes, each) for sample, each in zip(self._samples, labels, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._samples)

    def image_id(self, index: int) -> int:
        return self._samples[index].image_id

    def path(self, index: int) -> str:
        return self._samples[index].path

    def size(self, index: int) -> Size:
        image = self._samples[index].image
        return Size(image.height, image.width)

    def targets(self, index: int, *, masks: bool = False) -> Targets:
        return self._targets[index]

    def image(self, index: int) -> Image.Image:
        return self._samples[index].image.copy()


def draw(kind: Kind, seed: int) -> tuple[Dataset, Dataset]:
    """Scenes to learn from, and others to measure on."""
    options: dict[str, Any] = {"height": 96, "width": (96, 128), "objects": kind.objects, "extent": kind.extent}
    training = SceneDataset(2 * kind.half, seed=seed, **options)
    held_out = SceneDataset(HELD_OUT, seed=seed + 1_000_003, **options)
    return KeptScenes(training, kind.classes), KeptScenes(held_out, kind.classes)


def settings_of(seed: int, steps: int) -> PilotSettings:
    return PilotSettings(
        backbone="tf_efficientnet_lite0", weights="offline", short_side=96, frozen_stages=5, channels=32, head_width=64,
        proposals=100, roi_samples=64, steps=steps, learning_rate=0.001, device="cpu", seed=seed,
    )  # fmt: skip


def try_set(seed: int, steps: int, scratch: Path) -> dict[str, Any]:
    """One set: the forecast from its half, and what all of it came to."""
    kind, began = KINDS[seed % len(KINDS)], time.process_time()
    whole, held_out = draw(kind, seed)
    settings = settings_of(100 * seed, steps)
    half = whole.subset(range(kind.half))
    screen = Screen(tell=lambda line: print(line, flush=True))
    folder = scratch / f"set-{seed}"
    found = forecast_labels(half, held_out, folder, settings=settings, time=NOT_TIMED, screen=screen)
    study = replace(LabelStudy.of(half, held_out, settings), train_set=whole)  # the pilots' own anchors
    outcome = run_pilot(study, Pilot(1, 1, tuple(range(len(whole))), 100 * seed + 50), steps, Screen())
    return row_of(seed, kind, found, outcome.ap, time.process_time() - began)


def row_of(seed: int, kind: Kind, found: LabelForecast, measured: float, seconds: float) -> dict[str, Any]:
    twice = found.forecasts[0]
    return {
        "seed": seed,
        "kind": asdict(kind),
        "half": kind.half,
        "pilots": [[pilot.images, pilot.ap] for pilot in found.pilots],
        "resampled": [pilot.resampled for pilot in found.pilots],
        "forecast": [twice.one.value, twice.one.low, twice.one.high],
        "gain": [twice.gain.value, twice.gain.low, twice.gain.high],
        "measured": measured,
        "inside": twice.one.low <= measured <= twice.one.high,
        "width": twice.one.high - twice.one.low,
        "processor_seconds": round(seconds, 1),
    }


def table(rows: list[Mapping[str, Any]]) -> str:
    lines = [
        "| set | half | AP of a quarter, half, all of it | forecast of twice as many | measured | inside | width |",
        "|---:|---:|---|---|---:|---|---:|",
    ]
    for row in rows:
        sizes = sorted({images for images, _ in row["pilots"]})
        groups: dict[int, list[float]] = {}
        for images, ap in row["pilots"]:
            part = min((4, 2, 1), key=lambda part: abs(row["half"] / part - images))
            groups.setdefault(part, []).append(ap)
        means = ", ".join(f"{100 * sum(groups[part]) / len(groups[part]):.1f}" for part in (4, 2, 1))
        value, low, high = (100 * each for each in row["forecast"])
        inside = "yes" if row["inside"] else "**no**"
        lines.append(
            f"| {row['seed']} | {row['half']} | {means} | {value:.1f} ({low:.1f} .. {high:.1f}) | "
            f"{100 * row['measured']:.1f} | {inside} | {100 * row['width']:.1f} |"
        )
        assert len(sizes) >= 3
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="seed of the first set")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "label-budget-sets")
    parser.add_argument("--output", default="label_budget", help="name of the result")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for seed in range(options.first, options.first + options.sets):
        kept = options.scratch / f"set-{seed}.json"
        if not kept.exists():
            row = try_set(seed, options.steps, options.scratch)
            kept.write_text(json.dumps(row), encoding="utf-8")
        rows.append(json.loads(kept.read_text(encoding="utf-8")))
        print(table(rows), flush=True)
    public = [{name: value for name, value in row.items() if name != "resampled"} for row in rows]
    inside = sum(row["inside"] for row in rows)
    turns.keep(options.output, {"steps": options.steps, "held_out": HELD_OUT, "inside": inside, "rows": public})


if __name__ == "__main__":
    main()
