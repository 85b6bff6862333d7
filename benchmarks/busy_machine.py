"""Seconds a training step beside other busy processes, by how OpenMP's threads wait for one another.

    python benchmarks/busy_machine.py [--neighbours 0 1 2] [--turns 9] [--work net|detector] [--keep NAME]
    setsid sh -c 'echo -20 > /proc/self/autogroup; exec python benchmarks/busy_machine.py --apart'

In turns, in one process: `spinning` (GNU OpenMP's default), `considerate` (as `fpn train`, `fpn evaluate` and
`fpn predict` do it), and `one thread`. A neighbour is a process that computes without end, of the same priority.
`fair share`: what one thread takes alone, by the cores that would be its own if all busy processes shared the machine
evenly, but never more than a core. `--apart`: only neighbours that this script started count as busy; for a machine
with other work, before which the second command (as root) puts this script and its neighbours.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from turns import keep

from fpn.detectors import faster_rcnn
from fpn.runtime import waiting
from fpn.runtime.load import Reading
from fpn.shapes import Size
from fpn.structures import Targets
from fpn.studies.benchmark.images import draw_noise, draw_truth


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neighbours", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--work", choices=["net", "detector"], default="net")
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--keep", help="write results/NAME.json")
    return parser.parse_args()


def small_net() -> Callable[[], float]:
    """A step of a small convolution net: hundreds of short operations."""
    torch.manual_seed(0)
    widths = [3, *[32] * 8]
    layers = [(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in pairwise(widths)]
    net, images = nn.Sequential(*(part for layer in layers for part in layer)), torch.randn(4, 3, 96, 96)

    def step() -> float:
        net.zero_grad()
        loss = net(images).square().mean()
        loss.backward()
        return float(loss.detach())

    return step


def detector() -> Callable[[], float]:
    """A step of a light Faster R-CNN on two images of 320x427, without an optimizer: every step is the same."""
    torch.manual_seed(0)
    size = Size(320, 427)
    model = faster_rcnn(
        classes=list("abc"), backbone="tf_efficientnet_lite0", weights=None, channels=96, head_width=512
    ).train()
    images = model.preprocessor.collate([image - 0.5 for image in draw_noise(2, size)])
    targets = [Targets(boxes, labels) for boxes, labels in draw_truth(2, size, num_classes=3)]

    def step() -> float:
        model.zero_grad()
        loss = model.losses(images, targets, generator=torch.Generator().manual_seed(0)).total
        loss.backward()
        return float(loss.detach())

    return step


class Neighbours:
    """Processes that compute without end."""

    def __init__(self, count: int) -> None:
        code = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n for _ in range(10**6): pass"
        self.processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]

    def seconds(self) -> float:
        """Of processor time that they used."""
        ticks = 0
        for process in self.processes:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def read(self, cores: Collection[int]) -> Reading:
        """A machine on which nobody else is; which core a neighbour used is not known."""
        own = time.process_time()
        busy = (own + self.seconds()) / len(cores)
        return Reading(time.monotonic(), dict.fromkeys(cores, busy), own)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def measure(step: Callable[[], float], neighbours: Neighbours, turns: int) -> dict[str, dict[str, object]]:
    """Each way's wall and processor seconds a step, and its loss."""
    ways = {"spinning": nullcontext, "considerate": waiting.considerate, "one thread": one_thread}
    walls: dict[str, list[float]] = {name: [] for name in ways}
    busy: dict[str, list[float]] = {name: [] for name in ways}
    losses: dict[str, set[float]] = {name: set() for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            with way():
                time.sleep(0.6)  # in which the machine is looked at; a run of many steps has that behind it
                step()
                for _ in range(3):
                    wall, own = time.perf_counter(), time.process_time()
                    losses[name].add(step())
                    walls[name].append(time.perf_counter() - wall)
                    busy[name].append(time.process_time() - own)
    return {
        name: {
            "seconds": statistics.median(walls[name]),
            "processor_seconds": statistics.median(busy[name]),
            "losses": sorted(losses[name]),
        }
        for name in ways
    }


def main() -> None:
    options = parse()
    step = small_net() if options.work == "net" else detector()
    cores = len(os.sched_getaffinity(0))
    step()
    rows, alone = [], 0.0
    print(
        "| neighbours | spinning (s) | considerate (s) | one thread (s) | fair share (s) | considerate / fair share |"
    )
    print("|---:|---:|---:|---:|---:|---:|")
    for count in options.neighbours:
        neighbours = Neighbours(count)
        try:
            if options.apart:
                read, waiting.read_load = waiting.read_load, neighbours.read
                waiting._attendants.clear()
            sides = measure(step, neighbours, options.turns)
        finally:
            neighbours.end()
            if options.apart:
                waiting.read_load = read
        alone = alone or sides["one thread"]["seconds"]
        fair = sides["spinning"]["seconds"] if count == 0 else alone / min(1, cores / (count + 1))
        figures = [sides[name]["seconds"] for name in ("spinning", "considerate", "one thread")]
        told = " | ".join(f"{seconds:.3f}" for seconds in [*figures, fair])
        print(f"| {count} | {told} | {figures[1] / fair:.2f} |", flush=True)
        same = sides["spinning"]["losses"] == sides["considerate"]["losses"]
        rows.append({"neighbours": count, "fair_share": fair, "sides": sides, "same_loss": same})
    print(f"losses of `spinning` and `considerate` equal to the bit: {all(row['same_loss'] for row in rows)}")
    if options.keep:
        keep(options.keep, {"cores": cores, "load": os.getloadavg()[0], "apart": options.apart, "rows": rows})


if __name__ == "__main__":
    main()
