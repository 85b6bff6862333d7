"""Memory of a COCO json held by loader workers: our dataset against torchvision's CocoDetection over pycocotools.

    python benchmarks/dataset_memory.py [--images 100000] [--workers 4] [--epochs 3] [--outline 0]

A json is drawn (7 objects an image on average; `--outline 16` gives each object a polygon of 16 corners), and each
side opens it in a process of its own. Then that process starts the workers of a torch DataLoader, which ask for the
objects of all images in a random order, epoch after epoch; no image is opened. At the end the memory of all
processes is added up as PSS (/proc/PID/smaps_rollup), in which a page that n processes share counts for 1/n in each. A
third process does the same with no data at all: what its libraries take is subtracted for the column "data". Linux
only. Results go to results/dataset_memory.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
import turns
from torch.utils.data import DataLoader

import fpn

SIDES = ("nothing", "fpn", "torchvision")
CHUNK = 500


def draw(folder: Path, count: int, outline: int) -> Path:
    """A COCO json with empty files for its images, which nobody opens."""
    random = np.random.default_rng(0)
    images, annotations = [], []
    (folder / "images").mkdir()
    for number in range(1, count + 1):
        name = f"{number:012d}.jpg"
        (folder / "images" / name).touch()
        images.append({"id": number, "width": 640, "height": 480, "file_name": name})
        for x, y, width, height in random.uniform(5, 235, (int(random.poisson(7)), 4)).round(2).tolist():
            record = {"id": len(annotations) + 1, "image_id": number, "category_id": int(random.integers(1, 81))}
            record |= {"bbox": [x, y, width, height], "area": round(width * height, 2), "iscrowd": 0}
            if outline:
                corners = random.random((outline, 2)) * (width, height) + (x, y)
                record["segmentation"] = [corners.round(2).ravel().tolist()]
            annotations.append(record)
    categories = [{"id": n, "name": f"class {n}"} for n in range(1, 81)]
    path = folder / "annotations.json"
    with path.open("w") as file:
        json.dump({"images": images, "annotations": annotations, "categories": categories}, file)
    return path


class Chunks:
    """Item k: how many objects some images from all over the dataset have, each of them touched."""

    def __init__(self, count: int, objects: Callable[[int], float]) -> None:
        self.count, self.objects = count, objects
        self.order = np.random.default_rng(0).permutation(count)

    def __len__(self) -> int:
        return -(-self.count // CHUNK)

    def __getitem__(self, chunk: int) -> float:
        numbers = self.order[chunk * CHUNK : (chunk + 1) * CHUNK].tolist()
        return sum(self.objects(number) for number in numbers)


def open_side(side: str, path: Path) -> Chunks:
    if side == "nothing":
        return Chunks(100 * CHUNK, lambda _: 0.0)
    if side == "fpn":
        ours = fpn.open_dataset(path)
        return Chunks(len(ours), lambda number: float((ours.targets(number).boxes[:, 2] > 0).sum()))
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = torchvision.datasets.CocoDetection(str(path.parent / "images"), str(path))
    theirs._load_image = lambda _: None  # type: ignore[method-assign, assignment]
    return Chunks(len(theirs), lambda number: float(sum(sum(each["bbox"]) > 0 for each in theirs[number][1])))


def hold(side: str, path: Path, workers: int, epochs: int) -> dict[str, Any]:
    """Open, read with workers, add up the memory of all processes."""
    began = time.perf_counter()
    chunks = open_side(side, path)
    opened = time.perf_counter() - began
    alone = megabytes(os.getpid())
    # More workers than cores are meant.
    warnings.filterwarnings("ignore", message=".*worker processes in total")
    loader = DataLoader(chunks, shuffle=True, num_workers=workers, persistent_workers=True)  # type: ignore[arg-type, var-annotated]
    began, objects = time.perf_counter(), 0
    for _ in range(epochs):
        objects = int(sum(float(part) for part in loader))
    read = time.perf_counter() - began
    found = [megabytes(each.pid) for each in loader._iterator._workers]  # type: ignore[union-attr]
    together = {"main": megabytes(os.getpid()), "workers": found}
    total = together["main"] + sum(found)
    return {"objects": objects, "open_s": opened, "read_s": read, "alone_mib": alone, **together, "total_mib": total}


def megabytes(process: int) -> float:
    """Proportional set size of a process."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {process} has no Pss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--outline", type=int, default=0)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        torch.manual_seed(0)
        print(json.dumps(hold(options.side, options.json, options.workers, options.epochs)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = draw(Path(folder), options.images, options.outline)
        size = path.stat().st_size / 2**20
        rest = ["--json", str(path), "--workers", str(options.workers), "--epochs", str(options.epochs)]
        found = {side: run(["--side", side, *rest]) for side in SIDES}
    report(found, size, {key: value for key, value in vars(options).items() if key not in ("side", "json")})


def run(arguments: list[str]) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def report(found: dict[str, dict[str, Any]], size: float, options: dict[str, Any]) -> None:
    nothing, mine, theirs = (found[side] for side in SIDES)
    assert mine["objects"] == theirs["objects"], f"objects: ours {mine['objects']}, theirs {theirs['objects']}"
    for each in (mine, theirs):
        each["data_mib"] = each["total_mib"] - nothing["total_mib"]
    count = f"{options['images']} images, {mine['objects']} objects"
    print(f"{count}, json of {size:.0f} MiB, {options['workers']} workers")
    print("| | all processes (MiB) | of it data (MiB) | to open (s) | to read (s) |\n|---|---:|---:|---:|---:|")
    for side in SIDES:
        each = found[side]
        row = (each["total_mib"], each.get("data_mib", 0), each["open_s"], each["read_s"])
        print(f"| {side} | " + " | ".join(f"{value:.1f}" for value in row) + " |")
    whole, data = theirs["total_mib"] / mine["total_mib"], theirs["data_mib"] / mine["data_mib"]
    print(f"torchvision holds {whole:.1f} times as much as fpn; {data:.1f} times as much data")
    ratios = {"ratio": whole, "ratio_data": data}
    turns.keep("dataset_memory", {"options": options, "json_mib": size, "sides": found, **ratios})


if __name__ == "__main__":
    main()
