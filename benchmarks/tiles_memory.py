"""Memory of `fpn predict --tiles` by the size of the image: drawn TIFFs that are read window by window.

    python benchmarks/tiles_memory.py [--sizes 8000x6000 14000x10000 20000x15000] [--tile 640] [--model MODEL]

Each image is written block by block (256 x 256, JPEG inside), so that this script holds none either: noise with squares
whose number grows with the image. Peaks are the most resident memory of the command's own process (VmHWM), MiB; those
of up to 134 million pixels (--max-pixels) are held in memory by design, `--max-pixels` makes the command read them in
parts as well. Without a model one with random weights looks, which sees as much as any. Needs the extra `large`.
Results go to results/tiles_memory.json.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
import torch
import turns
from rasterio.windows import Window

import fpn

_BLOCK = 256
# Below the smallest image of the list: all are read in parts.
_HELD = 20_000_000


def draw(path: Path, width: int, height: int) -> None:
    """Grey noise, in every second block a square of 20 to 200 pixels."""
    form = {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "compress": "jpeg", "photometric": "ycbcr"}
    size = {"width": width, "height": height, "count": 3, "dtype": "uint8", "driver": "GTiff"}
    random = np.random.default_rng(0)
    noise = random.integers(90, 130, (3, _BLOCK, _BLOCK), dtype=np.uint8)
    with rasterio.open(path, "w", **size, **form) as image:
        for number, (_, window) in enumerate(image.block_windows(1)):
            block = noise.copy()
            if number % 2:
                side = int(random.integers(20, 200))
                block[:, 30 : 30 + side, 30 : 30 + side] = random.integers(0, 256, (3, 1, 1), dtype=np.uint8)
            rows, columns = int(window.height), int(window.width)
            image.write(block[:, :rows, :columns], window=Window(window.col_off, window.row_off, columns, rows))


def light_model(path: Path) -> Path:
    """One with random weights that nothing is sure of."""
    torch.manual_seed(0)
    sizes = {"channels": 64, "head_width": 256, "short_side": 640, "long_side": 640}
    fpn.save(fpn.faster_rcnn(backbone="tf_efficientnet_lite0", weights=None, classes=("object",), **sizes), path)
    return path


def peak(command: Sequence[str]) -> float:
    """The most memory a process has resident, MiB.

    Raises:
        SystemExit: it failed.
    """
    most = 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        most = max([most, *(int(line.split()[1]) for line in lines)])
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(process.stderr.read() if process.stderr else "failed")
    return most / 1024


def main(words: Sequence[str] | None = None) -> None:
    """Draw, look, tell."""
    reads = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reads.add_argument("--sizes", nargs="+", default=["8000x6000", "14000x10000", "20000x15000"])
    reads.add_argument("--tile", type=int, default=640)
    reads.add_argument("--model", type=Path)
    asked = reads.parse_args(words)
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # no image of the Earth
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = asked.model or light_model(folder / "light.safetensors")
        for size in asked.sizes:
            width, height = (int(number) for number in size.split("x"))
            image = folder / f"{size}.tif"
            draw(image, width, height)
            command = [sys.executable, "-m", "fpn", "predict", str(model), str(image), "--output", str(folder / size)]
            options = ["--tiles", str(asked.tile), "--no-images", "--max-pixels", str(_HELD), "--device", "cpu"]
            rows.append({"size": size, "pixels": 3 * width * height / 2**20, "peak": peak([*command, *options])})
            print("{size}: {pixels:.0f} MiB of pixels, peak {peak:.0f} MiB".format(**rows[-1]), flush=True)
            image.unlink()
    turns.keep("tiles_memory", {"tile": asked.tile, "rows": rows})


if __name__ == "__main__":
    main()
