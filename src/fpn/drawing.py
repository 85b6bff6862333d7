"""Detections and truth onto an image, and many such images onto one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fpn.errors import ConfigError
from fpn.fonts import fit_font, is_drawable, warn_of_missing_letters
from fpn.structures import OBJECT, Classes, Detections, Masks, Skeleton, Targets

Colour: TypeAlias = tuple[int, int, int]
Rectangle: TypeAlias = tuple[float, float, float, float]

# Okabe and Ito's colours, told apart by colour-blind people too (black left out: it is the casing's).
# Source: M. Okabe, K. Ito, "Color Universal Design", 2008.
_PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (0, 114, 178),
)
_IGNORED: Colour = (170, 170, 170)
_INK: Colour = (32, 32, 32)
_PAPER: Colour = (250, 250, 248)
# A label that would lie on others by more than this part of its area is left out: the box's colour says enough.
_MAX_COVERED = 0.25
# Found keypoints that score less are not drawn: a head says some place for each, also where there is none.
_MIN_KEYPOINT = 0.05


def colour_of(label: int) -> Colour:
    """A class's colour, the same in every image. From the eighth class on darker and lighter shades come."""
    base, turn = _PALETTE[label % len(_PALETTE)], label // len(_PALETTE) % 3
    towards, share = ((0, 0), (0, 0.4), (255, 0.5))[turn]
    red, green, blue = (round(value + (towards - value) * share) for value in base)
    return red, green, blue


def draw(
    image: Image.Image,
    objects: Detections | Targets,
    classes: Classes,
    *,
    min_score: float = 0.0,
    scale: float = 1.0,
    scores: bool = True,
    masks: bool = True,
    skeleton: Skeleton | None = None,
    ids: Sequence[int | None] | None = None,
) -> Image.Image:
    """Draw boxes, labels, masks and keypoints onto a copy of an image.

    Labels are in any script that a font of this machine has; a class whose name none can show is called by its
    id, such as #3, and a `FontWarning` says so once. Objects without classes have a colour each, and no name.

    Args:
        image: RGB, in whose pixels the boxes are.
        objects: what was found, or the truth. Truth that is to be ignored is grey and dashed.
        classes: names for the labels.
        min_score: leave out detections below.
        scale: enlarge the image before drawing, so that text on small images is readable.
        scores: write the score behind the name.
        masks: tint the masks, where there are any.
        skeleton: what the keypoints are: its edges are drawn between them. None: points alone.
        ids: of tracked objects, one for each of `objects`: each has its colour, and stands behind the name as #3.
    """
    if scale <= 0:
        raise ConfigError(f"scale={scale}: must be above 0")
    canvas = image.convert("RGB")
    if scale != 1:
        larger = (max(1, round(canvas.width * scale)), max(1, round(canvas.height * scale)))
        canvas = canvas.resize(larger, Image.Resampling.LANCZOS)
    marks = _marks(objects, classes, min_score, scale, ids, with_scores=scores)
    if masks and objects.masks is not None:
        canvas = _tint_masks(canvas, objects.masks, marks)
    warn_of_missing_letters(classes.names)
    pen = ImageDraw.Draw(canvas, "RGBA")
    line = max(1, round(min(canvas.size) / 200))
    for mark in reversed(marks):
        _draw_box(pen, mark, line, canvas.size)
    if objects.keypoints is not None:
        points = objects.keypoints.cpu().numpy() * np.array([scale, scale, 1.0])
        for mark in reversed(marks):
            edges = () if skeleton is None else skeleton.edges
            _draw_keypoints(pen, points[mark.number], edges, mark.colour, line, truth=isinstance(objects, Targets))
    _draw_labels(pen, marks, line, canvas.size, classes.names)
    return canvas


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]],
    titles: Sequence[str],
    *,
    across: int = 1,
    cell: int = 420,
) -> Image.Image:
    """Lay images out for comparison: one row a scene, one column a title, such as truth and prediction.

    Args:
        rows: images of any sizes, as many a row as there are titles.
        titles: what each column shows.
        across: rows that are put side by side, to keep the sheet from getting long.
        cell: side of the square that an image is fitted into, in pixels.
    """
    if not rows or any(len(row) != len(titles) for row in rows):
        raise ConfigError(f"a contact sheet needs at least one row, and an image for each of {list(titles)} in it")
    fitted = [[_fit(image, cell) for image in row] for row in rows]
    warn_of_missing_letters(titles)
    gap, letters = max(4, cell // 40), max(12, cell // 22)
    headings = [fit_font(title, letters, titles) for title in titles]
    columns, header = len(titles), letters * 2
    group_width = columns * cell + (columns - 1) * gap
    lines = [fitted[start : start + across] for start in range(0, len(fitted), across)]
    heights = [max(image.height for row in line for image in row) for line in lines]
    across = min(across, len(rows))
    width = across * group_width + (across + 1) * 3 * gap
    sheet = Image.new("RGB", (width, header + sum(heights) + gap * len(lines) + 2 * gap), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for group in range(across):
        for column, (font, title) in enumerate(headings):
            x = 3 * gap + group * (group_width + 3 * gap) + column * (cell + gap)
            pen.text((x + cell / 2, header / 2 + gap / 2), title, font=font, fill=_INK, anchor="mm")
            y = header + gap
            for line, height in zip(lines, heights, strict=True):
                if group < len(line):
                    shown = line[group][column]
                    sheet.paste(shown, (round(x + (cell - shown.width) / 2), y + (height - shown.height) // 2))
                y += height + gap
    return sheet


@dataclass(frozen=True, slots=True)
class _Mark:
    """One object to draw, in pixels of the canvas; `number` is its place among the objects."""

    number: int
    box: Rectangle
    colour: Colour
    text: str
    ignored: bool


def cut_score(score: float) -> str:
    """Two decimals, cut and not rounded: 0.996 is not certain."""
    return f"{int(score * 100) / 100:.2f}"


def _marks(
    objects: Detections | Targets,
    classes: Classes,
    min_score: float,
    scale: float,
    ids: Sequence[int | None] | None = None,
    *,
    with_scores: bool,
) -> list[_Mark]:
    """What to draw, most important first."""
    boxes, labels = (objects.boxes.cpu() * scale).tolist(), objects.labels.tolist()
    found = isinstance(objects, Detections)
    scores = objects.scores.tolist() if isinstance(objects, Detections) else [1.0] * len(labels)
    ignored = [False] * len(labels) if isinstance(objects, Detections) else objects.ignore.tolist()
    marks: list[_Mark] = []
    alike = classes == OBJECT  # so that a colour tells one from the next, and the name says nothing
    for number in sorted(range(len(labels)), key=lambda n: -scores[n]):
        if scores[number] < min_score:
            break
        text = _called(classes, labels[number])
        tracked = None if ids is None else ids[number]
        text = text if tracked is None else f"{text} #{tracked}"
        if found and with_scores:
            score = cut_score(scores[number])
            text = score if alike else f"{text} {score}"
        kind = tracked if tracked is not None else len(marks) if alike else labels[number]
        colour = _IGNORED if ignored[number] else colour_of(kind)
        marks.append(_Mark(number, tuple(boxes[number]), colour, text, ignored[number]))
    return marks


def _called(classes: Classes, label: int) -> str:
    """A class's name, or its id where no font could show the name."""
    name = classes.names[label]
    return name if is_drawable(name) else f"#{classes.ids[label]}"


# --- boxes and masks ---


def _draw_box(pen: ImageDraw.ImageDraw, mark: _Mark, line: int, size: tuple[int, int]) -> None:
    x1, y1, x2, y2 = _around(mark.box, line, size)
    if mark.ignored:
        _dash(pen, (x1, y1, x2, y2), line, mark.colour)
        return
    # A dark casing keeps the line visible on a ground of its own colour.
    pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=(0, 0, 0, 110), width=1)
    pen.rectangle((x1, y1, x2, y2), outline=mark.colour, width=line)


def _around(box: Rectangle, line: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels of a line around the box: outside it, so that small objects are not painted over."""
    width, height = size
    x1, y1 = max(0, round(box[0]) - line), max(0, round(box[1]) - line)
    # Pillow's rectangles include their last pixel.
    x2, y2 = min(width, round(box[2]) + line) - 1, min(height, round(box[3]) + line) - 1
    return x1, y1, max(x1, x2), max(y1, y2)


def _dash(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], line: int, colour: Colour) -> None:
    x1, y1, x2, y2 = box
    dash = 4 * line
    for x in range(x1, x2 + 1, 2 * dash):
        for y in (y1, y2 - line + 1):
            pen.rectangle((x, y, min(x + dash - 1, x2), y + line - 1), fill=colour)
    for y in range(y1, y2 + 1, 2 * dash):
        for x in (x1, x2 - line + 1):
            pen.rectangle((x, y, x + line - 1, min(y + dash - 1, y2)), fill=colour)


def _tint_masks(canvas: Image.Image, masks: Masks, marks: Sequence[_Mark]) -> Image.Image:
    """Lay a veil of its colour on each object, with a firm edge."""
    for mark in reversed(marks):
        shape = Image.fromarray(masks[mark.number].dense()[0].numpy().astype(np.uint8) * 255)
        if shape.size != canvas.size:
            shape = shape.resize(canvas.size, Image.Resampling.BILINEAR).point(lambda value: 255 * (value >= 128))
        inner = shape.filter(ImageFilter.MinFilter(3))
        veil = Image.composite(Image.new("L", canvas.size, 75), Image.eval(shape, lambda value: value * 0.9), inner)
        canvas.paste(mark.colour, mask=veil)
    return canvas


def _draw_keypoints(
    pen: ImageDraw.ImageDraw,
    points: np.ndarray,
    edges: Sequence[tuple[int, int]],
    colour: Colour,
    line: int,
    *,
    truth: bool,
) -> None:
    """Lines of a skeleton, and its points on them: full ones, and hollow ones where the truth says that it is hidden.

    Args:
        points: (J, 3) x, y, and visibility (`truth`) or score.
        edges: which are joined.
    """
    shown = points[:, 2] > (0 if truth else _MIN_KEYPOINT)
    radius = 1.4 * line + 1
    for casing, ink, width in ((2, (0, 0, 0, 150), line + 2), (0, colour, line)):
        for one, other in edges:
            if shown[one] and shown[other]:
                pen.line((*points[one, :2], *points[other, :2]), fill=ink, width=width)
        for (x, y, seen), drawn in zip(points.tolist(), shown.tolist(), strict=True):
            if drawn:
                reach = radius + casing / 2
                inside = (*ink[:3], 0) if truth and seen == 1 else _PAPER
                fill = ink if casing else inside
                pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=fill, outline=ink, width=line)


# --- labels ---


def _draw_labels(
    pen: ImageDraw.ImageDraw, marks: Sequence[_Mark], line: int, size: tuple[int, int], names: Sequence[str]
) -> None:
    letters = _font_size(size, len(marks))
    margin = letters * 0.25
    boxes = np.array([mark.box for mark in marks]).reshape(-1, 4)
    labels: list[tuple[_Mark, Rectangle, float]] = []
    placed: list[Rectangle] = []
    for mark in marks:
        font, text = fit_font(mark.text, letters, names)
        start, _, end, _ = pen.textbbox((0, 0), text, font=font)
        width, height = end - start + 2 * margin, letters + 2 * margin
        spot = _place(mark.box, width, height, line, size, np.array(placed).reshape(-1, 4), boxes)
        if spot is not None:
            placed.append(spot)
            labels.append((mark, spot, margin - start))
    # The surest choose their places first and lie on top.
    for mark, spot, inset in reversed(labels):
        pen.rounded_rectangle(spot, radius=margin, fill=(*mark.colour, 235))
        middle = (spot[0] + inset, (spot[1] + spot[3]) / 2)
        font, text = fit_font(mark.text, letters, names)
        pen.text(middle, text, font=font, fill=_ink_on(mark.colour), anchor="lm")


def _place(
    box: Rectangle,
    width: float,
    height: float,
    line: int,
    size: tuple[int, int],
    placed: np.ndarray,
    boxes: np.ndarray,
) -> Rectangle | None:
    """The spot beside or in the box where a label covers least; None where it would cover other labels."""
    best, best_cost = None, float("inf")
    for preference, (x, y) in enumerate(_corners(box, width, height, line)):
        x, y = max(0.0, min(x, size[0] - width)), max(0.0, min(y, size[1] - height))
        spot = (x, y, x + width, y + height)
        on_labels = _covered(spot, placed).sum() / (width * height)
        if on_labels > _MAX_COVERED:
            continue
        # What a label hides of a small object counts more than what it hides of a large one.
        areas = np.maximum((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), 1)
        cost = 4 * on_labels + (_covered(spot, boxes) / areas).sum() + 0.05 * preference
        if cost < best_cost:
            best, best_cost = spot, cost
    return best


def _corners(box: Rectangle, width: float, height: float, line: int) -> list[tuple[float, float]]:
    """Where a label may start: above, below, inside at the top, inside at the bottom; left, then right."""
    x1, y1, x2, y2 = box
    left, right = x1 - line, x2 + line - width
    heights = (y1 - line - height, y2 + line, y1, y2 - height)
    return [(x, y) for x in (left, right) for y in heights]


def _covered(spot: Rectangle, others: np.ndarray) -> np.ndarray:
    """Area that a rectangle shares with each of the others (n, 4)."""
    wide = np.minimum(spot[2], others[:, 2]) - np.maximum(spot[0], others[:, 0])
    high = np.minimum(spot[3], others[:, 3]) - np.maximum(spot[1], others[:, 1])
    shared: np.ndarray = np.maximum(wide, 0) * np.maximum(high, 0)
    return shared


def _ink_on(colour: Colour) -> Colour:
    """Black or white, whichever stands out more.

    Source: WCAG 2.2, relative luminance and contrast ratio.
    """
    parts = [value / 255 for value in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    on_white, on_black = 1.05 / (luminance + 0.05), (luminance + 0.05) / 0.05
    return (255, 255, 255) if on_white > on_black else (0, 0, 0)


def _font_size(size: tuple[int, int], count: int) -> int:
    """Pixels: grows with the image, shrinks when there are many objects."""
    crowd: float = (max(count, 25) / 25) ** 0.3
    return int(min(40, max(10, min(size) / (34 * crowd))) + 0.5)


def _fit(image: Image.Image, cell: int) -> Image.Image:
    factor = cell / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)
