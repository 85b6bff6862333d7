"""Segment proposals on drawn scenes: windows on a pyramid, on a single map, and the boxes of an RPN.

    python benchmarks/segment_proposals.py [--steps 150] [--scenes 240] [--tested 40] [--rows NAME ...]

All rows have the same backbone (EfficientNet-Lite0 with ImageNet weights), the same width, steps, batches and learning
rate, and learn from the same scenes of 128 x 128 pixels, whose masks are exact; recall is of other scenes drawn alike.
A single map is P2 alone, as fine as the finest level, or C4: windows on it are for objects of 32, or of 128 pixels.
Seconds are processor time of one thread. Results go to results/segment_proposals.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import turns

import fpn
from fpn.data.dataset import Dataset
from fpn.data.synthetic.scenes import SceneDataset
from fpn.detectors.builder import build_detector
from fpn.evaluation.coco import limit_metrics
from fpn.evaluation.evaluate import find_objects
from fpn.structures import OBJECT, Detections

LIMITS = ("10", "100", "1000")  # as keys in JSON are
_NAME = "segment_proposals"
SUPPRESSED = 0.7
_BEST = "FPN, 5x5 and 7x7"
_SIZES = ("small", "medium", "large")
_NETWORK: dict[str, Any] = {"backbone": "tf_efficientnet_lite0", "weights": "offline", "short_side": 128}
_WINDOWS: dict[str, Any] = {**_NETWORK, "channels": 64, "segments_width": 256}


def scenes(count: int, seed: int) -> SceneDataset:
    return SceneDataset(count, seed=seed, height=128, width=128, objects=(2, 6), extent=(10.0, 115.0))


def windows(*sides: int, **settings: Any) -> Callable[[Dataset], fpn.Detector]:
    return lambda _: fpn.segment_proposals(**_WINDOWS, segments_windows=sides, **settings)


def boxes(dataset: Dataset) -> fpn.Detector:
    sizes = {"channels": 64, "head_width": 256, "anchors_sizes": ((8.0,), (16.0,), (32.0,), (64.0,), (128.0,))}
    return fpn.faster_rcnn(**_NETWORK, **sizes, classes=dataset.classes)


ROWS: Mapping[str, Callable[[Dataset], fpn.Detector]] = {
    "FPN, 5x5": windows(5),
    _BEST: windows(5, 7),
    "P2 alone, 5x5": windows(5, neck="p2_only"),
    "C4 alone, 5x5": windows(5, neck="c4"),
    "FPN, an RPN's boxes": boxes,
}


def train(build: Callable[[Dataset], fpn.Detector], dataset: Dataset, steps: int) -> tuple[fpn.Detector, float]:
    """A trained detector and the processor time it took, seconds."""
    torch.manual_seed(0)
    detector = build(dataset)
    config = fpn.TrainConfig(steps=steps, batch_size=4, learning_rate=1e-3, workers=0, device="cpu")
    began = time.process_time()
    fpn.train(detector, dataset, config, progress=False)
    return detector, time.process_time() - began


def segments(detector: fpn.Detector, tested: Dataset) -> dict[str, Any]:
    """Recall of masks and of the boxes around them."""
    found = fpn.evaluate(detector, tested, workers=0, batch_size=4)
    assert found.segments is not None, "every such detector has them"
    figures = None if found.limit is None else found.limit.figures
    assert figures is not None, "its limit is 1000"
    masks = {limit: getattr(found.segments, f"ar{limit}") for limit in LIMITS}
    sizes = {size: getattr(found.segments, f"ar1000_{size}") for size in _SIZES}
    around = dict(zip(LIMITS, (found.ar10, found.ar100, figures.ar), strict=True))
    return {"masks": masks, "masks_by_size": sizes, "boxes": around}


def proposals(detector: fpn.Detector, tested: Dataset) -> dict[str, Any]:
    """Recall of the RPN's boxes, counted as those of masks are."""
    found = find_objects(detector, tested, batch_size=4, workers=0, proposals=True).proposals
    records: list[dict[str, Any]] = []
    for number, each in found.items():
        plain = Detections(each.boxes, each.scores, torch.zeros(len(each), dtype=torch.int64))
        records += plain.to_coco(image_id=tested.image_id(number), classes=OBJECT)
    truth = tested.without_classes().coco()
    return {"boxes": {limit: limit_metrics(truth, records, limit=int(limit)).ar for limit in LIMITS}}


def suppressed(detector: fpn.Detector) -> fpn.Detector:
    """The same weights, but of windows that show nearly the same only the best is given."""
    again = build_detector(detector.recipe.changed(dialect={"segments": {"nms": SUPPRESSED}}))
    again.load_state_dict(detector.state_dict())
    return again


def measure(name: str, sets: tuple[Dataset, Dataset], steps: int) -> dict[str, dict[str, Any]]:
    """What a detector reached, and what the same one reaches with NMS, by name."""
    dataset, tested = sets
    detector, spent = train(ROWS[name], dataset, steps)
    began = time.process_time()
    recall = segments(detector, tested) if detector.class_free else proposals(detector, tested)
    each = (time.process_time() - began) / len(tested)
    rows = {name: {**recall, "train_seconds": round(spent, 1), "seconds_an_image": round(each, 3)}}
    if name == _BEST:
        rows[f"{name}, NMS at {SUPPRESSED}"] = segments(suppressed(detector), tested)
    return rows


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """In Markdown."""
    columns = [(what, limit) for what in ("masks", "boxes") for limit in LIMITS]
    lines = [f"| | {' | '.join(f'{what} AR@{limit}' for what, limit in columns)} |", f"|---|{'---:|' * len(columns)}"]
    for name, row in rows.items():
        cells = [f"{100 * row[what][limit]:.1f}" if what in row else "" for what, limit in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    reads = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reads.add_argument("--steps", type=int, default=150)
    reads.add_argument("--scenes", type=int, default=240)
    reads.add_argument("--tested", type=int, default=40)
    reads.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="the others stay as they are kept")
    asked = reads.parse_args(words)
    torch.set_num_threads(1)
    sets = scenes(asked.scenes, 0), scenes(asked.tested, 1)
    settings = {name: getattr(asked, name) for name in ("steps", "scenes", "tested")}
    for name in asked.rows:
        found = measure(name, sets, asked.steps)
        print(found, flush=True)
        turns.keep(_NAME, {**settings, "rows": {**kept(settings), **found}})
    print(table(kept(settings)))


def kept(settings: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Rows that were measured with the same settings before."""
    path = turns.RESULTS / f"{_NAME}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if any(before.get(name) != value for name, value in settings.items()):
        return {}
    rows: dict[str, dict[str, Any]] = before["rows"]
    return rows


if __name__ == "__main__":
    main()
