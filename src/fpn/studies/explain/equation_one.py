"""Where boxes go by equation 1, floor(k0 + log2(sqrt(w*h) / 224)), in each toolkit's version of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fpn.detectors.builder import build_box_head
from fpn.detectors.dialect import Dialect, TwoStageDialect
from fpn.detectors.toolkits import DIALECTS
from fpn.heads.roi_pooler import RoIPooler
from fpn.shapes import Size
from fpn.structures import Level
from fpn.studies.explain.geometry import Box, View, is_pyramid_only, view
from fpn.studies.tables import TextTable

# Sides of boxes that no image exceeds.
_LARGEST = 2.0**15
# So many fit into a terminal of 80 columns.
_BOXES_A_TABLE = 6


@dataclass(frozen=True)
class Route:
    """Equation 1 as one dialect has it.

    Attributes:
        dialect: its name.
        rule: the equation as text, s standing for sqrt(w*h).
        edges: level name -> the smallest s in network pixels that goes there; the finest level has none.
        scale: network pixels a pixel of the image.
        levels: where the boxes asked for go.
    """

    dialect: str
    rule: str
    edges: dict[str, float]
    scale: float
    levels: tuple[str, ...]


def route(dialect: TwoStageDialect, boxes: Sequence[Box] = (), *, seen: View | None = None) -> Route:
    """What a dialect's version of equation 1 does.

    Args:
        dialect: whose version.
        boxes: in pixels of the image.
        seen: how the image enters the network; None: its pixels are the network's.
    """
    pooler = _pooler(dialect)
    scale = (1.0, 1.0) if seen is None else seen.scale
    chosen = pooler.assign(_corners(dialect, boxes, scale), None if seen is None else seen.padded)
    return Route(
        dialect=dialect.name,
        rule=rule_text(dialect),
        edges=_edges(pooler, dialect),
        scale=scale[1],
        levels=tuple(pooler.levels[index].name for index in chosen.tolist()),
    )


def equation_table(dialects: Iterable[Dialect] = tuple(DIALECTS.values())) -> TextTable:
    """Equation 1 as several dialects have it, and the sizes where levels change; a row a dialect that has RoIs."""
    speaking = with_rois(dialects)
    routes = [route(dialect) for dialect in speaking]
    names = list(dict.fromkeys(name for each in routes for name in each.edges))
    notes = [
        "s: sqrt(width * height) of a box in network pixels. p3 and so on: the smallest s that goes to that level."
    ]
    counting = [dialect.name for dialect in speaking if dialect.coder.legacy_plus_one]
    if counting:
        notes.append(f"{', '.join(counting)}: a side is x2 - x1 + 1.")
    return TextTable(
        title="Equation 1: the level that a box is read from",
        columns=("dialect", "level of a box", *(f">{name}" for name in names)),
        rows=tuple((each.dialect, each.rule, *(_pixels(each.edges.get(name)) for name in names)) for each in routes),
        notes=tuple(notes),
    )


def boxes_tables(dialects: Iterable[Dialect], boxes: Sequence[Box], size: Size, *, as_is: bool) -> list[TextTable]:
    """Where boxes go under several dialects, a row each.

    Args:
        dialects: those without RoIs are left out.
        boxes: in pixels of the image.
        size: of the image.
        as_is: the network sees the image as it is.
    """
    speaking = with_rois(dialects)
    parts = [boxes[start : start + _BOXES_A_TABLE] for start in range(0, len(boxes), _BOXES_A_TABLE)]
    return [_boxes_table([(each, view(each, size, as_is=as_is)) for each in speaking], part) for part in parts]


def _boxes_table(speaking: Sequence[tuple[TwoStageDialect, View]], boxes: Sequence[Box]) -> TextTable:
    routes = [route(dialect, boxes, seen=seen) for dialect, seen in speaking]
    return TextTable(
        title="Where boxes go (width x height in pixels of the image)",
        columns=("dialect", ">scale", *(f">{box}" for box in boxes)),
        rows=tuple((each.dialect, f"{each.scale:.2f}", *each.levels) for each in routes),
        notes=("scale: network pixels a pixel of the image.", *_too_small(speaking, boxes, routes)),
    )


def _too_small(
    speaking: Sequence[tuple[TwoStageDialect, View]], boxes: Sequence[Box], routes: Sequence[Route]
) -> list[str]:
    """What is to be said of boxes that are less than a cell of any level, under whichever dialect."""
    finest, scale = min(each.neck.finest_level for each, _ in speaking), max(each.scale for each in routes)
    cell = 2**finest
    return [
        f"{box}: at most {box.width * scale:.1f} x {box.height * scale:.1f} network pixels, less than a cell of "
        f"p{finest} ({cell} x {cell}). Next to nothing of it can be seen."
        for box in boxes
        if max(box.width, box.height) * scale < cell
    ]


def with_rois(dialects: Iterable[Dialect]) -> list[TwoStageDialect]:
    """Those of detectors with a second stage."""
    return [each for each in dialects if isinstance(each, TwoStageDialect) and not is_pyramid_only(each)]


def rule_text(dialect: TwoStageDialect) -> str:
    """The equation in a line, s standing for sqrt(w*h)."""
    rounding, logarithm = dialect.roi.level_rule.split("_")
    return f"{rounding}({dialect.roi.canonical_level} + {logarithm}(s / {dialect.roi.canonical_size:g}))"


def _pooler(dialect: TwoStageDialect) -> RoIPooler:
    """The pooler that the dialect's own box head has, on levels of the usual strides."""
    finest = dialect.neck.finest_level
    numbers = range(finest, finest + len(dialect.anchors.sizes))
    levels = tuple(Level(f"p{number}", dialect.neck.output_channels, 2**number, number) for number in numbers)
    with torch.device("meta"):
        return build_box_head(levels, 1, dialect).pooler


def _corners(dialect: TwoStageDialect, boxes: Sequence[Box], scale: tuple[float, float]) -> Tensor:
    """Boxes (N, 4) at the origin, in the dialect's coordinates: in some of them x2 and y2 name the last pixel."""
    ends = [(box.width * scale[1], box.height * scale[0]) for box in boxes]
    less = 1.0 if dialect.coder.legacy_plus_one or dialect.coder.inclusive_corners else 0.0
    return torch.tensor([(0.0, 0.0, x - less, y - less) for x, y in ends]).reshape(-1, 4)


def _edges(pooler: RoIPooler, dialect: TwoStageDialect) -> dict[str, float]:
    """By halving, since larger boxes never go to finer levels, whatever the rule is."""
    wanted = torch.arange(1, len(pooler.levels))
    low, high = torch.zeros(len(wanted)), torch.full((len(wanted),), _LARGEST)
    for _ in range(40):
        middle = (low + high) / 2
        ends = (middle - (1.0 if dialect.coder.legacy_plus_one else 0.0)).clamp(min=0)
        squares = torch.stack([torch.zeros_like(ends), torch.zeros_like(ends), ends, ends], dim=1)
        reached = pooler.assign(squares) >= wanted
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    return {pooler.levels[index].name: float(side) for index, side in zip(wanted.tolist(), high, strict=True)}


def _pixels(side: float | None) -> str:
    return "" if side is None else f"{side:.0f}"
