"""Apache Arrow, which is an extra, and the columns of what was found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from fpn.errors import MissingExtraError
from fpn.files import atomic_path

ResultColumns = dict[str, list[Any]]


def pyarrow_parquet(why: str) -> Any:
    """The module `pyarrow.parquet`.

    Raises:
        MissingExtraError: it is not installed; the message begins with `why`.
    """
    try:
        return import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtraError(f"{why}, which needs the extra `batch`: pip install 'fpn[batch]'") from error


def write_columns(columns: Mapping[str, Sequence[Any]], path: Path, about: Mapping[str, Any]) -> None:
    """Write columns as one Parquet file, whole or not at all; equal columns make equal bytes.

    Args:
        columns: as `BatchWorker` gives them.
        path: the file.
        about: goes into the file's metadata, under "fpn".
    """
    parquet = pyarrow_parquet(f"{path}: is a Parquet file")
    pyarrow = import_module("pyarrow")
    fields = _fields(pyarrow)
    schema = pyarrow.schema([(name, fields[name]) for name in columns])
    schema = schema.with_metadata({"fpn": json.dumps(about, sort_keys=True)})
    with atomic_path(path) as temporary:
        parquet.write_table(pyarrow.table(dict(columns), schema=schema), temporary, compression="zstd")


def _fields(pyarrow: Any) -> dict[str, Any]:
    numbers = pyarrow.list_(pyarrow.float32())
    return {
        "name": pyarrow.string(),
        "width": pyarrow.int32(),
        "height": pyarrow.int32(),
        "error": pyarrow.string(),
        "boxes": pyarrow.list_(pyarrow.list_(pyarrow.float32(), 4)),
        "scores": numbers,
        "labels": pyarrow.list_(pyarrow.string()),
        "category_ids": pyarrow.list_(pyarrow.int64()),
        "masks": pyarrow.list_(pyarrow.string()),
        "keypoints": pyarrow.list_(numbers),
    }
