"""Results as CSV, for spreadsheets and data frames: one header, one row a thing, numbers with a point.

UTF-8 with a byte order mark: without one, a well-known spreadsheet shows every letter beyond ASCII as two others.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fpn.errors import OutputError
from fpn.files import atomic_path, maker, refuse_unwritable, taken

# What makes a spreadsheet take a cell for a formula, which may fetch or run something: names come from anyone's files.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
# Columns of paths. Programs join tables by them, so they must still name the file: `./=1.png` is `=1.png`.
_PATHS = frozenset({"file", "file_name", "image"})
# Of detections: boxes in pixels of the upright image, from its left upper corner.
DETECTION_COLUMNS = (
    "file_name", "image_id", "class", "category_id", "score", "x_min", "y_min", "x_max", "y_max",
)  # fmt: skip


def write_csv(
    target: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> Path:
    """Write a table, atomically; None and what a row lacks are empty cells.

    Text that a spreadsheet would take for a formula gets an apostrophe before it, and a path `./`.

    Args:
        target: the file.
        rows: column -> value.
        columns: in order; None: as the rows have them, the first row's first.

    Raises:
        OutputError: the file can't be written.
    """
    rows = list(rows)
    columns = columns or list(dict.fromkeys(name for row in rows for name in row))
    with csv_rows(target, columns) as write:
        for row in rows:
            write(row)
    return Path(target)


@contextmanager
def csv_rows(target: str | os.PathLike[str], columns: Sequence[str]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """As `write_csv`, a row at a time, for tables that need not fit into memory; the file has its name at the end."""
    # Bytes of a file's name that are no letters become question marks. Spreadsheets and pandas read either end of a
    # line; a terminal's tools want this one.
    with (
        atomic_path(target) as temporary,
        temporary.open("w", encoding="utf-8", errors="replace", newline="") as stream,
    ):
        stream.write("\ufeff")
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()

        def write(row: Mapping[str, Any]) -> None:
            writer.writerow({name: _inert(name, value) for name, value in row.items()})

        yield write


def _inert(column: str, value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    return f"./{value}" if column in _PATHS else f"'{value}"


def beside(target: str | os.PathLike[str]) -> Path:
    """The name of the CSV of a JSON file: the same with another suffix."""
    return Path(target).with_suffix(".csv")


def refuse_others(target: Path | None, by: str = "", *endings: str) -> None:
    """Stop before the work if figures would replace what the same command did not write.

    Args:
        target: the JSON file; None: nothing will be written.
        by: the command that may replace its own earlier figures, such as "fpn evaluate"; "": none may.
        endings: of more tables beside it than its CSV, such as "-images.csv".

    Raises:
        OutputError: there is such a file, the JSON itself is called .csv or is a folder, or can't be written.
    """
    if target is None:
        return
    if target.is_dir():
        raise OutputError(f"{target}: is a folder. Name a file, such as {target / 'figures.json'}.")
    if target.suffix.lower() == ".csv":
        raise OutputError(f"{target}: this is the JSON file; a .csv is written beside it. Call it .json.")
    if target.exists() and not (by and maker(target) == by):
        raise taken(target, "file", by=by)
    for table in (beside(target), *(target.with_name(f"{target.stem}{ending}") for ending in endings)):
        if table.exists() and not target.exists():
            raise OutputError(
                f"{table}: is already there, and {target.name}, beside which it would be written, is not. Move it, or "
                "choose another name."
            )
    refuse_unwritable(target)


def detection_row(record: Mapping[str, Any], file_name: str, class_name: str) -> dict[str, Any]:
    """A COCO result record as a row of `DETECTION_COLUMNS`."""
    x, y, width, height = record["bbox"]
    corners = dict(zip(("x_min", "y_min", "x_max", "y_max"), (x, y, x + width, y + height), strict=True))
    return {
        "file_name": file_name,
        "image_id": record["image_id"],
        "class": class_name,
        "category_id": record["category_id"],
        "score": round(record["score"], 6),
        **{name: round(value, 3) for name, value in corners.items()},
    }
