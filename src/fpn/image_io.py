"""Reading images: any file or array a person may have, to an upright 8-bit RGB image."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fpn.errors import DataNotFoundError, ImageError
from fpn.shapes import Size, in_pixels

ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray

# 2 ** 27 pixels is 400 MB as RGB: above any camera of today, below what a small machine has.
MAX_PIXELS = 2**27
# What that many pixels take uncompressed, with 16 bits a channel and transparency.
MAX_BYTES = 2**30
_ORIENTATION = 0x0112
_LYING = (5, 6, 7, 8)
# What Pillow may take a file for: no format that starts another program (EPS) or that no camera or tool writes.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
# The suffixes taken when a folder is given. Pillow decides by content what a file really is.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})


def read_image(source: ImageLike, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> Image.Image:
    """Read an image as an upright RGB one.

    Args:
        source: a path, a PIL image, or a uint8 / uint16 array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) in RGB
            order. Grey is repeated, transparency is laid on white, palettes are resolved, 16 bits are scaled to 8,
            EXIF orientation is applied. Files are JPEG, PNG, BMP, WebP, TIFF, GIF or PPM, whatever their suffix.
        max_pixels: height times width of a file that is accepted.
        max_bytes: size of a file that is accepted.

    Raises:
        DataNotFoundError: the path does not exist.
        ImageError: not an image, damaged, empty, or larger than `max_pixels` or `max_bytes`.
    """
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source))
    if isinstance(source, Image.Image):
        return _to_rgb(_upright(source))
    path = Path(source)
    with _opened(path, max_bytes) as opened:
        _check_size(opened.size, str(path), max_pixels)
        opened.load()
        return _to_rgb(_upright(opened))


def read_reduced(
    path: str | os.PathLike[str],
    min_size: Callable[[Size], Size],
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> tuple[Image.Image, Size]:
    """Read an image file; a JPEG at a half, a quarter or an eighth if that leaves enough of it.

    The decoder does that for little. What comes out is close to the full image scaled down, never equal to it.

    Args:
        path: as `read_image`.
        min_size: from the full size, as the image stands upright, to what must remain on both sides.
        max_pixels: height times width, in full, of a file that is accepted.
        max_bytes: size of a file that is accepted.

    Returns:
        The upright RGB image and the size that it has in full. Sides that the factor does not divide are rounded up.

    Raises:
        DataNotFoundError, ImageError: as `read_image`.
    """
    with _opened(Path(path), max_bytes) as opened:
        _check_size(opened.size, str(path), max_pixels)
        width, height = opened.size
        turned = opened.getexif().get(_ORIENTATION, 1)
        full = Size(width, height) if turned in _LYING else Size(height, width)
        whole = width % 8 == height % 8 == 0  # else a rounded-up side would come first once the image is turned
        if opened.format in ("JPEG", "MPO") and (turned == 1 or whole):
            least = min_size(full)
            # Mode None: the decoder keeps the file's own colours.
            opened.draft(None, (least.height, least.width) if turned in _LYING else (least.width, least.height))
        opened.load()
        return _to_rgb(_upright(opened)), full


def image_size(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> tuple[int, int]:
    """Height and width of an image file as it stands upright, reading its header alone.

    Raises:
        DataNotFoundError, ImageError: as `read_image`.
    """
    with _opened(Path(path), max_bytes) as opened:
        width, height = opened.size
        orientation = opened.getexif().get(_ORIENTATION, 1)
        if width < 1 or height < 1:
            raise ImageError(f"{path}: the image has no pixels")
    return (width, height) if orientation in _LYING else (height, width)


@contextmanager
def _opened(path: Path, max_bytes: int) -> Iterator[Image.Image]:
    """An image file, its header read. Whatever goes wrong while it is open is an error about the file."""
    try:
        _check_file(path, max_bytes)
        with warnings.catch_warnings():
            # We check the size ourselves, before any pixel is decoded.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as opened:
                yield opened
    except (ImageError, DataNotFoundError):
        raise
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{path}: no such file") from error
    except PermissionError as error:
        raise ImageError(f"{path}: no permission to read it") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path}: not an image of a known format. Remove it or save it again as JPEG or PNG."
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: too many pixels ({error}). Make it smaller or cut it into tiles.") from error
    # Decoders meet broken bytes anywhere and raise what they like, KeyError, struct.error and ZeroDivisionError too.
    except Exception as error:
        raise ImageError(f"{path}: the image is damaged ({error}). Save it again or remove it.") from error


def _check_file(path: Path, max_bytes: int) -> None:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{path}: is a folder, not an image")
    # Opening a pipe would wait for someone to write into it.
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{path}: is not a plain file")
    if status.st_size == 0:
        raise ImageError(f"{path}: the file is empty. Remove it or save it again as JPEG or PNG.")
    if status.st_size > max_bytes:
        raise ImageError(
            f"{path}: {status.st_size / 2**20:.0f} MiB, more than the limit of {max_bytes / 2**20:.0f} MiB. Make it "
            "smaller or cut it into tiles."
        )


def _check_size(size: tuple[int, int], where: str, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            f"{where}: {width} x {height} is {in_pixels(width * height)}, more than the limit of "
            f"{in_pixels(max_pixels)}. Make it smaller or cut it into tiles."
        )
    if width == 0 or height == 0:
        raise ImageError(f"{where}: the image has no pixels")


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ImageError(f"array of shape {array.shape}: expected (H, W), (H, W, 3) or (H, W, 4)")
    if array.size == 0:
        raise ImageError(f"array of shape {array.shape}: the image has no pixels")
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ImageError(
            f"array of {array.dtype}: expected uint8 (0..255). Multiply by 255 and convert if yours is 0..1."
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _from_wide(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image.convert("RGB")


def _from_wide(image: Image.Image) -> Image.Image:
    """16-bit and float images: 16-bit ranges are scaled by 1/256; anything else is stretched to 0..255."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ImageError("the image holds values that are not finite numbers")
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 255 and image.mode != "F":
        scaled = values
    elif low >= 0 and 255 < high <= 65535:
        scaled = values / 256
    else:
        scaled = (values - low) * (255 / max(high - low, 1e-12))
    return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
