"""Peak memory of a training step on an image with thousands of objects, run after run, each in a process of its own.

    python benchmarks/many_objects.py [--objects 2000 4000] [--runs 10] [--allocators kept alone] [--keep NAME]

`fpn.train` for `--steps` steps on one image with so many small boxes: all that a run holds (detector, gradients,
optimizer, averaged weights, the interpreter and its libraries) is in the figures. `kept`: with the C library told to
keep freed memory, as training does; `alone`: with the allocator as it is.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from turns import keep

from fpn.data.dataset import Dataset
from fpn.detectors import faster_rcnn
from fpn.shapes import Size
from fpn.structures import Classes, Targets
from fpn.training import setup
from fpn.training.config import TrainConfig
from fpn.training.trainer import train

HEIGHT, WIDTH = 800, 1088
ALLOCATORS = ("kept", "alone")


class Crowd(Dataset):
    """One image of noise with many boxes of 8 to 48 pixels."""

    def __init__(self, objects: int) -> None:
        random = torch.Generator().manual_seed(1)
        sides = torch.rand(objects, 2, generator=random) * 40 + 8
        corner = torch.rand(objects, 2, generator=random) * (torch.tensor([WIDTH, HEIGHT]) - sides)
        labels = torch.zeros(objects, dtype=torch.int64)
        self.truth = Targets(torch.cat([corner, corner + sides], dim=1), labels, labels.bool())
        self.classes, self.name, self.root = Classes.of(["thing"]), "crowd", Path()

    def __len__(self) -> int:
        return 1

    def image_id(self, index: int) -> int:
        return 1

    def path(self, index: int) -> str:
        return "crowd"

    def size(self, index: int) -> Size:
        return Size(HEIGHT, WIDTH)

    def targets(self, index: int, *, masks: bool = False) -> Targets:
        return self.truth

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="+", default=[2000, 4000])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--allocators", choices=ALLOCATORS, nargs="+", default=list(ALLOCATORS))
    parser.add_argument("--keep", help="write results/NAME.json")
    parser.add_argument("--one", choices=ALLOCATORS, help="do it in this process, and print its peak in MiB")
    return parser.parse_args()


def one(objects: int, steps: int, allocator: str) -> int:
    """The peak, MiB."""
    if allocator == "alone":
        setup.keep_freed_memory = lambda: None
    torch.manual_seed(0)
    dataset = Crowd(objects)
    detector = faster_rcnn(
        classes=dataset.classes, backbone="tf_efficientnet_lite0", weights=None, channels=96, head_width=512
    )
    config = TrainConfig(steps=steps, batch_size=1, workers=0, device="cpu", precision="float32")
    train(detector, dataset, config, progress=False)
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) // 1024


def run_one(objects: int, steps: int, allocator: str) -> int:
    words = [sys.executable, __file__, "--one", allocator, "--objects", str(objects), "--steps", str(steps)]
    return int(subprocess.run(words, check=True, capture_output=True, text=True, env=os.environ).stdout.split()[-1])


def main() -> None:
    options = parse()
    if options.one:
        print(one(options.objects[0], options.steps, options.one))
        return
    rows = []
    print("| objects | allocator | peak of each run (MiB) | median | highest |")
    print("|---:|---|---|---:|---:|")
    for objects in options.objects:
        for allocator in options.allocators:
            peaks = [run_one(objects, options.steps, allocator) for _ in range(options.runs)]
            rows.append({"objects": objects, "allocator": allocator, "peaks_mib": peaks})
            told = " ".join(map(str, peaks))
            print(f"| {objects} | {allocator} | {told} | {statistics.median(peaks):.0f} | {max(peaks)} |", flush=True)
    if options.keep:
        keep(options.keep, {"image": [HEIGHT, WIDTH], "threads": torch.get_num_threads(), "rows": rows})


if __name__ == "__main__":
    main()
