"""The highest memory that detecting takes, ours and torchvision's.

    python benchmarks/inference_memory.py [--kinds retinanet fcos] [--precision float32] [--threads 1] [--turns 6]

In turns, each time a new process builds one side and nothing of the other that stays, detects in a JPEG three times,
and tells by how much its highest resident memory has grown, its libraries not counted. Memory of a process depends on
where the C library finds room, so one side differs from run to run: all figures are shown. Ours is the optimized
detector, as `fpn predict` holds it. Results go to results/inference_memory.json.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import torch
import turns

from fpn.shapes import Size
from fpn.studies.benchmark.memory import peak_mebibytes
from fpn.studies.benchmark.running import BenchmarkSettings, detect_once

SIDES = ("fpn", "torchvision")
KINDS = ("faster_rcnn", "mask_rcnn", "keypoint_rcnn", "retinanet", "fcos")


def main(words: Sequence[str] | None = None) -> None:
    """Look, tell, keep."""
    reads = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reads.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    reads.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    reads.add_argument("--size", default="1066x800")
    reads.add_argument("--threads", type=int, default=1)
    reads.add_argument("--turns", type=int, default=6)
    asked = reads.parse_args(words)
    torch.set_num_threads(asked.threads)
    width, height = (int(number) for number in asked.size.split("x"))
    rows = []
    for kind in asked.kinds:
        settings = BenchmarkSettings(detector=kind, size=Size(height, width), batches=(1,), parts=("inference",))
        found: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(asked.turns):
            for side in SIDES:
                peak = peak_mebibytes(torch.device("cpu"), detect_once, settings, side, asked.precision)
                found[side].append(round(peak))
        means = [statistics.mean(found[side]) for side in SIDES]
        rows.append({"kind": kind, "precision": asked.precision, "peaks": found, "ratio of means": means[0] / means[1]})
        print(f"{kind}, {asked.precision}: {found}, means {means[0]:.0f} / {means[1]:.0f} MiB", flush=True)
    turns.keep("inference_memory", {"size": asked.size, "threads": asked.threads, "rows": rows})


if __name__ == "__main__":
    main()
