"""Lost objects as drawings: the truth, and the best anchor, proposal and detection around it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import zip_longest

from PIL import Image, ImageDraw, ImageFont

from fpn.drawing import Colour
from fpn.studies.diagnosis.diagnosis import Diagnosis, Miss
from fpn.studies.diagnosis.stages import Mark

# Side of the square that shows the object, and the height of what is written below, in pixels.
_SIDE, _LINE = 480, 22
# The part that is shown is so many times as long as the object, and at least so many pixels.
_AROUND, _LEAST = 3.0, 48.0
_LETTERS = 58
_INK, _PAPER, _CASING = (32, 32, 32), (250, 250, 248), (0, 0, 0)
# Okabe and Ito's colours, on what is drawn first to last, and how wide: later lines lie within earlier ones.
_STYLES: dict[str, tuple[Colour, int]] = {
    "truth": ((0, 158, 115), 5),
    "anchor": ((86, 180, 233), 2),
    "proposal": ((240, 228, 66), 2),
    "detection": ((213, 94, 0), 2),
}


def most_telling(found: Diagnosis, count: int) -> list[Miss]:
    """Lost objects to look at: stages take turns, those that lost most first, each with its largest objects first."""
    stages = sorted((line for line in found.stages if line.count), key=lambda line: -line.count)
    ranked = [
        sorted((miss for miss in found.misses if miss.lost.stage == line.name), key=lambda miss: -miss.area)
        for line in stages
    ]
    turns = [miss for turn in zip_longest(*ranked) for miss in turn if miss is not None]
    return turns[:count]


def draw_miss(image: Image.Image, miss: Miss, title: str) -> Image.Image:
    """One lost object, enlarged, with what came nearest to it.

    Args:
        image: upright, in whose pixels the marks are.
        miss: what was lost.
        title: of the stage that lost it.
    """
    x, y, side = _part(image, miss.lost.marks[0])
    part = Image.new("RGB", (side, side), _PAPER)
    part.paste(image.convert("RGB"), (-x, -y))
    shown = part.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    scale = _SIDE / side
    pen = ImageDraw.Draw(shown)
    for mark in miss.lost.marks:
        x1, y1, x2, y2 = (round((value - start) * scale) for value, start in zip(mark.box, (x, y, x, y), strict=True))
        colour, width = _STYLES[mark.what]
        pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=_CASING)
        pen.rectangle((x1, y1, x2, y2), outline=colour, width=width)
    return _with_words(shown, miss, title)


def _part(image: Image.Image, truth: Mark) -> tuple[int, int, int]:
    """Left, top and side of the square around the object; inside of the image where it fits."""
    x1, y1, x2, y2 = truth.box
    side = max(1, round(max(_AROUND * max(x2 - x1, y2 - y1), _LEAST)))
    side = min(side, max(image.size))
    left, top = (round((low + high - side) / 2) for low, high in ((x1, x2), (y1, y2)))
    return _inside(left, side, image.width), _inside(top, side, image.height), side


def _inside(start: int, side: int, whole: int) -> int:
    return (whole - side) // 2 if side >= whole else min(max(start, 0), whole - side)


def _with_words(shown: Image.Image, miss: Miss, title: str) -> Image.Image:
    lines: Sequence[str] = textwrap.wrap(f"{title}: {miss.lost.reason}", _LETTERS)
    sheet = Image.new("RGB", (_SIDE, _SIDE + _LINE * (len(lines) + len(miss.lost.marks)) + _LINE // 2), _PAPER)
    sheet.paste(shown)
    pen, font, y = ImageDraw.Draw(sheet), ImageFont.load_default(15), _SIDE + 6
    for line in lines:
        pen.text((8, y), line, font=font, fill=_INK)
        y += _LINE
    for mark in miss.lost.marks:
        pen.rectangle((8, y + 3, 22, y + 15), fill=_STYLES[mark.what][0], outline=_CASING)
        what = mark.what if mark.what == "truth" else f"best {mark.what}"
        pen.text((30, y), f"{what}: {mark.text}", font=font, fill=_INK)
        y += _LINE
    return sheet
