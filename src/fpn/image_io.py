"""Reading images: any file or array a person may have, to an upright 8-bit RGB image."""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from PIL import Image, ImageFile, ImageOps, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError, features

from fpn.errors import DataNotFoundError, ImageError
from fpn.image_values import PixelRange, check_pixel_range, from_array, is_wide, to_rgb
from fpn.runtime.unheard import unheard
from fpn.shapes import Size, in_pixels

# 2 ** 27 pixels is 400 MB as RGB: above any camera of today, below what a small machine has.
MAX_PIXELS = 2**27
# What that many pixels take uncompressed, with 16 bits a channel and transparency.
MAX_BYTES = 2**30
_ORIENTATION = 0x0112
_LYING = (5, 6, 7, 8)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SAYING_HOW_IT_STANDS = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
# What Pillow may take a file for: no format that starts another program (EPS) or that no camera or tool writes.
_ALWAYS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
FORMATS = (*_ALWAYS, "AVIF") if features.check("avif") else _ALWAYS
# The suffixes taken when a folder is given. Pillow decides by content what a file really is.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif"}
)
# What a person calls an image too, and no part of this library reads: told instead of passed over.
UNREAD_SUFFIXES = frozenset(
    {".jp2", ".j2k", ".jpx", ".jxl", ".psd", ".svg", ".eps", ".exr", ".hdr", ".dcm", ".tga", ".ico", ".pcx"}
    | {".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"}
)
# The key of `Image.info` under which `read_image` says that the end of the file is missing.
CUT_SHORT = "cut_short"
# A JPEG of which more of its rows are missing shows another scene than the one that was labelled.
_MOST_MISSING = 0.1
# What ISO base media files of HEIF call themselves. mif1 and msf1 may be AVIF, too.
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
# Modules whose warnings about a file say nothing that we do not say ourselves.
_DECODERS = r"PIL\b|pillow_heif\b"
# Held while Pillow's limit is lifted.
_LIFTING = threading.Lock()
_WIDTH, _HEIGHT, _CHANNELS = 256, 257, 277  # of TIFF


class ImageWarning(UserWarning):
    """An image is used although something of it is missing."""


@dataclass(frozen=True, slots=True)
class ImageBytes:
    """What is in an image file.

    Attributes:
        data: all of it.
        name: what messages call it.
    """

    data: bytes
    name: str = "image"

    def __str__(self) -> str:
        return self.name

    def open(self, mode: str = "rb") -> io.BytesIO:
        """To be read, as a file is."""
        return io.BytesIO(self.data)

    def read_bytes(self) -> bytes:
        """All of it."""
        return self.data


_Stored: TypeAlias = Path | ImageBytes
ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray | ImageBytes


class ImageHeader(NamedTuple):
    """What the header of an image file says, of any format.

    Attributes:
        stored: its size as stored.
        orientation: how EXIF says it stands, 1 (upright) to 8.
        format: Pillow's name of it.
        deep_colour: 16 bits a channel in colour, of which Pillow keeps the upper 8.
    """

    stored: Size
    orientation: int
    format: str
    deep_colour: bool = False

    @property
    def upright(self) -> Size:
        """Height and width as every reader here shows it."""
        return Size(self.stored.width, self.stored.height) if self.orientation in _LYING else self.stored


def read_image(
    source: ImageLike,
    *,
    pixel_range: PixelRange | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> Image.Image:
    """Read an image as an upright RGB one.

    A JPEG whose last rows (up to a tenth) are missing is used: they are grey, an `ImageWarning` says so, and
    `info[CUT_SHORT]` of the result.

    Args:
        source: a path, a file's bytes (`ImageBytes`), a PIL image, or a uint8 / uint16 array of shape (H, W),
            (H, W, 1), (H, W, 3) or (H, W, 4) in RGB order; of any numbers if `pixel_range` says what they mean. Grey is
            repeated, transparency is laid on white, palettes are resolved, EXIF orientation is applied. Files are JPEG,
            PNG, BMP, WebP, TIFF, GIF, PPM, AVIF or, with the extra `heif`, HEIF, whatever their suffix.
        pixel_range: the values that become 0 and 255 where they have more than 8 bits, the same for all images of a
            dataset. None: 0 and 65535 for 16 bits; the image's own least and most for others.
        max_pixels: height times width of a file that is accepted.
        max_bytes: size of a file that is accepted.

    Raises:
        DataNotFoundError: the path does not exist.
        ImageError: not an image, damaged, empty, larger than `max_pixels` or `max_bytes`, or of channels or a type
            that can't be understood.
    """
    check_pixel_range(pixel_range)
    if isinstance(source, np.ndarray):
        return from_array(source, pixel_range)
    if isinstance(source, Image.Image):
        return to_rgb(ImageOps.exif_transpose(source), source.format, pixel_range)
    if not isinstance(source, str | os.PathLike | ImageBytes):
        raise ImageError(_unlike_an_image(source))
    path = source if isinstance(source, ImageBytes) else Path(source)
    with _opened(path, max_bytes) as opened:
        _check_size(opened.size, str(path), max_pixels)
        header = header_of(opened)
        _refuse_deep_colour(header, pixel_range)
        image = _decoded(opened, path, header, pixel_range)
    _warn_if_cut_short(image, path)
    return image


def read_reduced(
    path: str | os.PathLike[str],
    min_size: Callable[[Size], Size],
    *,
    pixel_range: PixelRange | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> tuple[Image.Image, Size]:
    """Read an image file; a JPEG at a half, a quarter or an eighth if that leaves enough of it.

    The decoder does that for little. What comes out is close to the full image scaled down, never equal to it.

    Args:
        path: as `read_image`.
        min_size: from the full size, as the image stands upright, to what must remain on both sides.
        pixel_range: as `read_image`.
        max_pixels: height times width, in full, of a file that is accepted.
        max_bytes: size of a file that is accepted.

    Returns:
        The upright RGB image and the size that it has in full. Sides that the factor does not divide are rounded up.

    Raises:
        DataNotFoundError, ImageError: as `read_image`.
    """
    check_pixel_range(pixel_range)
    with _opened(Path(path), max_bytes) as opened:
        _check_size(opened.size, str(path), max_pixels)
        header = header_of(opened)
        _refuse_deep_colour(header, pixel_range)
        full = header.upright
        whole = full.height % 8 == full.width % 8 == 0  # else a rounded-up side would come first once it is turned

        def reduce(image: Image.Image) -> None:
            if header.format in ("JPEG", "MPO") and (header.orientation == 1 or whole):
                least = min_size(full)
                lying = header.orientation in _LYING
                # Mode None: the decoder keeps the file's own colours.
                image.draft(None, (least.height, least.width) if lying else (least.width, least.height))

        image = _decoded(opened, Path(path), header, pixel_range, reduce)
    _warn_if_cut_short(image, path)
    return image, full


def image_size(source: str | os.PathLike[str] | ImageBytes, *, max_bytes: int = MAX_BYTES) -> tuple[int, int]:
    """Height and width of an image file as it stands upright, reading its header alone.

    Raises:
        DataNotFoundError, ImageError: as `read_image`.
    """
    path = source if isinstance(source, ImageBytes) else Path(source)
    with _opened(path, max_bytes) as opened:
        height, width = header_of(opened).upright
        if width < 1 or height < 1:
            raise ImageError(f"{path}: the image has no pixels")
    return height, width


def header_of(opened: Image.Image) -> ImageHeader:
    """The header of an image that Pillow opened and has not decoded yet: the one place that knows how images stand.

    Pillow gives the size of a TIFF as it will be when turned, and of every other format as it is stored.
    """
    tiles = opened.tile if isinstance(opened, ImageFile.ImageFile) else []
    orientation = _exif_of(opened).get(_ORIENTATION, 1)
    width, height = opened.size
    if isinstance(opened, TiffImagePlugin.TiffImageFile):
        width, height = opened.tag_v2[_WIDTH], opened.tag_v2[_HEIGHT]
    deep = opened.mode in ("RGB", "RGBA", "RGBX") and any(";16" in str(tile.args) for tile in tiles)
    return ImageHeader(
        stored=Size(height, width),
        orientation=orientation if orientation in range(1, 9) else 1,
        format=opened.format or "",
        deep_colour=deep,
    )


def _exif_of(opened: Image.Image) -> Image.Exif:
    """EXIF of a file whose pixels are not decoded yet: of a PNG it may come behind them, and Pillow would decode."""
    if not isinstance(opened, PngImagePlugin.PngImageFile) or opened.fp is None or "exif" in opened.info:
        return opened.getexif()
    position = opened.fp.tell()
    try:
        opened.fp.seek(8)
        while len(start := opened.fp.read(8)) == 8:
            length = int.from_bytes(start[:4], "big")
            if start[4:] == b"eXIf":
                exif = Image.Exif()
                exif.load(opened.fp.read(length))
                return exif
            opened.fp.seek(length + 4, os.SEEK_CUR)
    finally:
        opened.fp.seek(position)
    return Image.Image.getexif(opened)


def _turned(decoded: Image.Image, header: ImageHeader) -> Image.Image:
    """The pixels as they stand upright. A TIFF's are turned by Pillow."""
    how = None if header.format == "TIFF" else _TURNS.get(header.orientation)
    if how is None:
        return decoded
    turned = decoded.transpose(how)
    # Else who turns by EXIF would turn again.
    turned.info = {key: value for key, value in decoded.info.items() if key not in _SAYING_HOW_IT_STANDS}
    return turned


@contextmanager
def _opened(path: _Stored, max_bytes: int) -> Iterator[Image.Image]:
    """An image file, its header read. Whatever goes wrong while it is open is an error about the file."""
    try:
        _check_file(path, max_bytes)
        # We check the size ourselves, before any pixel is decoded.
        with unheard(module=_DECODERS), _open(path) as opened:
            yield opened
    except DataNotFoundError:
        raise
    except ImageError as error:
        if str(path) in str(error):
            raise
        raise ImageError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{path}: no such file") from error
    except PermissionError as error:
        raise ImageError(f"{path}: no permission to read it") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: {_unidentified(path)}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: too many pixels ({error}). Make it smaller or cut it into tiles.") from error
    # Decoders meet broken bytes anywhere and raise what they like, KeyError, struct.error and ZeroDivisionError too.
    except Exception as error:
        raise ImageError(f"{path}: the image is damaged ({error}). Save it again or remove it.") from error


def _open(path: _Stored) -> Image.Image:
    """Pillow's image of a file. The library that reads HEIF is loaded only for files that are it."""
    try:
        return _of_any_size(path, FORMATS)
    except UnidentifiedImageError:
        if not _is_heif(path) or not _heif_is_there():
            raise
        return _of_any_size(path, ("HEIF",))


def _of_any_size(path: _Stored, formats: tuple[str, ...]) -> Image.Image:
    """A file's header, its pixels not decoded. Pillow's own limit, one for the process, would stand before ours."""
    try:
        return Image.open(_for_pillow(path), formats=formats)
    except Image.DecompressionBombError:
        with _LIFTING:
            theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                return Image.open(_for_pillow(path), formats=formats)
            finally:
                Image.MAX_IMAGE_PIXELS = theirs


def _for_pillow(path: _Stored) -> Path | io.BytesIO:
    return path if isinstance(path, Path) else path.open()


def _is_heif(path: _Stored) -> bool:
    with path.open("rb") as stream:
        start = stream.read(12)
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS


def _heif_is_there() -> bool:
    try:
        import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True


def _unidentified(path: _Stored) -> str:
    """Why no decoder takes a file."""
    if _is_heif(path) and not _heif_is_there():
        return "a HEIF image. Install the extra that reads them (pip install 'fpn[heif]'), or save it as JPEG or PNG."
    channels = _tiff_channels(path)
    if channels not in (None, 1, 3, 4):
        return f"a TIFF of {channels} channels. Grey, RGB and RGB with transparency are read: choose three of them."
    return "not an image of a known format. Remove it or save it again as JPEG or PNG."


def _tiff_channels(path: _Stored) -> int | None:
    """How many channels a TIFF says it has; None: it is none, or says nothing."""
    with path.open("rb") as stream:
        try:
            start = stream.read(8)
            if start[:2] not in (b"II", b"MM"):
                return None
            tags = TiffImagePlugin.ImageFileDirectory_v2(start)
            stream.seek(tags.next)
            tags.load(stream)
            channels = tags.get(_CHANNELS)
        except Exception:  # as broken as files are; what is wrong with it is said elsewhere
            return None
    return channels if isinstance(channels, int) else None


def _decoded(
    opened: Image.Image,
    path: _Stored,
    header: ImageHeader,
    pixel_range: PixelRange | None,
    reduce: Callable[[Image.Image], Any] = lambda image: None,
) -> Image.Image:
    """The pixels of an opened file, upright and RGB; `reduce` may ask its decoder for a part of the size."""
    kind = header.format
    reduce(opened)
    try:
        opened.load()
        return to_rgb(_turned(opened, header), kind, pixel_range)
    except OSError as error:
        if kind not in ("JPEG", "MPO") or "truncated" not in str(error):
            raise
        mended, missing = _without_end(path, reduce)
    image = to_rgb(_turned(mended, header), kind, pixel_range)
    image.info[CUT_SHORT] = (
        f"its last {missing} of {mended.height} rows are missing" if missing else "its end is missing"
    )
    return image


def _warn_if_cut_short(image: Image.Image, path: _Stored | str | os.PathLike[str]) -> None:
    """Attributed to who reads the image."""
    if CUT_SHORT in image.info:
        message = f"{path}: the file is cut short, {image.info[CUT_SHORT]}. It is used; restore it."
        warnings.warn(ImageWarning(message), stacklevel=3)


def _without_end(path: _Stored, reduce: Callable[[Image.Image], Any]) -> tuple[Image.Image, int]:
    """A JPEG that ends too early, and how many of its last rows are missing, which are grey.

    With a mark of its end behind it, libjpeg fills what is missing with blocks of zeros.
    """
    mended = Image.open(io.BytesIO(path.read_bytes() + b"\xff\xd9"), formats=("JPEG",))
    reduce(mended)
    mended.load()
    grey = (np.asarray(mended.convert("RGB")) == 128).all(axis=(1, 2))
    missing = len(grey) if grey.all() else int(grey[::-1].argmin())
    if missing > _MOST_MISSING * len(grey):
        raise ImageError(
            f"{path}: the image is damaged (cut short: the last {missing} of {len(grey)} rows are missing). "
            "Restore it or remove it."
        )
    return mended, missing


def _refuse_deep_colour(header: ImageHeader, pixel_range: PixelRange | None) -> None:
    if header.deep_colour and pixel_range is not None:
        raise ImageError(
            "has 16 bits a channel in colour, of which the upper 8 are read: no pixel range applies to it. Save it "
            "with 8 bits a channel"
        )


def _check_file(path: _Stored, max_bytes: int) -> None:
    if isinstance(path, ImageBytes):
        _check_bytes(path, len(path.data), max_bytes)
        return
    try:
        status = path.stat()
    except OSError as error:
        if path.is_symlink() and not path.exists():
            raise DataNotFoundError(f"{path}: a link that leads nowhere, to {path.readlink()}") from error
        raise
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{path}: is a folder, not an image")
    # Opening a pipe would wait for someone to write into it.
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{path}: is not a plain file")
    _check_bytes(path, status.st_size, max_bytes)


def _check_bytes(path: _Stored, count: int, max_bytes: int) -> None:
    if count == 0:
        raise ImageError(f"{path}: the file is empty. Remove it or save it again as JPEG or PNG.")
    if count > max_bytes:
        raise ImageError(
            f"{path}: {count / 2**20:.0f} MiB, more than the limit of {max_bytes / 2**20:.0f} MiB. Make it smaller or "
            "cut it into tiles."
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


def _unlike_an_image(source: object) -> str:
    """What to do with a value of a type that is not read."""
    remedy = ""
    if hasattr(source, "is_floating_point"):  # a tensor, without loading torch for those who have none
        numbers = "(tensor * 255).round().byte()" if source.is_floating_point() else "tensor"
        of = " of values from 0 to 1" if source.is_floating_point() else ""
        remedy = f". An RGB tensor (3, H, W){of} becomes one by {numbers}.permute(1, 2, 0).cpu().numpy()"
    elif isinstance(source, bytes | bytearray | memoryview):
        remedy = ". A file's bytes become one by fpn.image_io.ImageBytes(data)"
    return f"image of type {type(source).__name__}: expected a path, a PIL image or a NumPy array{remedy}"


def has_wide_values(path: str | os.PathLike[str]) -> bool:
    """Whether an image file's values have more than 8 bits, by its header alone; not if it can't be read."""
    try:
        with _opened(Path(path), MAX_BYTES) as opened:
            return is_wide(opened)
    except (ImageError, DataNotFoundError):
        return False
