"""A checkpoint of any toolkit as plain values: dicts, lists, texts, numbers, tensors, arrays. No code of it is run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from fpn.errors import DataNotFoundError, ModelFileError
from fpn.interop.hdf5_files import HDF5_MAGIC, read_hdf5
from fpn.interop.pickle_parts import RefusedFileError
from fpn.interop.pickle_reader import read_pickle
from fpn.interop.plain_values import PlainValues
from fpn.interop.torch_files import MAGIC, map_file, read_torch_legacy, read_torch_zip
from fpn.interop.weight_names import meant


@dataclass(frozen=True)
class CheckpointContent:
    """What a file holds.

    Attributes:
        value: plain values; numbers lie in the mapped file and take memory when they are read.
        form: of the file, in a word or two.
        skipped: how many objects of which class were left out, such as records of a training.
    """

    value: Any
    form: str
    skipped: Mapping[str, int]


def read_checkpoint_file(path: str | os.PathLike[str]) -> CheckpointContent:
    """Read a file of torch (`.pth`, `.pt`), Python (`.pkl`), Keras (`.h5`) or safetensors, told by its first bytes.

    Raises:
        DataNotFoundError: no such file.
        ModelFileError: it is damaged, of another kind, or refers to something that is not data.
        MissingExtraError: it is Keras', and h5py is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise DataNotFoundError(f"{path}: no such file.{meant(str(path))}")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no file"
        raise ModelFileError(f"{path}: is {kind}; a checkpoint is a file, such as model_final.pkl or epoch_12.pth")
    try:
        form, read = _form(path)
        value, skipped = read(path)
    except RefusedFileError as refusal:
        raise ModelFileError(f"{path}: {refusal}.") from None
    except PermissionError as error:
        raise ModelFileError(f"{path}: no permission to read it") from error
    return CheckpointContent(value, form, skipped)


Reader = Callable[[Path], tuple[Any, Mapping[str, int]]]


def _form(path: Path) -> tuple[str, Reader]:
    with path.open("rb") as stream:
        start = stream.read(len(MAGIC))
    if not start:
        raise RefusedFileError("it is empty; download or save it again")
    if start[:4] == b"PK\x03\x04":
        return "torch", read_torch_zip
    if start == MAGIC:
        return "torch before 1.6", read_torch_legacy
    if start.startswith(HDF5_MAGIC):
        return "HDF5", read_hdf5
    if start[8:9] == b"{":
        return "safetensors", _read_safetensors
    if start[:1] == b"\x80" or (start[:1].isascii() and start and path.suffix in (".pkl", ".pickle")):
        return "pickle", _read_pickle
    raise RefusedFileError(
        "is none of the files that are read: torch's (.pth, .pt), Python's (.pkl), Keras' (.h5), .safetensors. Its "
        f"first bytes are {start[:8].hex(' ')}"
    )


def _read_safetensors(path: Path) -> tuple[Any, Mapping[str, int]]:
    try:
        with safe_open(path, framework="pt") as stored:
            if "fpn" in (stored.metadata() or {}):
                raise RefusedFileError("a model of fpn already: predict, evaluate and train --init take it as it is")
        return load_file(path), {}
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise RefusedFileError(f"its safetensors are damaged ({str(error)[:200]})") from None


def _read_pickle(path: Path) -> tuple[Any, Mapping[str, int]]:
    said, _ = read_pickle(memoryview(map_file(path)))
    plain = PlainValues()
    return plain.read(said), plain.skipped
