"""Images decoded and resized a second: ours against torchvision's CocoDetection with its v2 transforms.

    python benchmarks/loading.py DATA [--split test] [--short-side 320] [--repeats 5]
    python benchmarks/loading.py --drawn 4000x3000 --count 8 [FOLDER_OF_PHOTOGRAPHS]

Both sides read the same files on one thread and end with a normalised float32 tensor of the same shape and the boxes
in it: theirs by CocoDetection, PILToTensor, Resize (antialiased bilinear, their default), ToDtype and Normalize. Ours
twice: `full` is `Dataset` and `Preprocessor.prepare`; `reduced`, as in training, decodes a JPEG at a part of its size
when at least twice the network's remains. Differences are those between network pixels and those of `full`, in grey
levels. Results go to results/loading.json or loading_large.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
import turns
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

import fpn
from fpn.data.dataset import Dataset
from fpn.detectors.toolkits import DETECTRON2
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.preprocessing.resizing import network_frame
from fpn.shapes import Size

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_door(short_side: int) -> Preprocessor:
    dialect = DETECTRON2.changed(
        pixels_channel_order="rgb",
        pixels_value_range=1.0,
        pixels_mean=MEAN,
        pixels_std=STD,
        pixels_short_side=short_side,
    )
    return Preprocessor(dialect.pixels.changed(long_side=None))


def their_dataset(annotations: Path, images: Path, preprocessor: Preprocessor) -> Any:
    @lru_cache
    def change(width: int, height: int) -> v2.Compose:
        # To the very pixel: their own rule rounds the longer side down, ours to the nearest.
        frame = network_frame(
            Size(height, width),
            method=preprocessor.config.resize,
            short_side=preprocessor.config.short_side,
            long_side=preprocessor.config.long_side,
        )
        resize = v2.Resize(tuple(frame.network), antialias=True)
        return v2.Compose([v2.PILToTensor(), resize, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])

    def transform(image: Image.Image, target: Any) -> Any:
        return change(*image.size)(image, target)

    plain = torchvision.datasets.CocoDetection(str(images), str(annotations), transforms=transform)
    return torchvision.datasets.wrap_dataset_for_transforms_v2(plain, target_keys=("boxes", "labels"))


def theirs(dataset: Any) -> list[Tensor]:
    return [dataset[number][0] for number in range(len(dataset))]


def full(dataset: Dataset, preprocessor: Preprocessor) -> list[Tensor]:
    return [preprocessor.prepare(sample.image, sample.targets).pixels for sample in dataset]


def reduced(dataset: Dataset, preprocessor: Preprocessor) -> list[Tensor]:
    samples = (dataset.sample(number, min_size=preprocessor.min_size) for number in range(len(dataset)))
    return [preprocessor.prepare(sample.image, sample.targets).pixels for sample in samples]


def draw(folder: Path, width: int, height: int, count: int, texture: Path | None) -> tuple[Path, Path]:
    """Large JPEGs: enlarged photographs with noise where there are some, else soft noise; one box each."""
    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    sources = sorted(texture.glob("*.jpg"))[:count] if texture else []
    for number in range(count):
        if sources:
            image = Image.open(sources[number % len(sources)]).convert("RGB").resize((width, height))
        else:
            coarse = random.integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((width, height))
        noisy = np.asarray(image, dtype=np.float32) + random.normal(0, 6, (height, width, 1))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{number}.jpg", quality=92)
    images = [{"id": n, "width": width, "height": height, "file_name": f"{n}.jpg"} for n in range(count)]
    box = {"category_id": 1, "bbox": [100, 100, 500, 400], "area": 200_000, "iscrowd": 0}
    annotations = [{**box, "id": n + 1, "image_id": n} for n in range(count)]
    path = folder / "annotations.json"
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    path.write_text(json.dumps(truth))
    return path, folder / "images"


def as_coco(dataset: Dataset, folder: Path) -> Path:
    path = folder / "annotations.json"
    path.write_text(json.dumps(dataset.coco()))
    return path


def difference(mine: list[Tensor], other: list[Tensor]) -> dict[str, float]:
    """In grey levels of 0..255, over all images of one shape on both sides."""
    spread = 255 * torch.tensor(STD).view(3, 1, 1)
    assert all(a.shape == b.shape for a, b in zip(mine, other, strict=True)), "images of other sizes"
    apart = torch.cat([((a - b) * spread).abs().flatten() for a, b in zip(mine, other, strict=True)])
    return {"mean": apart.mean().item(), "p99": float(np.quantile(apart.numpy(), 0.99))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="any dataset that fpn opens; with --drawn, photographs to enlarge")
    parser.add_argument("--split")
    parser.add_argument("--drawn", metavar="WIDTHxHEIGHT", help="measure on images of this size, drawn")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--short-side", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    preprocessor = make_door(options.short_side)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.drawn:
            width, height = map(int, options.drawn.split("x"))
            annotations, images = draw(folder, width, height, options.count, options.data and Path(options.data))
            dataset = fpn.open_dataset(annotations)
        else:
            whole = fpn.open_dataset(options.data, split=options.split, drop_invalid=True)
            dataset = whole.subset(range(min(options.count, len(whole))))
            annotations, images = as_coco(dataset, folder), dataset.root
        measure(dataset, their_dataset(annotations, images, preprocessor), preprocessor, options)


def measure(dataset: Dataset, other: Any, preprocessor: Preprocessor, options: argparse.Namespace) -> None:
    sides = turns.in_turns(
        {
            "torchvision": lambda: theirs(other),
            "fpn, full": lambda: full(dataset, preprocessor),
            "fpn, reduced": lambda: reduced(dataset, preprocessor),
        },
        repeats=options.repeats,
    )
    reference, rows = sides["torchvision"], []
    size = dataset.size(0)
    print(f"{len(dataset)} images of {size.width}x{size.height}, short side {options.short_side}, one thread")
    print("| side | images/s | ratio | CPU ratio | mean difference | 99 % below |\n|---|---:|---:|---:|---:|---:|")
    for name, side in sides.items():
        ratio, busy = reference.seconds / side.seconds, reference.busy_seconds / side.busy_seconds
        apart = difference(side.outcome, sides["fpn, full"].outcome)
        rate = len(dataset) / side.seconds
        print(f"| {name} | {rate:.1f} | **{ratio:.2f}** | {busy:.2f} | {apart['mean']:.2f} | {apart['p99']:.1f} |")
        figures = {"side": name, "images_a_second": rate, "ratio": ratio, "cpu_ratio": busy, "difference": apart}
        rows.append({**figures, "turns": side.wall})
    kind = "loading_large" if options.drawn else "loading"
    settings = {"count": len(dataset), "size": [size.width, size.height], "short_side": options.short_side}
    turns.keep(kind, {"options": {**settings, "repeats": options.repeats}, "rows": rows})


if __name__ == "__main__":
    main()
