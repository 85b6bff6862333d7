"""Keras' `.h5` files: arrays by name, on the mapped file."""

from __future__ import annotations

import json
import math
import mmap
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpn.errors import MissingExtraError
from fpn.interop import hdf5_outline
from fpn.interop.keras_layers import Place, name_arrays
from fpn.interop.pickle_parts import RefusedFileError, printable
from fpn.interop.torch_files import map_file

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# Files of detectors take a second. The process ends itself after 10 seconds of the processor at most, and after one of
# a small file; this is for a busy one.
_MOST_SECONDS = 120
_OUT_OF_TIME = -27  # ended by its own alarm, SIGPROF


def read_hdf5(path: Path) -> tuple[dict[str, NDArray[Any]], Mapping[str, int]]:
    """Arrays by Keras' names, such as "conv1/conv1/kernel:0", and how many arrays of optimizers were left out.

    Raises:
        RefusedFileError: it is damaged, refers to something outside, or is not as Keras writes it.
        MissingExtraError: h5py is not installed.
    """
    if find_spec("h5py") is None:
        raise MissingExtraError(f"{path}: .h5 files are read by h5py. pip install 'fpn[keras]' brings it.")
    data = map_file(path)
    told = _outline(path)
    if "refused" in told:
        raise RefusedFileError(told["refused"])
    arrays: dict[Place, NDArray[Any]] = {}
    total = 0
    for place, dtype, shape, start in told["arrays"]:
        arrays[tuple(place)] = found = _array(data, place, np.dtype(dtype), tuple(shape), start)
        total += found.nbytes
        if total > len(data):
            raise RefusedFileError(f"{printable('/'.join(place))} shares numbers with others")
    return name_arrays(arrays, {tuple(place): title for place, title in told["titles"]})


def _outline(path: Path) -> dict[str, Any]:
    """What `hdf5_outline` says of a file, in a process of its own."""
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", str(Path(hdf5_outline.__file__)), str(path.absolute())]
    try:
        done = subprocess.run(command, env=surroundings, capture_output=True, timeout=_MOST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise RefusedFileError(f"its HDF5 can't be read in {_MOST_SECONDS} seconds: it is damaged") from None
    if done.returncode == _OUT_OF_TIME:
        raise RefusedFileError("libhdf5 finds no end in it: it is damaged")
    if done.returncode:
        said = printable(done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2])
        raise RefusedFileError(f"libhdf5 could not read it to an end (status {done.returncode}; {said or 'no word'})")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _array(data: mmap.mmap, place: list[str], dtype: np.dtype[Any], shape: tuple[int, ...], start: int) -> NDArray[Any]:
    size = math.prod(shape) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    if start < 0 or start + size > len(data):
        shown = printable("/" + "/".join(place))
        raise RefusedFileError(f"{shown} of shape {shape} does not fit into its {len(data)} bytes")
    found = np.frombuffer(data, dtype, math.prod(shape), start).reshape(shape)
    return np.require(found if dtype.isnative else found.astype(dtype.newbyteorder("=")), requirements="A")
