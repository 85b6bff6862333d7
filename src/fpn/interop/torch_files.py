"""torch's files: a pickle, and beside it the numbers that its tensors refer to. They are mapped, not read.

Formats: `torch.save` since 1.6 writes a zip of uncompressed records, before it one file of pickles and numbers
(torch/serialization.py, `_save` and `_legacy_save`).
"""

from __future__ import annotations

import mmap
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fpn.interop.pickle_names import STORAGES
from fpn.interop.pickle_parts import (
    Known,
    RefusedFileError,
    StorageRef,
    TensorRef,
    count_numbers,
    printable,
    whole_numbers,
)
from fpn.interop.pickle_reader import read_pickle
from fpn.interop.plain_values import PlainValues

# A record of a zip is named in some 80 bytes; large checkpoints have some thousands of records.
_MOST_NAMES, _MOST_PICKLE = 2 * 2**20, 64 * 2**20
_END, _END_64 = b"PK\x05\x06", b"PK\x06\x06"
MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")


def map_file(path: Path) -> mmap.mmap:
    """A file's bytes, which take memory when they are looked at. Changes to them stay in memory.

    Raises:
        RefusedFileError: it is empty.
    """
    with path.open("rb") as stream:
        try:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        except ValueError:
            raise RefusedFileError("it is empty") from None


class Storages:
    """Where the numbers of a file lie.

    Attributes:
        data: the whole file.
        places: key -> (first byte, bytes).
        said: what the pickle said of each.
    """

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.places: dict[str, tuple[int, int]] = {}
        self.said: dict[str, StorageRef] = {}

    def refer(self, told: Any) -> StorageRef:
        """What stands for torch's persistent id: ("storage", type, key, device, numbers), and in old files a view.

        Raises:
            RefusedFileError: it is something else.
        """
        if not isinstance(told, tuple) or len(told) not in (5, 6) or told[0] != "storage":
            raise RefusedFileError("an object outside of its pickle that is no storage")
        kind, key = told[1], told[2]
        if not isinstance(kind, Known) or kind.name not in STORAGES or type(key) not in (str, int):
            raise RefusedFileError("a storage of an unknown type")
        (count,) = whole_numbers((told[4],), "a storage of numbers")
        whole = StorageRef(str(key), STORAGES[kind.name], count)
        before = self.said.setdefault(whole.key, whole)
        if before != whole:
            raise RefusedFileError(f"storage {printable(key)} is told twice, in different ways")
        view = told[5] if len(told) == 6 else None
        if view is None:
            return before
        if not isinstance(view, tuple) or len(view) != 3:
            raise RefusedFileError(f"storage {printable(key)} is a part of something unknown")
        first, part = whole_numbers(view[1:], "a part of a storage")
        if first + part > count:
            raise RefusedFileError(f"storage {printable(key)} is a part that reaches beyond the whole")
        return StorageRef(whole.key, whole.dtype, part, first)

    def load(self, tensor: TensorRef) -> Tensor:
        """A tensor on the mapped file.

        Raises:
            RefusedFileError: the file does not hold its numbers.
        """
        storage, dtype = tensor.storage, tensor.dtype
        if storage.key not in self.places:
            raise RefusedFileError(f"it lacks the numbers of storage {printable(storage.key)}: it is not whole")
        start, length = self.places[storage.key]
        width = 1 if storage.dtype is None else storage.dtype.itemsize
        told = self.said[storage.key].count * width
        if told != length:
            raise RefusedFileError(f"storage {printable(storage.key)} should have {told} bytes, and has {length}")
        numbers = count_numbers(tensor)
        if numbers == 0 or 0 in tensor.size:
            return torch.empty(tensor.size, dtype=dtype)
        start += storage.first * width
        flat = torch.frombuffer(self.data, dtype=dtype, count=numbers, offset=start)
        return flat.as_strided(tensor.size, tensor.stride, tensor.offset)

    def refuse_overlaps(self) -> None:
        """Stop where the same bytes are several storages, which a small file would become large by."""
        reached = 0
        for start, length in sorted(self.places.values()):
            if start < reached and length:
                raise RefusedFileError("two of its storages are the same bytes")
            reached = max(reached, start + length)


def read_torch_zip(path: Path) -> tuple[Any, Mapping[str, int]]:
    """The object that `torch.save` wrote, as plain values, and what was left out of it.

    Raises:
        RefusedFileError: it is damaged, hostile, or holds what is not data.
    """
    data = map_file(path)
    refuse_long_directory(data)
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error, zlib.error) as error:
        raise RefusedFileError(
            f"its zip is damaged or cut short ({printable(error)}). Copy or download it again"
        ) from None
    names = _names(records)
    prefix = next((name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")), None)
    if prefix is None or prefix.count("/") != 1:
        raise RefusedFileError("a zip that torch.save did not write: it has no NAME/data.pkl")
    if any(name.startswith(f"{prefix}code/") for name in names):
        raise RefusedFileError("a TorchScript program, not weights. Save its state_dict where it was made")
    _refuse_other_order(data, names.get(f"{prefix}byteorder"))
    start, length = _place(data, names[f"{prefix}data.pkl"])
    if length > _MOST_PICKLE:
        raise RefusedFileError(f"its pickle has {length} bytes beside the numbers; {_MOST_PICKLE} are allowed")
    storages = Storages(data)
    said, _ = read_pickle(memoryview(data)[start : start + length], persistent=storages.refer)
    for key in storages.said:
        record = names.get(f"{prefix}data/{key}")
        if record is not None:
            storages.places[key] = _place(data, record)
    storages.refuse_overlaps()
    plain = PlainValues(storages.load)
    return plain.read(said), plain.skipped


def _names(records: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    names: dict[str, zipfile.ZipInfo] = {}
    for record in records:
        name = record.filename
        if name in names:
            raise RefusedFileError(f"its zip has {printable(name)} twice")
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise RefusedFileError(f"its zip has a record {printable(name)}, which leads out of it")
        names[name] = record
    return names


def refuse_long_directory(data: mmap.mmap) -> None:
    """A zip's list of records is read as a whole: not more of it than any checkpoint has.

    Raises:
        RefusedFileError: it is longer, or has no end.
    """
    end = data.rfind(_END, max(0, len(data) - 65_557))
    if end < 0 or end + 22 > len(data):
        raise RefusedFileError(
            "its zip is cut short: the end of it is missing. Copy or download it again, and compare its size with "
            "the source's"
        )
    (size,) = struct.unpack_from("<I", data, end + 12)
    wide = data.rfind(_END_64, max(0, end - 4096), end)
    if wide >= 0 and wide + 56 <= len(data):
        size = max(size if size != 0xFFFFFFFF else 0, *struct.unpack_from("<Q", data, wide + 40))
    if size > _MOST_NAMES:
        raise RefusedFileError(f"its zip has a list of records of {size} bytes; {_MOST_NAMES} are allowed")


def _place(data: mmap.mmap, record: zipfile.ZipInfo) -> tuple[int, int]:
    """First byte and number of bytes of a record."""
    name = printable(record.filename)
    if record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 0x1:
        raise RefusedFileError(f"its record {name} is compressed or encrypted; torch.save writes it plainly")
    start = record.header_offset
    if start < 0 or start + 30 > len(data) or data[start : start + 4] != b"PK\x03\x04":
        raise RefusedFileError(f"its record {name} is not where its zip says")
    letters, extra = struct.unpack_from("<HH", data, start + 26)
    start += 30 + letters + extra
    if record.file_size != record.compress_size or start + record.file_size > len(data):
        raise RefusedFileError(f"its record {name} reaches beyond the end of the file")
    return start, record.file_size


def _refuse_other_order(data: mmap.mmap, record: zipfile.ZipInfo | None) -> None:
    if record is None:
        return
    start, length = _place(data, record)
    if bytes(data[start : start + min(length, 16)]) != b"little":
        raise RefusedFileError("its numbers are big-endian. Save it again on a little-endian machine")


def read_torch_legacy(path: Path) -> tuple[Any, Mapping[str, int]]:
    """As `read_torch_zip`, from the format before torch 1.6.

    Raises:
        RefusedFileError: it is damaged, hostile, or holds what is not data.
    """
    data = map_file(path)
    view = memoryview(data)
    storages = Storages(data)
    protocol, at = read_pickle(view, len(MAGIC))
    if protocol != 1001:
        raise RefusedFileError(f"torch's format {printable(protocol)}; known is 1001")
    system, at = read_pickle(view, at)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise RefusedFileError("its numbers are big-endian. Save it again on a little-endian machine")
    said, at = read_pickle(view, at, persistent=storages.refer)
    keys, at = read_pickle(view, at)
    if not isinstance(keys, list) or len(set(map(str, keys))) != len(keys):
        raise RefusedFileError("its list of storages is damaged")
    for key in map(str, keys):
        if key not in storages.said:
            raise RefusedFileError(f"it holds storage {printable(key)}, which nothing refers to")
        at = _legacy_place(data, at, key, storages)
    plain = PlainValues(storages.load)
    return plain.read(said), plain.skipped


def _legacy_place(data: mmap.mmap, at: int, key: str, storages: Storages) -> int:
    """Note where a storage lies, and give where it ends: its numbers are counted first, in 8 bytes."""
    if at + 8 > len(data):
        raise RefusedFileError(f"it ends before storage {printable(key)}: it is not whole")
    count: int = struct.unpack_from("<q", data, at)[0]
    said = storages.said[key]
    width = 1 if said.dtype is None else said.dtype.itemsize
    if count != said.count or at + 8 + count * width > len(data):
        raise RefusedFileError(
            f"storage {printable(key)} should have {said.count} numbers, and has {count}, or fewer: cut short"
        )
    storages.places[key] = at + 8, count * width
    return at + 8 + count * width
