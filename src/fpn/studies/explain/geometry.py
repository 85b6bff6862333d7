"""Sizes as people write them, and how an image of some size enters a network."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fpn.detectors.dialect import Dialect
from fpn.detectors.toolkits import MINIMAL, PYTORCH_FPN
from fpn.errors import ConfigError
from fpn.image_io import MAX_PIXELS
from fpn.preprocessing.resizing import network_frame
from fpn.shapes import Size, in_pixels

_SIZE = re.compile(r"\s*(\d+)\s*[xX\u00d7*]\s*(\d+)\s*")
_BOX = re.compile(r"\s*(\d+(?:\.\d+)?)\s*[xX\u00d7*]\s*(\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True)
class View:
    """An image on its way into the network.

    Attributes:
        original: size of the image.
        network: after scaling.
        padded: after padding; what the convolutions see.
        scale: network pixels an original pixel, (y, x).
    """

    original: Size
    network: Size
    padded: Size
    scale: tuple[float, float]


@dataclass(frozen=True)
class Box:
    """Width and height in pixels of the image."""

    width: float | int
    height: float | int

    def __str__(self) -> str:
        return f"{self.width:g}x{self.height:g}"


def view(dialect: Dialect, size: Size, *, as_is: bool) -> View:
    """How an image of that size enters the network; `as_is`: neither scaled nor padded."""
    if as_is:
        return View(size, size, size, (1.0, 1.0))
    frame = network_frame(size, **dialect.pixels.sizing)
    multiple = dialect.pixels.size_multiple
    padded = Size(*(-(-side // multiple) * multiple for side in frame.network))
    return View(size, frame.content or frame.network, padded, frame.scale)


def is_pyramid_only(dialect: Dialect) -> bool:
    """Whether the original is a pyramid without a detector: no preprocessing, no anchors, no RoIs."""
    return dialect.name in (PYTORCH_FPN.name, MINIMAL.name)


def read_size(text: str) -> Size | None:
    """An image's size from "640x480", width first, as people write it; None: the text is no size at all.

    Raises:
        ConfigError: a side of zero, or more pixels than any image may have.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    width, height = (int(part) for part in match.groups())
    if width == 0 or height == 0:
        raise ConfigError(f"size {text}: a side is 0. Write width x height in pixels, such as 640x480.")
    if width * height > MAX_PIXELS:
        raise ConfigError(
            f"size {text}: {in_pixels(width * height)}, more than the limit of {in_pixels(MAX_PIXELS)}. "
            "Explain a tile of it."
        )
    return Size(height, width)


def read_box(text: str) -> Box:
    """A box from "40x60", width first.

    Raises:
        ConfigError: another form, or a side of zero.
    """
    match = _BOX.fullmatch(text)
    if match is None:
        raise ConfigError(f"box {text!r}: expected width x height in pixels, such as 40x60")
    width, height = (float(part) for part in match.groups())
    if width == 0 or height == 0:
        raise ConfigError(f"box {text}: a side is 0, so that it holds nothing. Give both sides, such as 40x60.")
    return Box(width, height)


def by(size: Size) -> str:
    """Width x height, as people write it."""
    return f"{size.width}x{size.height}"
