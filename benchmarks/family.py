"""Every kind of detector, and every neck, on the same drawn scenes with the same steps.

    python benchmarks/family.py [--steps 240] [--scenes 600] [--tested 100] [--rows NAME ...]

All rows have the same backbone (EfficientNet-Lite0 with ImageNet weights), the same width, steps, batches and learning
rate, and learn from the same scenes of 160 x 160 pixels; they are measured on other scenes drawn alike. Masks are
exact, keypoints are the ends of each shape; heads for them are as narrow as `fpn train` has them on a CPU. Of a plain
vision transformer there are no weights in a package, so that `simple_pyramid` reads the backbone's last map here.
Training's minutes and the milliseconds an image takes are processor time of one thread, so that what else runs on the
machine counts little. Results go to results/family.json, row by row.
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
from fpn.data.synthetic.scenes import SceneDataset
from fpn.detectors.presets import named_preset
from fpn.training.config import anchor_levels

_NAME = "family"
_SIDE = 160
_NETWORK: dict[str, Any] = {
    "backbone": "tf_efficientnet_lite0",
    "weights": "offline",
    "short_side": _SIDE,
    "long_side": _SIDE,
    "channels": 64,
}
# From P2 on, and from P3 on: half an octave below the smallest and the largest object.
_FINE, _COARSE = (12.0, 24.0, 48.0, 96.0, 192.0), (16.0, 32.0, 64.0, 128.0, 256.0)
_BOXES: dict[str, Any] = {
    "head_width": 256,
    "anchors_sizes": anchor_levels("faster_rcnn", _FINE),
    "roi_canonical_size": 84.0,
    "box_sampling_count": 128,
    "rpn_before_nms": (1000, 500),
    "rpn_after_nms": (500, 300),
}
# As the recipe small-data has them: masks as wide as the pyramid, keypoints twice as wide.
_MASKS: dict[str, Any] = {"mask_channels": _NETWORK["channels"]}
_KEYPOINTS: dict[str, Any] = {"keypoint_channels": 2 * _NETWORK["channels"]}
_WARM, _TIMED = 2, 12


def two_stages(kind: str, **settings: Any) -> dict[str, Any]:
    return {"detector": kind, **_BOXES, **settings}


def one_stage(kind: str, **settings: Any) -> dict[str, Any]:
    return {"detector": kind, **settings}


ROWS: Mapping[str, Mapping[str, Any]] = {
    "faster_rcnn": two_stages("faster_rcnn"),
    "faster_rcnn, pafpn": two_stages("faster_rcnn", neck="pafpn"),
    "faster_rcnn, bifpn": two_stages("faster_rcnn", neck="bifpn"),
    "faster_rcnn, simple_pyramid": two_stages("faster_rcnn", neck="simple_pyramid"),
    "cascade_rcnn": two_stages("cascade_rcnn"),
    "cascade_mask_rcnn": two_stages("cascade_mask_rcnn", **_MASKS),
    "mask_rcnn": two_stages("mask_rcnn", **_MASKS),
    "keypoint_rcnn": two_stages("keypoint_rcnn", **_KEYPOINTS),
    "retinanet": one_stage("retinanet", anchors_sizes=anchor_levels("retinanet", _COARSE)),
    "fcos": one_stage("fcos"),
    "atss": one_stage("atss", anchors_sizes=anchor_levels("atss", _COARSE)),
}


def scenes(count: int, seed: int) -> SceneDataset:
    return SceneDataset(
        count, seed=seed, height=_SIDE, width=_SIDE, objects=(1, 6), extent=(12.0, 140.0), keypoints=True
    )


def build(settings: Mapping[str, Any], dataset: SceneDataset) -> fpn.Detector:
    named = {name: value for name, value in settings.items() if name != "detector"}
    if settings["detector"] == "keypoint_rcnn":
        named["skeleton"] = dataset.skeleton
    torch.manual_seed(0)
    return named_preset(settings["detector"])(classes=dataset.classes, **_NETWORK, **named)


def milliseconds(detector: fpn.Detector, dataset: SceneDataset) -> float:
    """Of processor time that one image takes, by itself."""
    images = [dataset.image(index % len(dataset)) for index in range(_WARM + _TIMED)]
    ready = fpn.optimize(detector)
    for image in images[:_WARM]:
        ready.predict([image])
    began = time.process_time()
    for image in images[_WARM:]:
        ready.predict([image])
    return 1000 * (time.process_time() - began) / _TIMED


def measure(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Train one row; what it reached."""
    learned, tested = scenes(asked.scenes, 0), scenes(asked.tested, 1)
    detector = build(ROWS[name], learned)
    config = turns.short_training(asked.steps)
    began = time.process_time()
    fpn.train(detector, learned, config, progress=False)
    spent = time.process_time() - began
    tasks = tuple(task for task in ("masks", "keypoints") if task in detector.tasks)
    found = fpn.evaluate(detector, tested, workers=0, tasks=("boxes", *tasks))
    row = {
        "row": name,
        "ap": found.ap,
        "ap50": found.ap50,
        "ap_small": found.ap_small,
        "ap_medium": found.ap_medium,
        "ap_large": found.ap_large,
        "parameters": sum(each.numel() for each in detector.parameters()),
        "minutes": spent / 60,
        "images_a_second": 4 * asked.steps / spent,
        "milliseconds": milliseconds(detector, tested),
    }
    others = {"masks": found.masks, "keypoints": found.keypoints}
    return row | {f"{task}_ap": figures.ap for task, figures in others.items() if figures is not None}


def main(words: Sequence[str] | None = None) -> None:
    reads = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reads.add_argument("--steps", type=int, default=240)
    reads.add_argument("--scenes", type=int, default=600)
    reads.add_argument("--tested", type=int, default=100)
    reads.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    asked = reads.parse_args(words)
    torch.set_num_threads(1)
    kept = turns.RESULTS / f"{_NAME}.json"
    rows = {row["row"]: row for row in (json.loads(kept.read_text())["rows"] if kept.exists() else ())}
    for name in asked.rows:
        rows[name] = measure(name, asked)
        print(f"{name:27} AP {100 * rows[name]['ap']:.1f} in {rows[name]['minutes']:.1f} minutes", flush=True)
        settings = {"steps": asked.steps, "scenes": asked.scenes, "tested": asked.tested}
        turns.keep(_NAME, {**settings, "rows": [rows[each] for each in ROWS if each in rows]})
    print(table(list(rows.values())))


_COLUMNS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "AP": ("ap", lambda value: f"**{100 * value:.1f}**"),
    "AP50": ("ap50", lambda value: f"{100 * value:.1f}"),
    "small": ("ap_small", lambda value: f"{100 * value:.1f}"),
    "medium": ("ap_medium", lambda value: f"{100 * value:.1f}"),
    "large": ("ap_large", lambda value: f"{100 * value:.1f}"),
    "masks": ("masks_ap", lambda value: f"{100 * value:.1f}"),
    "keypoints": ("keypoints_ap", lambda value: f"{100 * value:.1f}"),
    "M parameters": ("parameters", lambda value: f"{value / 1e6:.2f}"),
    "minutes": ("minutes", lambda value: f"{value:.1f}"),
    "images/s": ("images_a_second", lambda value: f"{value:.1f}"),
    "ms": ("milliseconds", lambda value: f"{value:.0f}"),
}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """In Markdown."""
    lines = [f"| detector | {' | '.join(_COLUMNS)} |", f"|---|{'---:|' * len(_COLUMNS)}"]
    for row in rows:
        cells = (shown(row[key]) if key in row else "" for key, shown in _COLUMNS.values())
        lines.append(f"| {row['row']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
