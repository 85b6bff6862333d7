"""How long segment proposals take: detecting in one image of 320 x 240, and a training step of two.

    python benchmarks/segment_speed.py
    PYTHONPATH=OTHER_TREE/src python benchmarks/segment_speed.py

Defaults but for the short side (ResNet-50, 128 channels, windows of 5 and 7 cells, 512 wide), random weights, one
thread, milliseconds of the clock, medians. Two trees are compared by calling it with one and the other in turns.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import torch

import fpn
from fpn.runtime.memory import keep_freed_memory
from fpn.shapes import Size
from fpn.structures import ImageBatch, Masks, Targets

# Network pixels: padded to whole strides.
_HEIGHT, _WIDTH = 256, 320


def clocked(work: Callable[[], object], *, times: int) -> float:
    """Milliseconds, after two rounds to get warm."""
    spent = []
    for number in range(times + 2):
        began = time.perf_counter()
        work()
        if number > 1:
            spent.append(time.perf_counter() - began)
    return round(statistics.median(spent) * 1e3, 1)


def batch(count: int) -> ImageBatch:
    """Noise."""
    random = torch.Generator().manual_seed(0)
    pixels = torch.randn(count, 3, _HEIGHT, _WIDTH, generator=random)
    return ImageBatch(pixels, torch.tensor([[240, _WIDTH]] * count))


def main() -> None:
    """Measure, and print one line of JSON."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()  # as `predict` and training do
    detector = fpn.segment_proposals(weights=None, short_side=240).eval()
    forms = {"as loaded": detector, "optimized": fpn.optimize(detector), "bf16": fpn.optimize(detector, "bf16")}
    found = {}
    with torch.no_grad():
        for name, form in forms.items():
            found[name] = clocked(lambda form=form: form.detect(batch(1)), times=5)  # type: ignore[misc]
    boxes = torch.tensor([[20.0, 20, 52, 52], [60, 60, 124, 124], [100, 30, 220, 150], [200, 100, 260, 150]])
    truth = Targets(boxes, torch.zeros(4, dtype=torch.int64), masks=Masks.of_boxes(boxes, Size(_HEIGHT, _WIDTH)))
    images, random = batch(2), torch.Generator().manual_seed(0)
    detector.train()
    step = "training step of two"
    found[step] = clocked(lambda: detector.losses(images, [truth] * 2, generator=random).total.backward(), times=3)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
