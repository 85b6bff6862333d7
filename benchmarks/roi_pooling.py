"""RoI pooling over four levels: ours against torchvision.ops.roi_align, in one process, in turns.

    python benchmarks/roi_pooling.py [--rois 2048] [--repeats 7] [--threads 2] [--output FILE.json]

Both sides get the same values and the same contiguous gradient of the result; torchvision gets the maps in its own
order (B, C, H, W), ours once in that order and once channels-last, in which our pyramid works. torchvision's kernel has
no bfloat16 on a CPU: there it converts the maps to float32 and the result back, as it does under autocast. RoIs are
of log-uniform size, 16 to 512 pixels, on the levels that equation 1 gives them.
Seconds are medians; `ratio` is torchvision's over ours; `CPU ratio` is the same for the time that the processor spent
on this process alone, which other programs on the machine disturb less. With one thread the two are the same on an
idle machine; with more, threads that wait for one another count as busy.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
import torchvision
from torch import Tensor

from fpn.ops.roi_pooling import choose_levels, pool_rois

STRIDES = (4, 8, 16, 32)
HEIGHT, WIDTH = 800, 1088
SIZE = 7
TOLERANCE = {torch.float32: 4e-5, torch.bfloat16: 6e-2}

Outcome = tuple[Tensor, list[Tensor]]


@dataclass(frozen=True)
class Rois:
    boxes: Tensor
    levels: Tensor

    @property
    def images(self) -> Tensor:
        return torch.zeros_like(self.levels)


@dataclass(frozen=True)
class Row:
    work: str
    dtype: str
    maps: str
    ours_seconds: float
    torchvision_seconds: float
    ratio: float
    cpu_ratio: float
    largest_difference: float


def draw_rois(count: int) -> Rois:
    random = torch.Generator().manual_seed(0)
    low, high = math.log(16), math.log(512)
    side = (torch.rand(count, generator=random) * (high - low) + low).exp()
    stretch = ((torch.rand(count, generator=random) - 0.5) * 1.4).exp()
    sides = torch.stack([(side * stretch).clamp(max=WIDTH - 1), (side / stretch).clamp(max=HEIGHT - 1)], dim=1)
    corner = torch.rand(count, 2, generator=random) * (torch.tensor([WIDTH, HEIGHT]) - sides)
    boxes = torch.cat([corner, corner + sides], dim=1)
    return Rois(boxes, choose_levels(boxes, finest=2, coarsest=5) - 2)


def draw_maps(channels: int, dtype: torch.dtype) -> list[Tensor]:
    random = torch.Generator().manual_seed(1)
    return [torch.randn(1, channels, HEIGHT // s, WIDTH // s, generator=random).to(dtype) for s in STRIDES]


def ours(maps: list[Tensor], rois: Rois) -> Tensor:
    scales = [(1 / stride, 1 / stride) for stride in STRIDES]
    return pool_rois(maps, scales, rois.boxes, rois.images, rois.levels, output_size=SIZE, sampling_ratio=2)


def torchvisions(maps: list[Tensor], rois: Rois) -> Tensor:
    """As torchvision's MultiScaleRoIAlign does: level by level, into the order of the RoIs."""
    pooled = maps[0].new_zeros(len(rois.boxes), maps[0].shape[1], SIZE, SIZE)
    for level, (feature, stride) in enumerate(zip(maps, STRIDES, strict=True)):
        here = torch.where(rois.levels == level)[0]
        listed = torch.cat([torch.zeros(len(here), 1), rois.boxes[here]], dim=1)
        part = torchvision.ops.roi_align(feature.float(), listed, SIZE, 1 / stride, 2, True)
        pooled[here] = part.to(feature.dtype)
    return pooled


def forward(pool: Callable[[list[Tensor], Rois], Tensor], maps: list[Tensor], rois: Rois, _: Tensor) -> Outcome:
    with torch.no_grad():
        return pool(maps, rois), []


def forward_backward(
    pool: Callable[[list[Tensor], Rois], Tensor], maps: list[Tensor], rois: Rois, slope: Tensor
) -> Outcome:
    leaves = [m.detach().requires_grad_() for m in maps]
    pooled = pool(leaves, rois)
    return pooled.detach(), list(torch.autograd.grad(pooled, leaves, slope))


WORKS = {"forward": forward, "forward + backward": forward_backward}


def timed(work: Callable[[], Outcome]) -> tuple[float, float]:
    wall, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - busy


def largest_difference(mine: Outcome, other: Outcome) -> float:
    pairs = [(mine[0], other[0]), *zip(mine[1], other[1], strict=True)]
    return max(((a.float() - b.float()).abs() / (1 + b.float().abs())).max().item() for a, b in pairs)


def compare(name: str, dtype: torch.dtype, channels_last: bool, rois: Rois, arguments: argparse.Namespace) -> Row:
    maps = draw_maps(arguments.channels, dtype)
    form = torch.channels_last if channels_last else torch.contiguous_format
    laid = [m.contiguous(memory_format=form) for m in maps]
    shape = (len(rois.boxes), arguments.channels, SIZE, SIZE)
    slope = torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(dtype)

    def mine() -> Outcome:
        return WORKS[name](ours, laid, rois, slope)

    def other() -> Outcome:
        return WORKS[name](torchvisions, maps, rois, slope)

    difference = largest_difference(mine(), other())
    if difference > TOLERANCE[dtype]:
        raise SystemExit(f"{name}, {dtype}: results differ by {difference}; a fast wrong answer is no answer.")
    turns = [(timed(mine), timed(other)) for _ in range(arguments.repeats)]
    wall = [statistics.median(turn[side][0] for turn in turns) for side in (0, 1)]
    busy = [statistics.median(turn[side][1] for turn in turns) for side in (0, 1)]
    layout = "channels-last" if channels_last else "contiguous"
    kind = str(dtype).removeprefix("torch.")
    return Row(name, kind, layout, wall[0], wall[1], wall[1] / wall[0], busy[1] / busy[0], difference)


def surroundings(arguments: argparse.Namespace) -> dict[str, object]:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": models[0].split(":")[1].strip() if models else platform.processor(),
        "cores": os.cpu_count(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "load_of_the_machine": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "rois": arguments.rois,
        "channels": arguments.channels,
        "repeats": arguments.repeats,
        "picture": [HEIGHT, WIDTH],
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rois", type=int, default=2048)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7, help="turns; the median is reported")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    rois = draw_rois(arguments.rois)
    about = surroundings(arguments) | {"rois_a_level": rois.levels.bincount(minlength=4).tolist()}
    print("\n".join(f"{key}: {value}" for key, value in about.items()))
    print("\n| work | type | our maps | ours (ms) | torchvision (ms) | ratio | CPU ratio | largest difference |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for name in WORKS:
            for channels_last in (True, False):
                row = compare(name, dtype, channels_last, rois, arguments)
                rows.append(row)
                print(
                    f"| {row.work} | {row.dtype} | {row.maps} | {row.ours_seconds * 1e3:.1f} | "
                    f"{row.torchvision_seconds * 1e3:.1f} | {row.ratio:.1f} | {row.cpu_ratio:.1f} | "
                    f"{row.largest_difference:.1g} |",
                    flush=True,
                )
    if arguments.output:
        arguments.output.write_text(json.dumps(about | {"rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
