"""Draws figures of pages: those under docs/learn from what `fpn explain` computes.

python -m docs_tools.figures
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

import torch

from docs_tools.blocks import DOCS
from fpn.detectors import TwoStageDialect
from fpn.detectors.presets import named_dialect
from fpn.ops.roi_align.samplers import Span, align
from fpn.shapes import Size
from fpn.studies.explain.equation_one import route
from fpn.studies.explain.pyramid import LevelFacts, explain_dialect
from fpn.studies.markup import Markup, tag
from fpn.studies.standalone_svg import FAINT, INK, PLAIN, STRONG, svg_document, svg_line, svg_text

SIZE = Size(480, 640)
_ROW, _SLAB, _LEFT, _RIGHT = 52.0, 150.0, 150.0, 470.0


def _words(x: float, y: float, text: str, colour: str, *, anchor: str = "start", bold: bool = False) -> Markup:
    return svg_text(float(x), float(y), text, colour, anchor=anchor, bold=bold)


def _line(start: tuple[float, float], end: tuple[float, float], colour: str, *, dashed: bool = False) -> Markup:
    here, there = ((float(x), float(y)) for x, y in (start, end))
    return svg_line(here, there, colour, dashed=dashed)


def pyramid() -> str:
    """The bottom-up maps and the levels, coarsest on top, with stride, size and what a cell sees."""
    told = explain_dialect(named_dialect("paper", "faster_rcnn"), SIZE)
    levels = {facts.level.name: facts for facts in (*told.bottom_up, *told.levels)}
    parts: list[Markup] = [
        _words(_LEFT, 16, "bottom-up (ResNet-50)", INK, anchor="middle", bold=True),
        _words(_RIGHT, 16, "top-down (the pyramid)", INK, anchor="middle", bold=True),
    ]
    for place, number in enumerate((6, 5, 4, 3, 2)):
        y = 46 + place * _ROW
        finer, level = levels.get(f"c{number}"), levels[f"p{number}"]
        if finer is not None:
            parts += _slab(_LEFT, y, finer, PLAIN)
            parts += _arrow(_LEFT + _width(finer) / 2 + 4, y, _RIGHT - _width(level) / 2 - 4, "1x1")
        parts += _slab(_RIGHT, y, level, STRONG)
        parts.append(_words(_RIGHT + 90, y, _told(level), INK))
        if number in (5, 4, 3):
            parts.append(_words(_RIGHT, y + _ROW / 2, "x 2, +", INK, anchor="middle"))
        if number in (4, 3, 2):
            parts.append(_words(_LEFT, y - _ROW / 2, "stride 2", INK, anchor="middle"))
    return svg_document(f"A feature pyramid on an image of {SIZE.width} x {SIZE.height}", 860.0, 290.0, parts)


def _width(facts: LevelFacts) -> float:
    """The finest map is widest; halves, but so that a name fits."""
    return max(_SLAB * 4 / facts.level.stride, 26.0)


def _told(facts: LevelFacts) -> str:
    anchors = "".join(f", anchors of {size:g}" for size in facts.anchor_sizes)
    cells = f"stride {facts.level.stride}: {facts.size.width} x {facts.size.height} cells"
    return f"{cells}{anchors}, sees {facts.receptive_field}"


def _slab(x: float, y: float, facts: LevelFacts, colour: str) -> list[Markup]:
    half, tilt = _width(facts) / 2, 8.0
    corners = [
        (x - half + tilt, y - 12),
        (x + half + tilt, y - 12),
        (x + half - tilt, y + 12),
        (x - half - tilt, y + 12),
    ]
    points = " ".join(f"{a:g},{b:g}" for a, b in corners)
    name = facts.level.name.upper()
    return [
        tag("polygon", points=points, fill=colour, fill_opacity="0.18", stroke=colour),
        _words(x, y, name, INK, anchor="middle", bold=True),
    ]


def _arrow(start: float, y: float, end: float, text: str) -> list[Markup]:
    head = tag("path", d=f"M{end - 7:g} {y - 4:g} L{end:g} {y:g} L{end - 7:g} {y + 4:g}", fill="none", stroke=INK)
    words = _words((start + end) / 2, y - 9, text, INK, anchor="middle")
    return [_line((start, y), (end, y), INK), head, words]


def equation_one() -> str:
    """Which level a box is read from, by its side, in three toolkits."""
    parts: list[Markup] = []
    for place, name in enumerate(("paper", "matterport", "fpn_pytorch")):
        dialect = named_dialect(name, "faster_rcnn")
        assert isinstance(dialect, TwoStageDialect)
        told = route(dialect)
        y = 40 + place * 58
        edges = [0.0, *told.edges.values(), 640.0]
        parts.append(_words(10, y - 22, f"{name}: {told.rule}", INK, bold=True))
        names = ["p2", *told.edges]
        for level, (start, end) in enumerate(pairwise(edges)):
            parts += _part(10 + start, 10 + end, y, names[level].upper(), level)
            parts.append(_words(10 + start, y + 22, f"{start:.0f}", INK))
    return svg_document("Equation 1: the side of a box in pixels, and the level it is read from", 660.0, 190.0, parts)


def _part(start: float, end: float, y: float, name: str, level: int) -> list[Markup]:
    colour = (PLAIN, STRONG)[level % 2]
    box = tag("rect", x=start, y=y - 12, width=end - start, height=24, fill=colour, fill_opacity="0.18", stroke=colour)
    return [box, _words((start + end) / 2, y, name, INK, anchor="middle")]


def roi_align() -> str:
    """A box on the cells of a map, its 2 x 2 bins, and the points at which these are read."""
    cell, shift, low, high = 44.0, 20.0, (1.3, 0.9), (6.1, 4.7)
    parts: list[Markup] = []
    for line in range(8):
        parts.append(_line((shift + line * cell, shift), (shift + line * cell, shift + 6 * cell), FAINT))
    for line in range(7):
        parts.append(_line((shift, shift + line * cell), (shift + 7 * cell, shift + line * cell), FAINT))
    x, y, width, height = (
        shift + low[0] * cell,
        shift + low[1] * cell,
        (high[0] - low[0]) * cell,
        (high[1] - low[1]) * cell,
    )
    parts.append(tag("rect", x=x, y=y, width=width, height=height, fill="none", stroke=STRONG, stroke_width=2))
    parts.append(_line((x + width / 2, y), (x + width / 2, y + height), STRONG, dashed=True))
    parts.append(_line((x, y + height / 2), (x + width, y + height / 2), STRONG, dashed=True))
    for across in _points(low[0], high[0], 7):
        for down in _points(low[1], high[1], 6):
            parts.append(tag("circle", cx=shift + across * cell, cy=shift + down * cell, r=4, fill=PLAIN))
    return svg_document(
        "RoIAlign: a box of 2 x 2 bins with 2 x 2 points each, between the cells of a map", 350.0, 305.0, parts
    )


def _points(start: float, end: float, cells: int) -> Iterator[float]:
    """Where `align` reads an axis, in cells; a cell's own value stands in its middle."""
    span = Span(torch.tensor([start]), torch.tensor([end]), torch.tensor([cells]))
    taps = align(span, 2, ratio=2, aligned=True)
    cell, weight = taps.cell[0].float(), taps.weight[0]
    points = weight.shape[1] // 2
    for one in range(weight.shape[0]):
        for other in range(points):
            both = weight[one, [other, other + points]]
            yield float((both * cell[one, [other, other + points]]).sum() / both.sum()) + 0.5


def server() -> str:
    """Who asks whom, and what a detection in the answer is."""
    parts: list[Markup] = []
    whose = (
        ("your program", "sends a request"),
        ("the server", "fpn serve: answers it"),
        ("the model", "a .safetensors file"),
    )
    for place, (name, what) in enumerate(whose):
        x = 10 + place * 250
        parts.append(tag("rect", x=x, y=40, width=150, height=64, fill=PLAIN, fill_opacity="0.18", stroke=PLAIN))
        parts.append(_words(x + 75, 62, name, INK, anchor="middle", bold=True))
        parts.append(_words(x + 75, 84, what, INK, anchor="middle"))
    asked = ("image", "pixels"), ("JSON", "detections")
    for place in (0, 1):
        start = 165.0 + place * 250
        parts += [*_arrow(start, 58, start + 90, asked[0][place]), *_arrow_back(start, 92, start + 90, asked[1][place])]
    parts.append(_words(10, 150, "One detection of the answer:", INK, bold=True))
    parts.append(_words(10, 176, '"label": "cell"', STRONG))
    parts.append(_words(130, 176, "its class", INK))
    parts.append(_words(10, 200, '"score": 0.98', STRONG))
    parts.append(_words(130, 200, "how sure the model is, 0 to 1", INK))
    parts.append(_words(10, 224, '"box": [x1, y1, x2, y2]', STRONG))
    parts.append(_words(170, 224, "its corners, in pixels", INK))
    parts.append(tag("rect", x=420, y=130, width=240, height=120, fill="none", stroke=FAINT, stroke_width=2))
    parts.append(_words(652, 142, "the image", INK, anchor="end"))
    parts.append(tag("rect", x=480, y=160, width=90, height=60, fill="none", stroke=STRONG, stroke_width=2))
    parts += [_words(474, 152, "x1, y1", STRONG, anchor="middle"), _words(576, 229, "x2, y2", STRONG, anchor="middle")]
    parts.append(_words(525, 190, "cell 0.98", STRONG, anchor="middle"))
    return svg_document("A request goes to the server, which asks the model; detections come back", 670.0, 260.0, parts)


def _arrow_back(start: float, y: float, end: float, text: str) -> list[Markup]:
    head = tag("path", d=f"M{start + 7:g} {y - 4:g} L{start:g} {y:g} L{start + 7:g} {y + 4:g}", fill="none", stroke=INK)
    return [_line((start, y), (end, y), INK), head, _words((start + end) / 2, y + 12, text, INK, anchor="middle")]


FIGURES: Mapping[str, Callable[[], str]] = {
    "pyramid.svg": pyramid,
    "equation-one.svg": equation_one,
    "roi-align.svg": roi_align,
    "server.svg": server,
}


if __name__ == "__main__":
    for each, draw in FIGURES.items():
        (DOCS / "images" / each).write_text(draw(), encoding="utf-8")
