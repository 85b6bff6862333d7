"""Parts of images too large to be held in memory at once: TIFF and JPEG 2000 are read window by window."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from fpn.errors import ImageError, MissingExtraError
from fpn.image_io import MAX_BYTES, MAX_PIXELS, ImageLike, image_size, read_image
from fpn.image_values import PixelRange
from fpn.shapes import Size, in_pixels

# What these files begin with: TIFF and BigTIFF of both byte orders; JPEG 2000 in its box and bare.
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG_2000 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
# No file beside the one that was named is opened.
_SURROUNDINGS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
# Decoded blocks that are kept, MiB: tiles side by side share them, and 640 rows of strips 60 000 pixels long fit. Left
# to itself GDAL keeps a twentieth of the machine's memory, so that memory grew with the image.
_CACHE = {"GDAL_CACHEMAX": 128}


@runtime_checkable
class ImageWindows(Protocol):
    """An image of which any part can be read.

    Attributes:
        size: of the upright image.
    """

    @property
    def size(self) -> Size: ...  # noqa: D102

    def read(self, box: tuple[int, int, int, int]) -> Image.Image:
        """The upright 8-bit RGB pixels in x1, y1, x2, y2, which lies in the image; several threads may call it."""

    def overview(self, longest: int) -> Image.Image:
        """All of it; made smaller, if it is not held in memory and its longer side has more than `longest` pixels."""


@contextmanager
def open_windows(
    source: ImageLike,
    *,
    pixel_range: PixelRange | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> Iterator[ImageWindows]:
    """An image to be read in parts.

    What has at most `max_pixels` is read once, as `read_image` reads it, with all that it takes. A larger TIFF, and any
    JPEG 2000, is read from its file, window by window, whatever its size; this needs the extra `large`.

    Args:
        source: as `read_image` takes it, or a JPEG 2000 file.
        pixel_range: see `read_image`; a larger file of 16 bits is not scaled by its own least and most.
        max_pixels: of an image that is held in memory, and of one of a file's own blocks.
        max_bytes: of a file that is read at once.

    Raises:
        DataNotFoundError, ImageError: as `read_image`; or the file can't be read in parts.
        MissingExtraError: the file has to be, and rasterio is not installed.
    """
    if not is_read_in_parts(source, max_pixels=max_pixels, max_bytes=max_bytes):
        read = read_image(source, pixel_range=pixel_range, max_pixels=max_pixels, max_bytes=max_bytes)
        yield _InMemory(read)
        return
    assert isinstance(source, str | os.PathLike), "only a file is read in parts"
    path = Path(source)
    rasterio = _rasterio(path)
    # A scan that says nothing of where on Earth it was made is no reason for a warning.
    with warnings.catch_warnings(), rasterio.Env(**_SURROUNDINGS, **_CACHE):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            opened = rasterio.open(path, driver=_driver(path), sharing=False)
        except rasterio.errors.RasterioError as error:
            raise ImageError(f"{path}: the image is damaged ({error}). Save it again or remove it.") from error
        with opened:
            yield _OnDisk(path, opened, rasterio, pixel_range, max_pixels)


def is_read_in_parts(source: ImageLike, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> bool:
    """Whether it is a file that `open_windows` does not read at once."""
    if not isinstance(source, str | os.PathLike):
        return False
    path = Path(source)
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
        if start.startswith(_JPEG_2000):
            return True
        if not start.startswith(_TIFF):
            return False
        if path.stat().st_size > max_bytes:
            return True
        height, width = image_size(path, max_bytes=max_bytes)
    except (OSError, ImageError):
        # BigTIFF is no format of Pillow's; all else `read_image` says better.
        return path.is_file() and start.startswith(_TIFF[2:])
    return height * width > max_pixels


def _driver(path: Path) -> str:
    """GDAL's name of the one format that a file may be read as."""
    with path.open("rb") as stream:
        return "JP2OpenJPEG" if stream.read(8).startswith(_JPEG_2000) else "GTiff"


def _rasterio(path: Path) -> Any:
    try:
        return import_module("rasterio")
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: is read in parts, which needs the extra `large`: pip install 'fpn[large]'"
        ) from error


class _InMemory:
    """An image that was read at once."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image

    @property
    def size(self) -> Size:
        """See `ImageWindows`."""
        return Size(self.image.height, self.image.width)

    def read(self, box: tuple[int, int, int, int]) -> Image.Image:
        """See `ImageWindows`."""
        return self.image.crop(box)

    def overview(self, longest: int) -> Image.Image:
        """See `ImageWindows`."""
        return self.image


class _OnDisk:
    """A TIFF or JPEG 2000 file, of which each window is read anew."""

    def __init__(self, path: Path, opened: Any, rasterio: Any, pixel_range: PixelRange | None, max_pixels: int) -> None:
        self._path, self._opened, self._rasterio, self._range = path, opened, rasterio, pixel_range
        self._one_at_a_time = threading.Lock()
        self._bands = _bands(path, opened)
        blocks = [height * width for height, width in opened.block_shapes]
        if max(blocks) > max_pixels:
            raise ImageError(
                f"{path}: is stored in blocks of {in_pixels(max(blocks))}, of which each is held in memory at once; "
                f"the limit is {in_pixels(max_pixels)}. Store it in tiles (gdal_translate -co TILED=YES), or raise "
                "max_pixels."
            )

    @property
    def size(self) -> Size:
        """See `ImageWindows`."""
        return Size(self._opened.height, self._opened.width)

    def read(self, box: tuple[int, int, int, int]) -> Image.Image:
        """See `ImageWindows`."""
        left, top, right, bottom = box
        return self._read(box, Size(bottom - top, right - left))

    def overview(self, longest: int) -> Image.Image:
        """See `ImageWindows`."""
        height, width = self.size
        part = min(1.0, longest / max(height, width))
        return self._read((0, 0, width, height), Size(max(1, round(height * part)), max(1, round(width * part))))

    def _read(self, box: tuple[int, int, int, int], size: Size) -> Image.Image:
        left, top, right, bottom = box
        window = self._rasterio.windows.Window(left, top, right - left, bottom - top)
        average = self._rasterio.enums.Resampling.average
        shape = (len(self._bands), *size)
        try:
            with self._one_at_a_time:
                values = self._opened.read([*self._bands], window=window, out_shape=shape, resampling=average)
        except self._rasterio.errors.RasterioError as error:
            raise ImageError(
                f"{self._path}: the image is damaged between x {left}, y {top} and x {right}, y {bottom} ({error}). "
                "Save it again."
            ) from error
        try:
            return read_image(np.ascontiguousarray(values.transpose(1, 2, 0)), pixel_range=self._range)
        except ImageError as error:
            raise ImageError(f"{self._path}: {error}") from error


def _bands(path: Path, opened: Any) -> tuple[int, ...]:
    """Which bands are grey, or red, green, blue and transparency."""
    if opened.count not in (1, 3, 4):
        raise ImageError(
            f"{path}: an image of {opened.count} channels. Grey, RGB and RGB with transparency are read: choose three "
            "of them."
        )
    kinds = [kind.name for kind in opened.colorinterp]
    if "palette" in kinds:
        raise ImageError(
            f"{path}: has a palette, which is not read in parts. Save it as RGB (gdal_translate -expand rgb)."
        )
    if opened.count == 4 and kinds[3] != "alpha":
        raise ImageError(f"{path}: its fourth channel is {kinds[3]}, not transparency. Keep three (gdal_translate -b).")
    return tuple(range(1, opened.count + 1))
