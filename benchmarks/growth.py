"""How cost grows: with boxes (NMS, matching), with RoIs (pooling) and with images (counting AP).

    python benchmarks/growth.py [--repeats 5]

Each work is timed at doubling sizes, all sizes in turns, medians of processor time; torch uses one thread. The exponent
is the slope of a straight line through log(seconds) over log(size) in the upper half of the sizes, where fixed costs
matter least: 1 is linear, 2 quadratic. Boxes lie in clusters of about ten, as an RPN leaves them, on an
image that does not grow with them. Writes results/growth.json and results/growth.svg.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

import evaluation
import numpy as np
import torch
import turns
from torch import Tensor

import fpn
from fpn.ops.matching import match
from fpn.ops.nms import nms
from fpn.structures import ImageBatch, Proposals
from fpn.studies.benchmark import pooling as pooling_sides

Work = Callable[[], Any]
BOXES = (125, 250, 500, 1000, 2000)
IMAGES = (125, 250, 500, 1000, 2000)
_LEFT, _TOP, _WIDTH, _HEIGHT, _LEGEND = 70, 30, 480, 330, 290
_COLOURS = ("#4c78a8", "#d95f02", "#54a24b", "#b279a2", "#9d755d", "#222222")


def draw_boxes(count: int) -> tuple[Tensor, Tensor]:
    """Boxes in clusters of ten, and their scores."""
    random = torch.Generator().manual_seed(count)
    centres = torch.rand(-(-count // 10), 2, generator=random) * 800
    corners = centres.repeat_interleave(10, 0)[:count] + torch.randn(count, 2, generator=random) * 8
    sides = 20 + torch.rand(count, 2, generator=random) * 80
    return torch.cat([corners, corners + sides], dim=1), torch.rand(count, generator=random)


def nms_of(count: int, groups: int | None) -> Work:
    boxes, scores = draw_boxes(count)
    labels = None if groups is None else torch.arange(count) % groups
    return lambda: nms(boxes, scores, 0.5, groups=labels)


def matching(count: int) -> Work:
    """Many anchors against `count` objects."""
    anchors, _ = draw_boxes(20_000)
    objects, _ = draw_boxes(count)
    ignore = torch.zeros(count, dtype=torch.bool)
    return lambda: match(anchors, objects, ignore, positive_iou=0.7, negative_iou=0.3, keep_best=True)


def pooling(count: int) -> Work:
    maps = [m.contiguous(memory_format=torch.channels_last) for m in pooling_sides.draw_maps(256, torch.float32)]
    rois = pooling_sides.draw_rois(count)
    return lambda: pooling_sides.ours(maps, rois)


def detecting(count: int) -> Work:
    """All that follows the proposals: pooling, both layers, 80 classes, NMS."""
    torch.manual_seed(0)
    detector = fpn.faster_rcnn(backbone="resnet18", weights=None, classes=[f"class {k}" for k in range(80)]).eval()
    torch.nn.init.normal_(detector.box.scores.weight, std=0.5)
    images = ImageBatch(torch.randn(1, 3, 800, 1088), torch.tensor([[800, 1088]]))
    with torch.inference_mode():
        features = detector.features(images.pixels)
    proposals = [Proposals(*draw_boxes(count))]
    return torch.inference_mode()(lambda: detector.box.detect(features, images, proposals))


def counting(images: int) -> Work:
    random = np.random.default_rng(0)
    truth, objects = evaluation.draw_truth(images, 80, random)
    found = {n: evaluation.draw_found(rows, 100, 80, random) for n, rows in enumerate(objects, start=1)}
    results = evaluation.results_of(found)
    return lambda: evaluation.ours(truth, results)


WORKS: dict[str, tuple[tuple[int, ...], Callable[[int], Work]]] = {
    "nms, one class, by boxes": (BOXES, lambda count: nms_of(count, None)),
    "nms, 80 classes, by boxes": (BOXES, lambda count: nms_of(count, 80)),
    "matching 20 000 anchors, by objects": (BOXES, matching),
    "pooling, four levels, by RoIs": (BOXES, pooling),
    "all after the proposals, by RoIs": (BOXES, detecting),
    "AP with 100 detections, by images": (IMAGES, counting),
}


def exponent(sizes: tuple[int, ...], seconds: list[float]) -> float:
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(seconds[half:]), 1)[0])


def measure(name: str, repeats: int) -> dict[str, Any]:
    sizes, prepare = WORKS[name]
    sides = turns.in_turns({str(size): prepare(size) for size in sizes}, repeats=repeats)
    seconds = [sides[str(size)].busy_seconds for size in sizes]
    return {"work": name, "sizes": sizes, "seconds": seconds, "exponent": exponent(sizes, seconds)}


def plot(rows: list[dict[str, Any]]) -> str:
    """An SVG document: seconds over size, both axes logarithmic; a dashed line shows what linear looks like."""
    values = [value for row in rows for value in row["seconds"]]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    first, last = (f(size for row in rows for size in row["sizes"]) for f in (min, max))

    def place(size: float, seconds: float) -> tuple[float, float]:
        x = _LEFT + _WIDTH * math.log(size / first) / math.log(last / first)
        return round(x, 1), round(_TOP + _HEIGHT * (high - math.log10(seconds)) / (high - low), 1)

    width, height = _LEFT + _WIDTH + _LEGEND, _TOP + _HEIGHT + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12" role="img">',
        "<title>Seconds by number of boxes, RoIs and images; logarithmic axes</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *axes(rows[0]["sizes"], range(low, high + 1), place),
    ]
    for row, colour in zip(rows, _COLOURS, strict=True):
        parts += curve(row, colour, place)
    return "\n".join([*parts, "</svg>"]) + "\n"


def axes(sizes: tuple[int, ...], decades: range, place: Callable[[float, float], tuple[float, float]]) -> Iterator[str]:
    bottom = _TOP + _HEIGHT
    for decade in decades:
        y = place(sizes[0], 10.0**decade)[1]
        yield f'<line x1="{_LEFT}" y1="{y}" x2="{_LEFT + _WIDTH}" y2="{y}" stroke="#dddddd"/>'
        yield text(_LEFT - 8, y, f"{10.0**decade:g} s", anchor="end")
    for size in sizes:
        x = place(size, 1)[0]
        yield f'<line x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom}" stroke="#eeeeee"/>'
        yield text(x, bottom + 16, str(size), anchor="middle")
    (x1, y1), (x2, y2) = (place(size, 10.0 ** (decades[0] + 1) * size / sizes[0]) for size in (sizes[0], sizes[-1]))
    yield f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#888888" stroke-dasharray="4 4"/>'
    yield text(x2 + 10, y2, "linear")
    yield text(_LEFT + _WIDTH / 2, bottom + 38, "boxes, RoIs or images", anchor="middle")


def curve(row: dict[str, Any], colour: str, place: Callable[[float, float], tuple[float, float]]) -> Iterator[str]:
    points = [place(size, seconds) for size, seconds in zip(row["sizes"], row["seconds"], strict=True)]
    line = " ".join(f"{x},{y}" for x, y in points)
    yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
    yield from (f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in points)
    x, y = points[-1]
    yield text(x + 10, y, f"{row['work']} ({row['exponent']:.2f})", colour)


def text(x: float, y: float, words: str, colour: str = "#222222", *, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y + 4}" fill="{colour}" text-anchor="{anchor}">{escape(words)}</text>'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| work | " + " | ".join(map(str, BOXES)) + " | exponent |\n|---|" + "---:|" * (len(BOXES) + 1), flush=True)
    rows = []
    for name in WORKS:
        row = measure(name, options.repeats)
        figures = " | ".join(f"{1000 * value:.2f}" for value in row["seconds"])
        print(f"| {name} (ms) | {figures} | **{row['exponent']:.2f}** |", flush=True)
        rows.append(row)
    turns.keep("growth", {"options": vars(options), "rows": rows})
    (turns.RESULTS / "growth.svg").write_text(plot(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
