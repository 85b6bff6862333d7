"""Large drawn scenes in one pass, in tiles, and in tiles beside the whole image: AP by size, and time.

    python benchmarks/tiles.py [--steps 400] [--scenes 1] [--size 8000x6000] [--objects 1200 1200] [--side 320]

A light detector (EfficientNet-Lite0 with ImageNet weights, 64 channels) learns from scenes as large as a tile, with
objects of 8 to 300 pixels; then it looks at large scenes with objects of the same sizes. One pass brings an image to
a short side of 800 pixels (1333 at most), as detectors usually do. AP is over all detections of an image, not COCO's
100. Seconds are processor time of one thread an image. Results go to results/tiles.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import turns

import fpn
from fpn.data.synthetic.scenes import SceneDataset
from fpn.detectors.tiling import Tiling
from fpn.training.config import anchor_levels

_EXTENT = (8.0, 300.0)
_OVERLAP = 0.25
_SIZES = ("small", "medium", "large")


def train(side: int, steps: int, folder: Path) -> Path:
    """A model file that knows scenes of one tile's size as they are."""
    learned = SceneDataset(800, seed=0, height=side, width=side, objects=(1, 8), extent=_EXTENT)
    torch.manual_seed(0)
    detector = fpn.faster_rcnn(
        backbone="tf_efficientnet_lite0",
        weights="offline",
        classes=learned.classes,
        short_side=side,
        long_side=side,
        channels=64,
        head_width=256,
        anchors_sizes=anchor_levels("faster_rcnn", (12.0, 24.0, 48.0, 96.0, 192.0)),
        rpn_before_nms=(1000, 500),
        rpn_after_nms=(500, 300),
    )
    config = turns.short_training(steps)
    fpn.train(detector, learned, config, output=folder / "run", progress=False)
    return folder / "run" / "best.safetensors"


def load(model: Path, short_side: int, long_side: int) -> fpn.Detector:
    """The model, optimized, with images brought to another size."""
    detector = fpn.load(model)
    config = detector.preprocessor.config.changed(short_side=short_side, long_side=long_side)
    detector.preprocessor = type(detector.preprocessor)(config)
    return fpn.optimize(detector)


def measure(name: str, detector: fpn.Detector, scenes: SceneDataset, tiling: Tiling | None) -> dict[str, Any]:
    """What one way of looking finds, and what it takes."""
    began = time.process_time()
    found = fpn.evaluate(detector, scenes, workers=0, batch_size=4, tiling=tiling)
    spent = (time.process_time() - began) / len(scenes)
    figures = found if found.limit is None or found.limit.figures is None else found.limit.figures
    sizes = {size: getattr(figures, f"ap_{size}") for size in _SIZES}
    row = {"way": name, "ap": figures.ap, "ap50": figures.ap50, **sizes}
    print(f"{name:16} AP {100 * figures.ap:.1f}, {spent:.1f} s an image", flush=True)
    return {**row, "seconds": spent, "detections": len(found.detections)}


def main(words: Sequence[str] | None = None) -> None:
    reads = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reads.add_argument("--steps", type=int, default=400)
    reads.add_argument("--scenes", type=int, default=1)
    reads.add_argument("--size", default="8000x6000")
    reads.add_argument("--objects", type=int, nargs=2, default=(1200, 1200))
    reads.add_argument("--side", type=int, default=320)
    asked = reads.parse_args(words)
    torch.set_num_threads(1)
    width, height = (int(number) for number in asked.size.split("x"))
    scenes = SceneDataset(
        asked.scenes, seed=1, height=height, width=width, objects=tuple(asked.objects), extent=_EXTENT
    )
    drawn = [scenes.image(number) for number in range(len(scenes))]
    scenes.image = drawn.__getitem__  # type: ignore[method-assign]  # drawing takes longer than looking
    with tempfile.TemporaryDirectory() as name:
        model = train(asked.side, asked.steps, Path(name))
        usual, native = load(model, 800, 1333), load(model, asked.side, asked.side)
    ways: dict[str, tuple[fpn.Detector, Tiling | None]] = {
        "one pass": (usual, None),
        "tiles": (native, Tiling(side=asked.side, overlap=_OVERLAP)),
        "tiles, merged by voting": (native, Tiling(side=asked.side, overlap=_OVERLAP, merge="vote")),
        "tiles and whole": (native, Tiling(side=asked.side, overlap=_OVERLAP, whole=True)),
    }
    rows = [measure(way, detector, scenes, tiling) for way, (detector, tiling) in ways.items()]
    turns.keep("tiles", {"objects": sum(len(scenes.targets(k)) for k in range(len(scenes))), "rows": rows})
    print(table(rows))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """In Markdown."""
    lines = ["| | AP | AP50 | small | medium | large | s an image |", f"|---|{'---:|' * 6}"]
    for row in rows:
        figures = " | ".join(f"{100 * row[key]:.1f}" for key in ("ap", "ap50", *_SIZES))
        lines.append(f"| {row['way']} | {figures} | {row['seconds']:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
