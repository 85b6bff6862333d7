"""How each toolkit scales an image: from 8-bit RGB to an array of 0..255 values, and the frame that leads back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from fpn.preprocessing.frame import Frame
from fpn.shapes import Size


def resize(image: Image.Image, *, method: str, short_side: int, long_side: int | None) -> tuple[np.ndarray, Frame]:
    """Scale an image so that its shorter side is `short_side`, unless the longer one would exceed `long_side`.

    Args:
        image: 8-bit RGB.
        method: a key of `RESIZERS`; see `Dialect.resize`.
        short_side, long_side: pixels.

    Returns:
        (h, w, 3) float32 or uint8 values in 0..255, RGB, and the frame.
    """
    return RESIZERS[method](image, short_side, long_side)


def network_frame(original: Size, *, method: str, short_side: int, long_side: int | None) -> Frame:
    """Where an image of that size would lie in the network, without touching a pixel; arguments as in `resize`."""
    return FRAMES[method](original, short_side, long_side)


def scale_for(size: Size, short_side: int, long_side: int | None) -> float:
    """The factor that brings the shorter side to `short_side`, bounded by the longer side's limit."""
    scale = short_side / min(size)
    return scale if long_side is None else min(scale, long_side / max(size))


def _pillow(image: Image.Image, short_side: int, long_side: int | None) -> tuple[np.ndarray, Frame]:
    """8-bit, antialiased bilinear; sides rounded to the nearest pixel (Detectron2's ResizeShortestEdge)."""
    frame = _rounded_frame(_size(image), short_side, long_side)
    if frame.network != frame.original:
        image = image.resize((frame.network.width, frame.network.height), Image.Resampling.BILINEAR)
    return np.asarray(image), frame


def _torch(image: Image.Image, short_side: int, long_side: int | None) -> tuple[np.ndarray, Frame]:
    """Float, not antialiased, sides rounded down (torchvision's GeneralizedRCNNTransform)."""
    frame = _floored_frame(_size(image), short_side, long_side)
    if frame.network == frame.original:
        return np.asarray(image), frame
    pixels = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)[None]
    resized = functional.interpolate(pixels, size=tuple(frame.network), mode="bilinear", align_corners=False)
    return resized[0].permute(1, 2, 0).numpy(), frame


def _opencv(image: Image.Image, short_side: int, long_side: int | None) -> tuple[np.ndarray, Frame]:
    """Float, not antialiased, sampled at exactly 1 / scale, sides rounded half to even (fpn.pytorch's cv2.resize)."""
    frame = _exact_frame(_size(image), short_side, long_side)
    pixels = np.asarray(image, dtype=np.float64)
    pixels = _interpolate(pixels, frame.network, _step(frame), rim="repeat")
    return pixels.astype(np.float32), frame


def _opencv_8bit(image: Image.Image, short_side: int, long_side: int | None) -> tuple[np.ndarray, Frame]:
    """8-bit, not antialiased, sides rounded (MMDetection), in OpenCV's own fixed point, which cuts digits off twice."""
    frame = _rounded_frame(_size(image), short_side, long_side)
    pixels = np.asarray(image, dtype=np.int32)
    (left, right), across = _fixed_taps(pixels.shape[1], frame.network.width, rim=True)
    (above, below), down = _fixed_taps(pixels.shape[0], frame.network.height, rim=False)
    rows = pixels[:, left] * across[0][:, None] + pixels[:, right] * across[1][:, None]  # (h, W, 3), 19 bits
    rows >>= 4
    upper = rows[above] * down[0][:, None, None] >> 16
    return (upper + (rows[below] * down[1][:, None, None] >> 16) + 2 >> 2).astype(np.uint8), frame


def _fixed_taps(
    inside: int, outside: int, *, rim: bool
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Both neighbours of each sample on one axis, and their weights in 2048ths.

    Args:
        inside: pixels that are there.
        outside: samples that are wanted.
        rim: a sample beyond the first or last pixel has all its weight on it, as across a row; False: the pixel counts
            twice, with both weights, as OpenCV has it down a column.
    """
    position = ((np.arange(outside) + 0.5) * (inside / outside) - 0.5).astype(np.float32)
    low = np.floor(position)
    upper = position - low
    if rim:
        upper = np.where((low < 0) | (low >= inside - 1), np.float32(0), upper)
    index = low.astype(np.int64)
    weights = (np.rint((1 - upper) * 2048).astype(np.int32), np.rint(upper * 2048).astype(np.int32))
    return (index.clip(0, inside - 1), (index + 1).clip(0, inside - 1)), weights


def _square(image: Image.Image, short_side: int, long_side: int | None) -> tuple[np.ndarray, Frame]:
    """In the middle of a black square; see `resize_centred`."""
    return resize_centred(image, short_side=short_side, long_side=long_side)


def _centred_64(image: Image.Image, short_side: int, long_side: int | None) -> tuple[np.ndarray, Frame]:
    """In the middle of black sides that are multiples of 64, however long; see `resize_centred`."""
    return resize_centred(image, short_side=short_side, long_side=None, multiple=64)


def resize_centred(
    image: Image.Image,
    *,
    short_side: int | None,
    long_side: int | None,
    min_scale: float = 0.0,
    multiple: int | None = None,
) -> tuple[np.ndarray, Frame]:
    """Scale an image up, never down for `short_side`, and put it in the middle of black (matterport's resize_image).

    Values are truncated to 8 bits. matterport leaves normalised boxes by multiplying with (side - 1) and adding one
    to the far corners: hence the inclusive frame, and a scale that is a ratio of sides less one.

    Args:
        image: 8-bit RGB.
        short_side: the shorter side becomes at least this long; None: no scaling for its sake.
        long_side: the longer side becomes at most this long.
        min_scale: scale at least by this, unless `long_side` forbids.
        multiple: pad each side to a multiple of this; None: pad to a square of `long_side`.
    """
    frame = centred_frame(
        _size(image), short_side=short_side, long_side=long_side, min_scale=min_scale, multiple=multiple
    )
    original, content = frame.original, frame.content
    array = np.asarray(image)
    if content is not None and content != original:
        step = (original.height / content.height, original.width / content.width)
        # Values are never negative, so that the cast truncates as NumPy's astype does in the original.
        array = _interpolate(array.astype(np.float64), content, step, rim="black").astype(np.uint8)
    return _centre(array, frame.network), frame


def centred_frame(
    original: Size,
    *,
    short_side: int | None,
    long_side: int | None,
    min_scale: float = 0.0,
    multiple: int | None = None,
) -> Frame:
    """Where `resize_centred` puts an image of that size."""
    scale = max(1.0, (short_side or 0) / min(original), min_scale)
    if long_side is not None and round(max(original) * scale) > long_side:
        scale = long_side / max(original)
    content = Size(*(max(round(length * scale), 1) for length in original))
    if multiple is None:
        return _centred_frame(original, content, Size(*[long_side or max(content)] * 2))
    return _centred_frame(original, content, Size(*(-(-length // multiple) * multiple for length in content)))


def _centre(array: np.ndarray, network: Size) -> np.ndarray:
    height, width = array.shape[:2]
    top, left = (network.height - height) // 2, (network.width - width) // 2
    around = np.zeros((*network, 3), dtype=np.uint8)
    around[top : top + height, left : left + width] = array
    return around


def _centred_frame(original: Size, content: Size, network: Size) -> Frame:
    # A side of one pixel has no length between its first and its last pixel.
    scale = [max(inside - 1, 1) / max(outside - 1, 1) for inside, outside in zip(content, original, strict=True)]
    offset = [float((outer - inner) // 2) for inner, outer in zip(content, network, strict=True)]
    return Frame(original, network, (scale[0], scale[1]), (offset[0], offset[1]), content, inclusive=True)


def _interpolate(pixels: np.ndarray, size: Size, step: tuple[float, float], *, rim: str) -> np.ndarray:
    """Bilinear samples of (h, w, 3) at (index + 0.5) * step - 0.5; beyond the rim it is black, or the rim repeats."""
    rows = _taps(pixels.shape[0], size.height, step[0], black=rim == "black")
    columns = _taps(pixels.shape[1], size.width, step[1], black=rim == "black")
    result = np.zeros((*size, 3))
    # Corner by corner, and value * row weight * column weight, as scipy's zoom adds them up: where a cast truncates
    # afterwards, another order of the same sum is one level off in every thousandth pixel.
    for row, row_weight in rows:
        part = pixels[row] * row_weight[:, None, None]
        for column, column_weight in columns:
            result += part[:, column] * column_weight[None, :, None]
    return result


def _taps(inside: int, outside: int, step: float, *, black: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """The lower and upper neighbour of each sample on one axis: an index (outside,) and a weight (outside,)."""
    last = inside - 1
    position = (np.arange(outside) + 0.5) * step - 0.5
    low = np.floor(position).astype(np.int64)
    upper = position - low
    lower = 1 - upper
    if black:
        lower, upper = lower * (low >= 0), upper * (low < last)
    return [(low.clip(0, last), lower), ((low + 1).clip(0, last), upper)]


def _size(image: Image.Image) -> Size:
    return Size(image.height, image.width)


def _step(frame: Frame) -> tuple[float, float]:
    """Original pixels a network pixel."""
    return 1 / frame.scale[0], 1 / frame.scale[1]


def _rounded_frame(original: Size, short_side: int, long_side: int | None) -> Frame:
    scale = scale_for(original, short_side, long_side)
    return _filled(original, Size(*(max(int(side * scale + 0.5), 1) for side in original)))


def _floored_frame(original: Size, short_side: int, long_side: int | None) -> Frame:
    scale = scale_for(original, short_side, long_side)
    return _filled(original, Size(*(max(int(side * scale), 1) for side in original)))


def _exact_frame(original: Size, short_side: int, long_side: int | None) -> Frame:
    scale = scale_for(original, short_side, long_side)
    return Frame(original, Size(*(max(round(side * scale), 1) for side in original)), (scale, scale))


def _square_frame(original: Size, short_side: int, long_side: int | None) -> Frame:
    return centred_frame(original, short_side=short_side, long_side=long_side)


def _centred_64_frame(original: Size, short_side: int, long_side: int | None) -> Frame:
    return centred_frame(original, short_side=short_side, long_side=None, multiple=64)


def _filled(original: Size, network: Size) -> Frame:
    return Frame(original, network, (network.height / original.height, network.width / original.width))


FRAMES: dict[str, Callable[[Size, int, int | None], Frame]] = {
    "pillow": _rounded_frame,
    "torch": _floored_frame,
    "opencv": _exact_frame,
    "opencv_8bit": _rounded_frame,
    "square": _square_frame,
    "centred_64": _centred_64_frame,
}


RESIZERS: dict[str, Callable[[Image.Image, int, int | None], tuple[np.ndarray, Frame]]] = {
    "pillow": _pillow,
    "torch": _torch,
    "opencv": _opencv,
    "opencv_8bit": _opencv_8bit,
    "square": _square,
    "centred_64": _centred_64,
}
