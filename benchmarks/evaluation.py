"""Counting COCO's twelve numbers: ours (hotcoco behind it) against pycocotools, in one process, in turns.

    python benchmarks/evaluation.py [--images 5000] [--detections 100] [--classes 80] [--repeats 5]

Objects and detections are drawn: 7 objects an image on average, log-uniform sides of 8 to 300 pixels, one in a hundred
a crowd; detections lie near objects or anywhere, with random scores. Both sides begin with the truth as a dict and the
detections in memory, and end with the twelve numbers, which must be equal to the last bit but for the order of
summation (1e-12).

`records`: both get the same COCO result records (dicts). `arrays`: both begin with one array an image, as a detector
leaves them: ours passes them on, pycocotools gets the records it needs, made within its time.
pycocotools uses one thread, ours all cores that it is given: the CPU ratio compares processor time. A last line says
where our time goes. Results go to results/evaluation.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from dataclasses import astuple
from typing import Any

import numpy as np
import turns
from hotcoco import COCO, COCOeval
from pycocotools import coco as their_data
from pycocotools.cocoeval import COCOeval as TheirCounter

from fpn.evaluation.coco import coco_metrics

HEIGHT, WIDTH = 480, 640
Record = dict[str, Any]


def draw_truth(count: int, classes: int, random: np.random.Generator) -> tuple[dict[str, Any], list[np.ndarray]]:
    """A COCO json, and for each image its objects as rows x, y, w, h, category."""
    rows, annotations = [], []
    for number in range(1, count + 1):
        here = draw_objects(int(random.poisson(7)), classes, random)
        crowd = random.random(len(here)) < 0.01
        for (*box, category), skip in zip(here.tolist(), crowd.tolist(), strict=True):
            place = {"id": len(annotations) + 1, "image_id": number, "category_id": int(category)}
            annotations.append(place | {"bbox": box, "area": box[2] * box[3], "iscrowd": int(skip)})
        rows.append(here)
    images = [{"id": n, "width": WIDTH, "height": HEIGHT, "file_name": f"{n}.jpg"} for n in range(1, count + 1)]
    categories = [{"id": n, "name": f"class {n}"} for n in range(1, classes + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}, rows


def draw_objects(count: int, classes: int, random: np.random.Generator) -> np.ndarray:
    sides = np.exp(random.uniform(np.log(8), np.log(300), (count, 2)))
    corners = random.random((count, 2)) * (np.array([WIDTH, HEIGHT]) - sides)
    return np.column_stack([corners, sides, random.integers(1, classes + 1, count)])


def draw_found(rows: np.ndarray, count: int, classes: int, random: np.random.Generator) -> np.ndarray:
    """Detections of one image, rows x, y, w, h, score, category: up to three near each object, the rest anywhere."""
    found = draw_objects(count, classes, random)
    near = np.repeat(rows, 3, axis=0)[:count]
    noise = random.normal(0, 0.12, (len(near), 4)) * np.tile(near[:, 2:4], 2)
    found[: len(near)] = near
    found[: len(near), :4] = (near[:, :4] + noise).clip(1)
    return np.column_stack([found[:, :4], random.random(count), found[:, 4]])


def records_of(found: dict[int, np.ndarray]) -> list[Record]:
    return [
        {"image_id": number, "category_id": int(category), "bbox": box, "score": score}
        for number, rows in found.items()
        for *box, score, category in rows.tolist()
    ]


def results_of(found: dict[int, np.ndarray]) -> np.ndarray:
    """(n, 7): image, x, y, w, h, score, category."""
    numbers = np.repeat(list(found), [len(rows) for rows in found.values()])
    return np.column_stack([numbers, np.concatenate(list(found.values()))])


def ours(truth: dict[str, Any], results: list[Record] | np.ndarray) -> list[float]:
    return list(astuple(coco_metrics(truth, results))[:12])


def pycocotools(truth: dict[str, Any], records: list[Record]) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        data = their_data.COCO()
        data.dataset = truth
        data.createIndex()
        # Copies, since loadRes writes into what it is given.
        counter = TheirCounter(data, data.loadRes([dict(each) for each in records]), "bbox")
        counter.evaluate()
        counter.accumulate()
        counter.summarize()
    return [float(value) for value in counter.stats]


def profile(truth: dict[str, Any], results: np.ndarray) -> dict[str, float]:
    """Seconds of each step below `coco_metrics`."""
    seconds, began = {}, time.perf_counter()

    def mark(step: str) -> None:
        nonlocal began
        seconds[step], began = round(time.perf_counter() - began, 4), time.perf_counter()

    data = COCO(truth)
    mark("truth")
    found = data.load_res(results)
    mark("detections")
    counter = COCOeval(data, found, "bbox")
    counter.evaluate()
    mark("match")
    counter.accumulate()
    mark("accumulate")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    truth, objects = draw_truth(options.images, options.classes, random)
    found = {
        number: draw_found(rows, options.detections, options.classes, random)
        for number, rows in enumerate(objects, start=1)
    }
    records = records_of(found)
    sides = turns.in_turns(
        {
            "fpn, records": lambda: ours(truth, records),
            "fpn, arrays": lambda: ours(truth, results_of(found)),
            "pycocotools, records": lambda: pycocotools(truth, records),
            "pycocotools, arrays": lambda: pycocotools(truth, records_of(found)),
        },
        repeats=options.repeats,
        warm=False,
    )
    numbers = np.array([side.outcome for side in sides.values()])
    difference = float(np.abs(numbers - numbers[-1]).max())
    assert difference < 1e-12, f"the twelve numbers differ by up to {difference}"
    rows = [row(kind, sides[f"fpn, {kind}"], sides[f"pycocotools, {kind}"]) for kind in ("records", "arrays")]
    print("| input | fpn (s) | pycocotools (s) | ratio | CPU ratio |\n|---|---:|---:|---:|---:|")
    for each in rows:
        print("| {input} | {fpn:.2f} | {pycocotools:.2f} | **{ratio:.1f}** | {cpu_ratio:.1f} |".format(**each))
    steps = profile(truth, results_of(found))
    print(f"AP {numbers[0][0]:.4f} on both sides, largest difference of the twelve {difference:.0e}; ours, s: {steps}")
    kept = {"options": vars(options), "objects": len(truth["annotations"]), "rows": rows, "our_steps": steps}
    turns.keep("evaluation", {**kept, "twelve": numbers[0].tolist(), "largest_difference": difference})


def row(kind: str, mine: turns.Side, theirs: turns.Side) -> dict[str, Any]:
    return {
        "input": kind,
        "fpn": mine.seconds,
        "pycocotools": theirs.seconds,
        "ratio": theirs.seconds / mine.seconds,
        "cpu_ratio": theirs.busy_seconds / mine.busy_seconds,
        "fpn_turns": mine.wall,
        "pycocotools_turns": theirs.wall,
    }


if __name__ == "__main__":
    main()
