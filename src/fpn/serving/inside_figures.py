"""What is told of the inside of a model: its levels, what stands in their cells, what was chosen, and why."""

from __future__ import annotations

import base64
import io
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from fpn.ops.boxes import clip
from fpn.preprocessing.frame import Frame
from fpn.shapes import Size
from fpn.structures import Level

# xyxy, pixels of the original image.
PlainBox: TypeAlias = tuple[float, ...]

# Boxes that are told of each list; their number is told, however many there are.
SHOWN = 500
# Longer side of a level's map as an image.
MAP_SIDE = 512


@dataclass(frozen=True)
class CellShape:
    """One anchor of a cell; a point is a shape without sides.

    Attributes:
        size: square root of its area, network pixels.
        ratio: height by width; 1 for a point.
        box: where it stands in the first cell.
    """

    size: float
    ratio: float
    box: PlainBox


@dataclass(frozen=True)
class CellPlaces:
    """What stands in every cell of a level.

    Attributes:
        what: anchors, or the point that boxes are measured from.
        step: from one cell's to the next one's, (x, y), pixels of the original image.
        shapes: those of the first cell, in the order of the channels.
        learns: which sizes of objects the level learns, as text; None: their overlap with anchors decides.
    """

    what: Literal["anchors", "point"]
    step: tuple[float, float]
    shapes: tuple[CellShape, ...]
    learns: str | None = None


@dataclass(frozen=True)
class LevelInside:
    """One level of the pyramid.

    Attributes:
        name, stride, channels: as `Level` has them.
        rows, columns: cells that see the image; those in the padding are left out.
        cell: the first cell, xyxy in pixels of the original image.
        highest: the largest value of the map, which is white in `map_png`; 0 is black.
        map_png: the root mean square of the channels in each cell, as a grey PNG.
        read_by: the heads that read the level.
        places: what stands in its cells; None: nothing does.
    """

    name: str
    stride: int
    channels: int
    rows: int
    columns: int
    cell: PlainBox
    highest: float
    map_png: bytes
    read_by: tuple[str, ...]
    places: CellPlaces | None


@dataclass(frozen=True)
class Ranked:
    """Boxes, best first.

    Attributes:
        count: how many there are.
        by_level: how many are of each level, in the order of `Selection.levels`.
        boxes, scores, levels, labels: of the first `SHOWN`; levels as places in `Selection.levels`, labels None where
            they have no class yet.
        kept: which of these the suppression leaves.
    """

    count: int
    by_level: tuple[int, ...]
    boxes: tuple[PlainBox, ...]
    scores: tuple[float, ...]
    levels: tuple[int, ...]
    labels: tuple[int, ...] | None
    kept: tuple[bool, ...]


@dataclass(frozen=True)
class Selection:
    """What non-maximum suppression chose from, and what it left.

    Attributes:
        what: proposals, or candidates where every place gives detections at once.
        rule: how they were suppressed, as text.
        levels: names of the levels that they come from.
        places: anchors or cells of each level.
        before: what passed top-k.
        after: what is left.
    """

    what: Literal["proposals", "candidates"]
    rule: str
    levels: tuple[str, ...]
    places: tuple[int, ...]
    before: Ranked
    after: Ranked


@dataclass(frozen=True)
class RoIReading:
    """One RoI read from one level.

    Attributes:
        head: which head reads it.
        level: the level's name.
        side: sqrt(width * height), network pixels.
        value: of equation 1 before rounding; None: the side is 0, or there is one level only.
        number: of the level by equation 1, as if there were one for every size; None as `value`.
        clamped: whether there is no level of that number.
        sentence: all this in words.
    """

    head: str
    level: str
    side: float
    value: float | None
    number: int | None
    clamped: bool
    sentence: str


@dataclass(frozen=True)
class Explained:
    """One detection, and where it comes from.

    Attributes:
        box, score, label: as predicted.
        level: the level that made it.
        origin: the proposal, anchor or point that it was made of.
        readings: equation 1 for each head that read it; none in a detector without RoIs.
        why: the same in sentences.
    """

    box: PlainBox
    score: float
    label: int
    level: str | None = None
    origin: PlainBox | None = None
    readings: tuple[RoIReading, ...] = ()
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inside:
    """What a model thought of one image.

    Attributes:
        kind: of detector.
        image: size of the original.
        network: size inside the network, before padding.
        levels: finest first.
        count: detections.
        detections: the first `SHOWN` of them, best first.
        selection: None where nothing is told of it.
        note: what is not told, and why; None: everything is.
    """

    kind: str
    image: Size
    network: Size
    levels: tuple[LevelInside, ...]
    count: int
    detections: tuple[Explained, ...]
    selection: Selection | None
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON; maps as data URLs."""
        found: dict[str, Any] = asdict(self)
        for name in ("image", "network"):
            size: Size = found[name]
            found[name] = {"width": size.width, "height": size.height}
        for level in found["levels"]:
            level["map"] = "data:image/png;base64," + base64.b64encode(level.pop("map_png")).decode()
        return found


def corners(boxes: Float[Tensor, "n 4"], frame: Frame) -> tuple[PlainBox, ...]:
    """Boxes in network pixels, in pixels of the original image."""
    return tuple(tuple(round(value, 2) for value in box) for box in frame.to_original(boxes.float().cpu()).tolist())


def shown_boxes(boxes: Float[Tensor, "n 4"], frame: Frame, *, whole_pixels: bool) -> tuple[PlainBox, ...]:
    """As `corners`, as `predict` gives them: cut at the rim of the original image, and rounded if the dialect does."""
    inside = clip(frame.to_original(boxes.float().cpu()), frame.original.height, frame.original.width)
    digits = 0 if whole_pixels else 2
    return tuple(tuple(round(value, digits) for value in box) for box in inside.tolist())


def ranked(
    frame: Frame,
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    levels: Int[Tensor, " n"],
    *,
    count: int,
    labels: Int[Tensor, " n"] | None = None,
    kept: Bool[Tensor, " n"] | None = None,
) -> Ranked:
    """What is told of some boxes.

    Args:
        frame: how they get back to the original image.
        boxes: network pixels.
        scores: in 0..1.
        levels: places among `count` levels.
        labels: None: no classes yet.
        kept: None: all are.
    """
    order = scores.argsort(descending=True, stable=True)[:SHOWN]
    return Ranked(
        count=len(scores),
        by_level=tuple(torch.bincount(levels, minlength=count).tolist()),
        boxes=corners(boxes[order], frame),
        scores=tuple(rounded_scores(scores[order])),
        levels=tuple(levels[order].tolist()),
        labels=None if labels is None else tuple(labels[order].tolist()),
        kept=(True,) * len(order) if kept is None else tuple(kept[order].tolist()),
    )


def rounded_scores(scores: Float[Tensor, " n"]) -> list[float]:
    """Four decimals are told."""
    return [round(score, 4) for score in scores.float().tolist()]


def describe_level(
    level: Level,
    found: Float[Tensor, "c h w"],
    size: Size,
    frame: Frame,
    *,
    read_by: tuple[str, ...],
    places: CellPlaces | None,
) -> LevelInside:
    """One level of one image.

    Args:
        level: which.
        found: its map.
        size: of the image in the network, before padding.
        frame: how network pixels get back to the original image.
        read_by, places: see `LevelInside`.
    """
    rows, columns = (min(-(-side // level.stride), cells) for side, cells in zip(size, found.shape[1:], strict=True))
    highest, image = draw_map(found[:, :rows, :columns])
    across, down = step_of(level.stride, level.stride, frame)
    left, top = (-offset / scale for offset, scale in zip(frame.offset[::-1], frame.pixel_scale[::-1], strict=True))
    cell = tuple(round(value, 4) for value in (left, top, left + across, top + down))
    return LevelInside(level.name, level.stride, level.channels, rows, columns, cell, highest, image, read_by, places)


def step_of(across: float | int, down: float | int, frame: Frame) -> tuple[float, float]:
    """Network pixels (x, y) as pixels of the original image."""
    return across / frame.pixel_scale[1], down / frame.pixel_scale[0]


def draw_map(found: Float[Tensor, "c h w"]) -> tuple[float, bytes]:
    """The largest root mean square of the channels over all cells, and a grey PNG whose black is 0 and white is that.

    The PNG has a pixel a cell, or fewer where there are more than `MAP_SIDE` in a row.
    """
    strength = torch.linalg.vector_norm(found.float(), dim=0) / found.shape[0] ** 0.5
    highest = float(strength.max())
    if not highest < float("inf"):  # nor is NaN
        strength, highest = torch.zeros_like(strength), float("nan")
    grey = (strength * (255 / highest if highest > 0 else 0)).round().byte().cpu().numpy()
    image = Image.fromarray(grey)
    factor = MAP_SIDE / max(image.size)
    if factor < 1:
        width, height = (max(1, round(side * factor)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BOX)
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return (round(highest, 6) if highest == highest else 0.0), stream.getvalue()


def anchor_places(
    grid: Float[Tensor, "n 4"], per_cell: int, columns: int, rows: int, frame: Frame, *, plus: float = 0.0
) -> CellPlaces:
    """The anchors of a level's first cell, and how far it is to the next one's.

    Args:
        grid: of all its cells, in the order y, x, anchor, network pixels.
        per_cell: anchors a cell.
        columns, rows: of the level's map, padding included.
        frame: how network pixels get back to the original image.
        plus: 1 where x2 and y2 name the last pixel.
    """
    first = grid[:per_cell]
    sides = (first[:, 2:] - first[:, :2] + plus).tolist()
    right = grid[per_cell, 0] - grid[0, 0] if columns > 1 else grid.new_zeros(())
    down = grid[per_cell * columns, 1] - grid[0, 1] if rows > 1 else grid.new_zeros(())
    shapes = tuple(
        CellShape(round((width * height) ** 0.5, 2), round(height / width, 3), box)
        for (width, height), box in zip(sides, corners(first, frame), strict=True)
    )
    return CellPlaces("anchors", step_of(float(right), float(down), frame), shapes)
