"""Whether images that `fpn suggest` chooses teach more than as many that are chosen by lot.

Scenes with one or two shapes are drawn. Most hold discs and squares alone; one in eight holds a star or a ring. A
light detector learns from 40 of them; of a pool of 200 more, `suggest` chooses 20, and so does the lot. Two copies of
the detector go on learning, one from the 40 and the 20 chosen, one from the 40 and the 20 drawn by lot, with the same
settings and seed. Both are measured on 120 scenes in which all four shapes are equally common: AP is the mean of four
classes, of which two are rare in the pool.

Prints a row a seed and means with spread (standard deviation); the difference is paired, with a 95 % interval by
Student's t. Writes results/suggest.json. With --rows each seed's row is kept in a folder, so that a run that was
stopped goes on, and runs side by side can share the seeds; the last one writes all.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import turns
from PIL import Image

import fpn
from fpn.data.dataset import Dataset
from fpn.data.synthetic.scenes import SceneDataset
from fpn.data.synthetic.shapes import SHAPES
from fpn.detectors import Detector
from fpn.shapes import Size
from fpn.structures import Targets
from fpn.training.trainer import train

COMMON, RARE = ("disc", "square"), ("star", "ring")
LABELLED, POOL, CHOSEN, TEST = 40, 200, 20, 120
# Of 240 scenes, those with a rare shape.
RARE_SCENES = 30
SCENES: dict[str, Any] = {"height": 96, "width": (96, 128), "objects": (1, 2), "extent": (28.0, 80.0)}
# Test scenes never share a seed with others.
TEST_SEED = 900_000
DETECTOR: dict[str, Any] = {
    "backbone": "tf_efficientnet_lite0",
    "weights": "offline",
    "frozen_stages": 5,
    "short_side": 96,
    "long_side": 128,
    "channels": 48,
    "head_width": 128,
    "anchors_sizes": ((12.0,), (24.0,), (48.0,), (96.0,), (192.0,)),
    "roi_canonical_size": 84.0,
    "rpn_before_nms": (200, 100),
    "rpn_after_nms": (100, 50),
    "box_sampling_count": 32,
    "box_sampling_positive_fraction": 0.5,
    "box_class_agnostic": True,
}
TRAINING: dict[str, Any] = {"batch_size": 8, "validate_every": 0, "workers": 0, "ema_decay": 0.99}
# Two-sided 95 % of Student's t with 1, 2, ... degrees of freedom.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


class Drawn(Dataset):
    """Scenes that were drawn once and are kept, with the four classes alone."""

    def __init__(self, scenes: Dataset, name: str) -> None:
        labels = torch.tensor([_label(shape) for shape in SHAPES])
        self.classes, self.name, self.root = fpn.Classes.of(COMMON + RARE), name, Path()
        self.images: list[Image.Image] = [scenes.image(number) for number in range(len(scenes))]
        truth = [scenes.targets(number) for number in range(len(scenes))]
        self.truth = [Targets(each.boxes, labels[each.labels]) for each in truth]

    def __len__(self) -> int:
        return len(self.images)

    def image_id(self, index: int) -> int:
        return index + 1

    def path(self, index: int) -> str:
        return f"scene {index} of {self.name}"

    def size(self, index: int) -> Size:
        return Size(self.images[index].height, self.images[index].width)

    def targets(self, index: int, *, masks: bool = False) -> Targets:
        return self.truth[index]

    def image(self, index: int) -> Image.Image:
        return self.images[index].copy()


def _label(shape: str) -> int:
    names = COMMON + RARE
    return names.index(shape) if shape in names else -1


def fitting(scenes: SceneDataset) -> Iterator[tuple[int, bool]]:
    """Numbers of scenes with nothing but the four shapes, and whether a rare one is among them."""
    for number in range(len(scenes)):
        shapes = {SHAPES[label] for label in scenes.targets(number).labels.tolist()}
        if shapes and shapes <= {*COMMON, *RARE}:
            yield number, bool(shapes & set(RARE))


def draw_pool(seed: int) -> Drawn:
    """LABELLED + POOL scenes in an order drawn by lot."""
    scenes = SceneDataset(100_000, seed=seed, **SCENES)
    plain: list[int] = []
    rare: list[int] = []
    wanted = LABELLED + POOL - RARE_SCENES
    for number, is_rare in fitting(scenes):
        kind, most = (rare, RARE_SCENES) if is_rare else (plain, wanted)
        if len(kind) < most:
            kind.append(number)
        if len(plain) == wanted and len(rare) == RARE_SCENES:
            break
    numbers = plain + rare
    random.Random(seed).shuffle(numbers)
    return Drawn(scenes.subset(numbers), f"pool {seed}")


def draw_test(seed: int) -> Drawn:
    scenes = SceneDataset(100_000, seed=TEST_SEED + seed, **SCENES)
    numbers = [number for (number, _), _ in zip(fitting(scenes), range(TEST), strict=False)]
    return Drawn(scenes.subset(numbers), f"test {seed}")


def learn(detector: Detector, data: Dataset, seed: int, *, steps: int, rate: float) -> Detector:
    config = fpn.TrainConfig(steps=steps, learning_rate=rate, seed=seed, **TRAINING)
    train(detector, data, config, progress=False)
    return detector


def suggested(detector: Detector, pool: Dataset, labelled: Dataset, **options: Any) -> list[int]:
    """Numbers of the images that `fpn.suggest` chooses, which gets files, as a person has them."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number:03d}.png" for number in range(len(pool))]
        for number, path in enumerate(paths):
            pool.image(number).save(path)
        found = fpn.suggest(detector, paths, count=CHOSEN, labelled=labelled, **options)
        return [int(each.path.stem) for each in found.chosen]


def figures(detector: Detector, test: Dataset, added: Dataset) -> dict[str, Any]:
    measured = fpn.evaluate(detector, test, workers=0)
    objects = (
        torch.cat([added.targets(number).labels for number in range(len(added))]) if len(added) else torch.zeros(0)
    )
    return {
        "ap": measured.ap,
        "ap50": measured.ap50,
        "per_class": {each.name: each.ap for each in measured.per_class},
        "objects_added": len(objects),
        "rare_objects_added": int((objects >= len(COMMON)).sum()),
    }


def one_seed(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Base, chosen and by lot."""
    began = time.process_time()
    whole, test = draw_pool(seed), draw_test(seed)
    labelled, pool = whole.subset(range(LABELLED)), whole.subset(range(LABELLED, len(whole)))
    torch.manual_seed(seed)
    base = learn(fpn.faster_rcnn(classes=whole.classes, **DETECTOR), labelled, seed, steps=options.steps, rate=0.004)
    arms = {
        "chosen": suggested(base, pool, labelled, batch_size=8),
        "by lot": random.Random(1000 + seed).sample(range(len(pool)), CHOSEN),
    }
    row: dict[str, Any] = {"seed": seed, "base": figures(base, test, whole.subset([]))}
    for name, numbers in arms.items():
        more = [LABELLED + number for number in numbers]
        data = whole.subset([*range(LABELLED), *more])
        tuned = learn(copy.deepcopy(base), data, seed, steps=options.more_steps, rate=0.002)
        row[name] = {**figures(tuned, test, whole.subset(more)), "numbers": numbers}
    return {**row, "cpu_seconds": round(time.process_time() - began, 1)}


def kept_row(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """A seed's row, from the folder of rows if it is there."""
    if options.rows is None:
        return one_seed(seed, options)
    path = Path(options.rows) / f"{seed}-{options.steps}-{options.more_steps}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(one_seed(seed, options)), encoding="utf-8")
    row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return row


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation of each arm, and of the paired difference with its 95 % interval."""
    sides = {name: [row[name]["ap"] for row in rows] for name in ("base", "by lot", "chosen")}
    gains = [one - other for one, other in zip(sides["chosen"], sides["by lot"], strict=True)]
    found = {name: spread(values) for name, values in {**sides, "difference": gains}.items()}
    if len(gains) > 1:
        half = STUDENT[len(gains) - 2] * statistics.stdev(gains) / len(gains) ** 0.5
        mean = statistics.mean(gains)
        found["difference"] |= {"low": mean - half, "high": mean + half, "better_in": sum(gain > 0 for gain in gains)}
    return found


def spread(values: Sequence[float]) -> dict[str, Any]:
    return {"mean": statistics.mean(values), "sd": statistics.stdev(values) if len(values) > 1 else None}


def show(row: dict[str, Any]) -> None:
    base, lot, chosen = row["base"], row["by lot"], row["chosen"]
    print(
        f"| {row['seed']} | {base['ap']:.3f} | {lot['ap']:.3f} | {chosen['ap']:.3f} | {chosen['ap'] - lot['ap']:+.3f} "
        f"| {lot['objects_added']} / {lot['rare_objects_added']} "
        f"| {chosen['objects_added']} / {chosen['rare_objects_added']} | {row['cpu_seconds']:.0f} |",
        flush=True,
    )


def show_summary(found: dict[str, Any]) -> None:
    cells = [f"{found[name]['mean']:.3f} ± {found[name]['sd'] or 0:.3f}" for name in ("base", "by lot", "chosen")]
    gain = found["difference"]
    print(f"| mean ± sd | {' | '.join(cells)} | **{gain['mean']:+.3f}** ± {gain['sd'] or 0:.3f} | | | |")
    if "low" in gain:
        print(f"\nPaired difference, 95 % interval: {gain['low']:+.3f} to {gain['high']:+.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=90, help="of the first training")
    parser.add_argument("--more-steps", type=int, default=45, help="of going on with 20 more images")
    parser.add_argument("--rows", help="folder that keeps each seed's row")
    parser.add_argument("--try-only", action="store_true", help="write no result")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| seed | 40 images | + 20 by lot | + 20 chosen | difference | objects / rare, by lot | chosen | CPU s |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        flush=True,
    )
    rows = []
    for seed in options.seeds:
        rows.append(kept_row(seed, options))
        show(rows[-1])
    found = summary(rows)
    show_summary(found)
    if options.try_only:
        print(json.dumps(rows[-1]["chosen"]["per_class"]))
    else:
        turns.keep(
            "suggest", {"steps": options.steps, "more_steps": options.more_steps, "summary": found, "rows": rows}
        )


if __name__ == "__main__":
    main()
