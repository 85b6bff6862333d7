"""Stored values of any kind as 8-bit RGB."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from PIL import Image

from fpn.errors import ImageError

# Which stored values become black and white, where a value has more than 8 bits.
PixelRange: TypeAlias = tuple[float, float]


def check_pixel_range(pixel_range: PixelRange | None) -> None:
    """Stop for a range in which nothing could lie.

    Raises:
        ImageError: it is no pair of finite numbers in ascending order.
    """
    if pixel_range is None:
        return
    low, high = pixel_range
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ImageError(f"pixel range {low:g} to {high:g}: expected the value of black and a higher one of white")


def from_array(array: np.ndarray, pixel_range: PixelRange | None) -> Image.Image:
    """RGB of an array; which ones, and what is wrong with others: see `fpn.image_io.read_image`."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ImageError(f"array of shape {array.shape}: expected (H, W), (H, W, 3) or (H, W, 4)")
    if array.size == 0:
        raise ImageError(f"array of shape {array.shape}: the image has no pixels")
    if array.dtype != np.uint8:
        if array.dtype != np.uint16 and (pixel_range is None or array.dtype.kind not in "uif"):
            raise ImageError(
                f"array of {array.dtype}: expected uint8 (0..255) or uint16, or numbers with a pixel_range such as "
                "(0.0, 1.0)"
            )
        array = _scaled(array, pixel_range, sixteen_bits=array.dtype == np.uint16)
    return to_rgb(Image.fromarray(np.ascontiguousarray(array)), None, None)


def is_wide(image: Image.Image) -> bool:
    """Whether its values have more than 8 bits, so that a pixel range applies."""
    return image.mode.startswith("I;16") or image.mode in ("I", "F")


def white_of(image: Image.Image) -> float | None:
    """The value that becomes white where no pixel range is given; None: the image's own most."""
    return 65535.0 if _has_sixteen_bits(image, image.format) else None


def _has_sixteen_bits(image: Image.Image, kind: str | None) -> bool:
    # Pillow gives 16-bit PNG and PGM as 32-bit numbers of the full range of 16 bits.
    return image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM"))


def to_rgb(image: Image.Image, kind: str | None, pixel_range: PixelRange | None) -> Image.Image:
    """RGB of an image of any mode; `kind`: Pillow's name of the file's format, if it was one."""
    if image.mode == "RGB":
        return image
    if is_wide(image):
        scaled = _scaled(np.asarray(image), pixel_range, sixteen_bits=_has_sixteen_bits(image, kind))
        return Image.fromarray(scaled).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image.convert("RGB")


def _scaled(values: np.ndarray, pixel_range: PixelRange | None, *, sixteen_bits: bool) -> np.ndarray:
    """Values of more than 8 bits to 0..255. Without a range, 16 bits are always divided by 256."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError("the image holds values that are not finite numbers. Write numbers in their place.")
    if pixel_range is None and sixteen_bits:
        return np.asarray(values // 256).astype(np.uint8)
    numbers = values.astype(np.float64)
    low, high = pixel_range or (float(numbers.min()), float(numbers.max()))
    return np.asarray(np.rint(((numbers - low) * (255 / max(high - low, 1e-12))).clip(0, 255))).astype(np.uint8)
