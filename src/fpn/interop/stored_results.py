"""What a toolkit found in images, from an `.npz`: one image at a time, and of it nothing before its size is known."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fpn.errors import DataNotFoundError, ModelFileError
from fpn.interop.pickle_parts import RefusedFileError, printable
from fpn.interop.torch_files import map_file, refuse_long_directory

TheirResults: TypeAlias = Mapping[str, NDArray[Any]]

_WHAT = ("boxes", "scores", "labels")
# Bytes of one array, and of all: images that are packed 100 times smaller are drawn to fill a memory.
_LARGEST_ARRAY, _LARGEST_FILE, _ALWAYS_ALLOWED, _TIMES_SMALLER = 2**27, 2**30, 2**26, 100
_LONGEST_SIDE, _MOST_DETECTIONS = 20_000, 10_000
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, tokenize.TokenError, ValueError, OSError, EOFError, LookupError, OverflowError,
    TypeError, SyntaxError, RuntimeError, MemoryError,
)  # fmt: skip


def read_their_results(path: Path) -> Iterator[tuple[NDArray[np.uint8], TheirResults]]:
    """Each image (H, W, 3), RGB, and boxes (N, 4), scores (N,) and labels (N,) that were found in it.

    Raises:
        DataNotFoundError, ModelFileError: no such file, or it holds something else.
    """
    if not path.is_file():
        raise DataNotFoundError(f"{path}: no such file of results")
    try:
        records = _records(path)
        with zipfile.ZipFile(path) as archive:
            number = 0
            while f"image_{number}.npy" in records:
                names = [f"{what}_{number}" for what in ("image", *_WHAT)]
                absent = next((name for name in names if f"{name}.npy" not in records), None)
                if absent is not None:
                    raise RefusedFileError(f"{absent} is missing")
                image, *found = (_read(archive, records[f"{name}.npy"], name) for name in names)
                yield _checked(number, image, dict(zip(_WHAT, found, strict=True)))
                number += 1
        if not number:
            raise RefusedFileError("has no image_0, boxes_0, scores_0 and labels_0")
    except RefusedFileError as error:
        raise ModelFileError(f"{path}: {error}") from None


def _records(path: Path) -> dict[str, zipfile.ZipInfo]:
    """What the zip lists, if it does not grow beyond all measure."""
    size = path.stat().st_size
    if size > _LARGEST_FILE:
        raise RefusedFileError(f"larger than {_LARGEST_FILE} bytes")
    data = map_file(path)
    if data[:2] != b"PK":
        raise RefusedFileError("is no .npz of plain arrays, but something else")
    refuse_long_directory(data)
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except _DAMAGED as error:
        raise RefusedFileError(f"is no .npz of plain arrays ({printable(error)})") from None
    whole = sum(record.file_size for record in records)
    if whole > min(max(_ALWAYS_ALLOWED, _TIMES_SMALLER * size), _LARGEST_FILE):
        raise RefusedFileError(f"its {size} bytes would become {whole}")
    return {record.filename: record for record in records}


def _read(archive: zipfile.ZipFile, record: zipfile.ZipInfo, name: str) -> NDArray[Any]:
    if record.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or record.flag_bits & 1:
        raise RefusedFileError(f"{name} is packed or encrypted in a way that NumPy does not write")
    try:
        return _array(archive, record, name)
    except _DAMAGED as error:
        raise RefusedFileError(f"is no .npz of plain arrays ({name}: {printable(error)})") from None


def _array(archive: zipfile.ZipFile, record: zipfile.ZipInfo, name: str) -> NDArray[Any]:
    with archive.open(record) as stream:
        read_header = _HEADERS[npy.read_magic(stream)]
        shape, columns_first, dtype = read_header(stream)
        count = _count(shape, dtype, record.file_size - stream.tell(), name)
        data = stream.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise RefusedFileError(f"{name} is cut short")
    found = np.frombuffer(data, dtype, count).reshape(shape, order="F" if columns_first else "C")
    return found.astype(dtype.newbyteorder("="))


def _count(shape: tuple[int, ...], dtype: np.dtype[Any], there: int, name: str) -> int:
    """How many numbers an array of a shape has, if they are `there` bytes."""
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise RefusedFileError(f"is no .npz of plain arrays ({name} is of {printable(dtype)})")
    count = math.prod(shape)
    length = count * dtype.itemsize
    if length > _LARGEST_ARRAY:
        raise RefusedFileError(f"{name} of shape {shape} has {length} bytes; {_LARGEST_ARRAY} are read")
    if min(shape, default=0) < 0 or length != there:
        raise RefusedFileError(f"{name} of shape {shape} should have {length} bytes, and has {there}")
    return count


def _checked(number: int, image: NDArray[Any], found: TheirResults) -> tuple[NDArray[np.uint8], TheirResults]:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise RefusedFileError(f"image_{number} is {image.shape} {image.dtype}, expected (H, W, 3) uint8")
    if not all(0 < side <= _LONGEST_SIDE for side in image.shape[:2]):
        raise RefusedFileError(f"image_{number} is {image.shape}; sides are from 1 to {_LONGEST_SIDE}")
    count = len(found["scores"]) if found["scores"].ndim else -1
    if found["boxes"].shape != (count, 4) or {found[name].shape for name in ("scores", "labels")} != {(count,)}:
        shapes = ", ".join(f"{name}_{number} {each.shape}" for name, each in found.items())
        raise RefusedFileError(f"{shapes}: expected (N, 4), (N,) and (N,)")
    if count > _MOST_DETECTIONS:
        raise RefusedFileError(f"scores_{number} are {count}; {_MOST_DETECTIONS} are compared")
    for name in ("boxes", "scores"):
        if not np.isfinite(found[name]).all():
            raise RefusedFileError(f"{name}_{number} has numbers that are not finite")
    return image, found
