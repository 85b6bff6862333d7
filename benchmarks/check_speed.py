"""How long `fpn check` takes on a large COCO json, which this script draws itself: images, boxes, outlines.

    python benchmarks/check_speed.py --objects 100000 --images 5000

Everything that the command does but printing: annotations, every image decoded, near-duplicates, outlines that cross
themselves, anchors that fit and a search for better ones. Seconds of the clock and of the processor are given, since
the latter hardly depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import turns
from PIL import Image

from fpn.data.checks.inspection import check
from fpn.data.formats.open import survey_dataset
from fpn.detectors.presets import adapt_dialect
from fpn.studies.anchor_fit import fit_dataset

WIDTH, HEIGHT = 640, 480
RESULTS = Path(__file__).parent / "results"
CLASSES = [f"class {number}" for number in range(1, 81)]
T = TypeVar("T")


def main() -> None:
    """Draw, check, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--workers", type=int, help="threads that look at images; absent: one a core")
    parser.add_argument("--name", default="check_speed", help="of the file in benchmarks/results")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw(root, words.objects, words.images)
        result = measure(root, words.workers)
    result = {**turns.about(), **result}
    (RESULTS / f"{words.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def draw(root: Path, objects: int, images: int) -> None:
    """Write images/*.jpg of random shapes on random ground, and annotations/instances.json."""
    rng, chance = np.random.default_rng(0), random.Random(0)
    (root / "images").mkdir()
    (root / "annotations").mkdir()
    for number in range(images):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        fine = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        parts = [Image.fromarray(each).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR) for each in (coarse, fine)]
        Image.blend(*parts, alpha=0.3).save(root / f"images/{number:06}.jpg", quality=90)
    data = {
        "images": [
            {"id": number, "file_name": f"{number:06}.jpg", "width": WIDTH, "height": HEIGHT}
            for number in range(images)
        ],
        "annotations": [annotation(number, number * images // objects, chance) for number in range(objects)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)],
    }
    (root / "annotations/instances.json").write_text(json.dumps(data))


def annotation(number: int, image_id: int, chance: random.Random) -> dict[str, Any]:
    """An object with a star-shaped outline of 8 to 40 corners; sides from 4 to 250 pixels, small ones the commonest."""
    width, height = (math.exp(chance.uniform(math.log(4), math.log(250))) for _ in range(2))
    x, y = chance.uniform(0, WIDTH - width), chance.uniform(0, HEIGHT - height)
    corners = chance.randrange(8, 41)
    outline = []
    for k in range(corners):
        angle, far = 2 * math.pi * k / corners, chance.uniform(0.6, 1) / 2
        outline += [
            round(x + width * (0.5 + far * math.cos(angle)), 2),
            round(y + height * (0.5 + far * math.sin(angle)), 2),
        ]
    return {
        "id": number + 1,
        "image_id": image_id,
        "category_id": chance.randrange(1, len(CLASSES) + 1),
        "bbox": [round(x, 2), round(y, 2), round(width, 2), round(height, 2)],
        "area": round(width * height * 0.5, 2),
        "iscrowd": 0,
        "segmentation": [outline],
    }


def measure(root: Path, workers: int | None) -> dict[str, Any]:
    """Seconds of the parts and of the whole, and what was checked."""
    _, reading = timed(lambda: survey_dataset(root))
    report, checking = timed(lambda: check(root, workers=workers))
    reached, fitting = timed(lambda: fit_dataset(report.inspected, adapt_dialect("paper")))
    kinds = [*(finding.kind for finding in report.findings), *(finding.kind for finding in reached.findings)]
    return {
        "json_mib": round((root / "annotations/instances.json").stat().st_size / 2**20, 1),
        "images": len(report.inspected.infos),
        "objects": reached.objects,
        "found": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        "seconds": {"whole": round(checking[0] + fitting[0], 1), "annotations": reading[0], "anchors": fitting[0]},
        "processor_seconds": {
            "whole": round(checking[1] + fitting[1], 1),
            "annotations": reading[1],
            "anchors": fitting[1],
        },
    }


def timed(work: Callable[[], T]) -> tuple[T, tuple[float, float]]:
    """A result, and the seconds of the clock and of the processor that it took."""
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, (round(time.perf_counter() - clock, 1), round(time.process_time() - processor, 1))


if __name__ == "__main__":
    main()
