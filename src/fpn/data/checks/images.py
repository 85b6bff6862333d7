"""Looks at every image file once: can it be read, how large is it, how does it stand, what does it look like?"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import cast

from PIL import Image

from fpn.data.formats.files import Folder
from fpn.data.issues import Finding
from fpn.data.limits import Limits
from fpn.errors import FpnError
from fpn.image_io import CUT_SHORT, FORMATS, ImageWarning, header_of, read_image
from fpn.image_values import is_wide, white_of
from fpn.runtime.unheard import unheard
from fpn.shapes import Size

# Each may hold an image of 128 million pixels, so more of them would need more memory than small machines have.
MOST_WORKERS = 8
# Sides of the grey thumbnails, whatever the image's shape.
THUMBNAIL = 32
# Of 0..255: what lies wholly below is nearly black; 12 of 16 bits end at 15.
_DARK = 32
# libjpeg can decode at 1/2, 1/4, 1/8 of the size, three times faster. What is left still has 4 pixels for each of ours.
_ENOUGH = (128, 128)
# Of each of Pillow's formats, the commonest first.
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".mpo"),
    "PNG": (".png",),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
}


_NO_SIZE = Size(0, 0)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What one image file is.

    Attributes:
        stored: its size as stored, before EXIF turns it; (0, 0) if it can't be read.
        orientation: EXIF's, 1 (upright) to 8.
        format: Pillow's name of it.
        digest: of the file's bytes.
        thumbnail: its grey values at 32 x 32.
        problem: why it can't be read; empty if it can.
        missing: there is no such file.
        cut_short: what of its end is missing, though it can be used; empty if nothing.
        values: the least and the most of its values where they have more than 8 bits, else None.
        white: which of such values becomes white if nobody says; None: the image's own most.
        unread: what of it is not read: pages behind the first, a fourth channel; empty if nothing.
        deep_colour: 16 bits a channel in colour, of which the upper 8 are read.
    """

    stored: Size = _NO_SIZE
    orientation: int = 1
    format: str = ""
    digest: bytes = b""
    thumbnail: bytes = b""
    problem: str = ""
    missing: bool = False
    cut_short: str = ""
    values: tuple[float, float] | None = None
    white: float | None = None
    unread: str = ""
    deep_colour: bool = False

    @property
    def size(self) -> Size:
        """Height and width as it stands upright."""
        return Size(self.stored.width, self.stored.height) if self.orientation >= 5 else self.stored


def inspect_images(
    paths: Sequence[str],
    *,
    limits: Limits | None = None,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[ImageInfo]:
    """Look at many images, several at a time (Pillow lets go of Python's lock while it decodes).

    Args:
        paths: the files.
        limits: pixels and bytes above which one counts as unreadable, as in training.
        workers: threads; None: one a core, at most 8.
        progress: is called with the number done so far.
    """
    count = workers or min(MOST_WORKERS, os.cpu_count() or 1)
    infos = []
    each = partial(inspect_image, limits=limits or Limits())
    with ThreadPoolExecutor(count) as pool:
        for done, seen in enumerate(_in_order(pool, each, paths, ahead=4 * count), start=1):
            infos.append(seen)
            if progress is not None:
                progress(done)
    return infos


def _in_order(
    pool: ThreadPoolExecutor, each: Callable[[str], ImageInfo], paths: Sequence[str], ahead: int
) -> Iterator[ImageInfo]:
    """Results in the order of `paths`; a bounded number is under way, so that Ctrl-C has little to wait for."""
    rest = iter(paths)
    coming: list[Future[ImageInfo]] = [pool.submit(each, path) for path in islice(rest, ahead)]
    while coming:
        yield coming.pop(0).result()
        coming.extend(pool.submit(each, path) for path in islice(rest, 1))


def inspect_image(path: str, limits: Limits) -> ImageInfo:
    """Look at one image."""
    try:
        return _look(path, limits)
    except FileNotFoundError:
        return ImageInfo(missing=True, problem="does not exist")
    except Exception:
        # Whatever went wrong, the reader of training decides whether it is wrong, and says so in its own words.
        return _as_training_does(path, limits)


def _look(path: str, limits: Limits) -> ImageInfo:
    with Path(path).open("rb") as stream, unheard(module=r"PIL\b|pillow_heif\b"):
        if os.fstat(stream.fileno()).st_size > limits.image_bytes:
            return _as_training_does(path, limits)
        digest = hashlib.file_digest(stream, "blake2b").digest()[:16]
        stream.seek(0)
        with Image.open(stream, formats=FORMATS) as opened:
            if not 0 < opened.width * opened.height <= limits.image_pixels:
                return _as_training_does(path, limits)
            header, unread = header_of(opened), _unread(opened)
            if opened.mode in ("L", "RGB"):
                opened.draft("L", _ENOUGH)
            opened.load()  # all of the file, so that one cut short is noticed
            values, white = (_extrema(opened), white_of(opened)) if is_wide(opened) else (None, None)
            # Of wide values Pillow's own conversion keeps those below 256 alone.
            grey = read_image(opened).convert("L") if is_wide(opened) else opened.convert("L")
    return ImageInfo(
        stored=header.stored,
        orientation=header.orientation,
        format=header.format,
        digest=digest,
        thumbnail=_thumbnail(grey),
        values=values,
        white=white,
        unread=unread,
        deep_colour=header.deep_colour and _extrema(grey)[1] < _DARK,
    )


def _extrema(image: Image.Image) -> tuple[float, float]:
    """The least and the most of the values of an image of one channel."""
    low, high = cast("tuple[float, float]", image.getextrema())
    return float(low), float(high)


def _unread(opened: Image.Image) -> str:
    """What of a file is not read. (An MPO's second image is the same scene.)"""
    frames = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
    if frames > 1:
        return f"has {frames} pages or frames, of which the first is read"
    return "has 4 channels, of which the first three are read" if opened.mode == "RGBX" else ""


def _as_training_does(path: str, limits: Limits) -> ImageInfo:
    try:
        with unheard(ImageWarning):
            image = read_image(path, max_pixels=limits.image_pixels, max_bytes=limits.image_bytes)
    except FpnError as error:
        return ImageInfo(problem=str(error).removeprefix(f"{path}: "))
    size, grey = Size(image.height, image.width), image.convert("L")
    digest = hashlib.blake2b(image.tobytes()).digest()[:16]
    return ImageInfo(size, 1, "", digest, _thumbnail(grey), cut_short=image.info.get(CUT_SHORT, ""))


def _thumbnail(grey: Image.Image) -> bytes:
    return grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).tobytes()


def check_file(name: str, info: ImageInfo, folder: Folder, *, hint: bool) -> Finding | None:
    """What is wrong with an image as a file; `hint` names a file alike if it is missing."""
    if info.missing:
        neighbour = folder.neighbour(str(folder.root / name)) if hint else ""
        return Finding("image-missing", f"{name} does not exist{neighbour}", name)
    if info.problem:
        return Finding("image-unreadable", f"{name}: {info.problem}", name)
    known = _SUFFIXES.get(info.format)
    if known is not None and Path(name).suffix.lower() not in known:
        return Finding("suffix-wrong", f"{name}: is a {info.format} file", name)
    return None


def check_content(name: str, info: ImageInfo) -> Iterator[Finding]:
    """What of an image that can be read is missing, or is not read."""
    if info.cut_short:
        yield Finding("image-cut-short", f"{name}: {info.cut_short}", name)
    if info.unread:
        yield Finding("image-part-unread", f"{name}: {info.unread}", name)


def right_suffix(name: str, info: ImageInfo) -> str:
    """The image's name with a suffix that fits its content."""
    known = _SUFFIXES.get(info.format)
    if known is None or Path(name).suffix.lower() in known:
        return name
    return Path(name).with_suffix(known[0]).as_posix()


def check_size(name: str, info: ImageInfo, said: Size | None) -> Finding | None:
    """Whether the annotation's size (None: it has none) is that of the image as it stands upright."""
    if info.problem:
        return None
    turned = f"{name}: EXIF orientation {info.orientation}, stored as {_shape(info.stored)}"
    if said is not None and said != info.size:
        if said == info.stored:
            return Finding("exif-rotation", f"{turned}, so is the annotation; upright it is {_shape(info.size)}", name)
        message = f"{name}: the image is {_shape(info.size)}, its annotation says {_shape(said)}"
        return Finding("size-differs", message, name)
    told_apart = said is not None and info.orientation >= 5 and info.stored != info.size
    if info.orientation != 1 and not told_apart:
        return Finding("exif-unclear", f"{turned}; the labels don't say which way they were drawn", name)
    return None


def _shape(size: Size) -> str:
    return f"{size.width} x {size.height}"
