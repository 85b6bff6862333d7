"""Time and memory of taking a Detectron2 `.pkl` of 170 MB (Faster R-CNN on R50-FPN, made-up weights) into a detector.

    OMP_NUM_THREADS=1 python benchmarks/import_speed.py [--runs 5] [--keep NAME]

Each run is a process of its own that has everything loaded before it begins. Memory: by how much its highest resident
memory grows, pages of the file that are looked at through the file system included.
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from turns import keep

from fpn.interop import import_weights
from fpn.studies.benchmark.memory import peak_mebibytes

NAMES = Path(__file__).resolve().parents[1] / "tests" / "parity" / "golden" / "names" / "d2_faster.json"


def write(path: Path) -> None:
    """The file, in the form of Detectron2's model zoo, as Python 3.7 pickled it."""
    chance = np.random.default_rng(0)
    state = {
        name: chance.standard_normal(shape, dtype=np.float32)
        for name, shape, *_ in json.loads(NAMES.read_text())["entries"]
    }
    held = {"model": state, "__author__": "Detectron2 Model Zoo", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(held, protocol=3))


def timed(path: Path, note: Path) -> None:
    """One import; its seconds go into a file, since memory is what `peak_mebibytes` answers with."""
    started, worked = time.perf_counter(), time.process_time()
    imported = import_weights(path)
    note.write_text(json.dumps([time.perf_counter() - started, time.process_time() - worked]))
    assert imported.leftover == ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--keep", help="name of a file in results/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, note = Path(folder) / "model_final.pkl", Path(folder) / "seconds.json"
        write(path)
        size = path.stat().st_size
        rows = []
        for _ in range(options.runs):
            grown = peak_mebibytes(torch.device("cpu"), timed, path, note) * 2**20
            rows.append([*json.loads(note.read_text()), grown / size])
    print(f"{size / 1e6:.0f} MB, {torch.get_num_threads()} threads")
    for name, column in zip(("seconds", "of the processor", "memory / size"), zip(*rows, strict=True), strict=True):
        print(f"{name}: median {statistics.median(column):.2f}, highest {max(column):.2f}")
    if options.keep:
        keep(options.keep, {"bytes": size, "threads": torch.get_num_threads(), "rows": rows})


if __name__ == "__main__":
    main()
