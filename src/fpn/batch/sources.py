"""Where the images of a batch run come from: folders, globs, lists, Parquet files and tars, in a fixed order.

Nothing but the names of one shard is held at a time, so that ten million images take no more memory than a thousand.
"""

from __future__ import annotations

import glob
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from fpn.batch.arrow import pyarrow_parquet
from fpn.errors import ConfigError, DataError, DataNotFoundError
from fpn.files import leads_to_folder
from fpn.image_io import IMAGE_SUFFIXES, UNREAD_SUFFIXES, ImageBytes
from fpn.suggestions import nearest_path

# ResultColumns of a Parquet file that hold images, and that hold their names, unless told otherwise.
_IMAGES = ("image", "bytes", "content", "data", "jpg", "jpeg", "png", "path", "file_name", "filename", "file")
_NAMES = ("name", "key", "file_name", "filename", "path", "file", "id", "image_id")
_GLOB_SIGNS = frozenset("*?[")
# Of kinds that can't be read, too: each of these has a row with its error, as a damaged image has.
_PICTURES = IMAGE_SUFFIXES | UNREAD_SUFFIXES


@dataclass(frozen=True, slots=True)
class ImageItem:
    """One image of a source.

    Attributes:
        name: what the results call it: its path, or its place in the file that holds it.
        file: where it lies, or the file that holds it.
        place: (offset, size) in a tar, (row group, row in it) in a Parquet file; None: it is the file.
        column: of a Parquet file.
    """

    name: str
    file: str
    place: tuple[int, int] | None = None
    column: str = ""


def has_more(sources: Sequence[str], than: int, *, column: str | None = None) -> bool:
    """Whether the sources have more than so many images; no more than that are looked at, nor sorted.

    Args:
        sources, column: see `iterate_items`.
        than: so many.

    Raises:
        ConfigError, DataNotFoundError, DataError, MissingExtraError: as `iterate_items`.
    """
    return next(islice(iterate_items(sources, column=column, ordered=False), than, None), None) is not None


def iterate_items(sources: Sequence[str], *, column: str | None = None, ordered: bool = True) -> Iterator[ImageItem]:
    """All images of all sources, in an order that depends on names alone.

    Args:
        sources: files, folders, globs, `.txt` lists of paths, `.parquet` files, `.tar` files of images (WebDataset).
        column: of Parquet files that holds the images' bytes or paths; None: recognised by its name.
        ordered: False: as folders have them, of which no more is read than is asked for.

    Raises:
        ConfigError: no source is named.
        DataNotFoundError: one is not there, or holds no image.
        DataError: a list, Parquet file or tar can't be read.
        MissingExtraError: a Parquet file, without the extra `batch`.
    """
    if not sources:
        raise ConfigError("no images: name files, folders, globs, .txt lists, .parquet or .tar files")
    for source in sources:
        count = 0
        for file in _files(source, ordered=ordered):
            for item in _items(file, column):
                count += 1
                yield item
        if not count:
            raise DataNotFoundError(f"{source}: holds no image")


def _files(source: str, *, ordered: bool) -> Iterator[Path]:
    path = Path(source)
    if path.is_dir():
        yield from _in_folder(path, ordered=ordered)
    elif not path.exists() and _GLOB_SIGNS & set(source):
        matches = glob.iglob(source, recursive=True)  # noqa: PTH207  absolute ones
        yield from (Path(match) for match in (sorted(matches) if ordered else matches))
    elif path.exists() or path.is_symlink():
        yield path
    else:
        raise DataNotFoundError(f"{source}: no such file or folder.{nearest_path(source)}")


def _in_folder(folder: Path, *, ordered: bool, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """All files that may hold images, folder by folder, each sorted by name; hidden ones are left out, and so are links
    to a folder that the link is in (`above`: all of these, by device and number)."""
    own = folder.stat()
    within = above | {(own.st_dev, own.st_ino)}
    if within == above:
        return
    for name, is_folder in sorted(_inside(folder)) if ordered else _inside(folder):
        path = folder / name
        if is_folder:
            yield from _in_folder(path, ordered=ordered, above=within)
        elif path.suffix.lower() in _PICTURES | {".parquet", ".tar"}:
            yield path


def _inside(folder: Path) -> Iterator[tuple[str, bool]]:
    """Names, and whether they are folders."""
    with os.scandir(folder) as entries:
        yield from ((entry.name, leads_to_folder(entry)) for entry in entries if not entry.name.startswith("."))


def _items(file: Path, column: str | None) -> Iterator[ImageItem]:
    suffix = file.suffix.lower()
    if suffix == ".txt":
        yield from _in_list(file)
    elif suffix == ".parquet":
        yield from _in_parquet(file, column)
    elif suffix == ".tar":
        yield from _in_tar(file)
    elif file.name.lower().endswith((".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")):
        raise DataError(f"{file}: a compressed tar has no places to read from. Unpack it to a plain .tar.")
    else:
        yield ImageItem(str(file), str(file))


def _in_list(file: Path) -> Iterator[ImageItem]:
    """A path a line, relative to the list; empty lines and those that begin with # are left out."""
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for line in lines:
                text = line.strip()
                if text and not text.startswith("#"):
                    yield ImageItem(text, str(file.parent / text))
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: the list is not UTF-8 text. Save it again as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{file}: the list can't be read ({error})") from error


def _in_tar(file: Path) -> Iterator[ImageItem]:
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                if member.isfile() and Path(member.name).suffix.lower() in _PICTURES:
                    yield ImageItem(f"{file.name}/{member.name}", str(file), (member.offset_data, member.size))
                archive.members.clear()  # type: ignore[attr-defined]  # else it would remember all of them
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{file}: the tar can't be read ({error})") from error


def _in_parquet(file: Path, column: str | None) -> Iterator[ImageItem]:
    parquet = pyarrow_parquet(f"{file}: is a Parquet file")
    try:
        with parquet.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            chosen = _choose_column(file, names, column)
            named = next((name for name in _NAMES if name in names), None)
            for group in range(opened.num_row_groups):
                yield from _in_group(file, opened, group, chosen, named)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        if isinstance(error, DataError | ConfigError):
            raise
        raise DataError(f"{file}: the Parquet file can't be read ({error})") from error


def _in_group(file: Path, opened: Any, group: int, column: str, named: str | None) -> Iterator[ImageItem]:
    rows = opened.metadata.row_group(group).num_rows
    given = opened.read_row_group(group, columns=[named]).column(0).to_pylist() if named is not None else None
    for row in range(rows):
        own = None if given is None or not isinstance(given[row], str | int) else str(given[row])
        name = own or f"{file.name}/{group}/{row}"
        yield ImageItem(name, str(file), (group, row), column)


def _choose_column(file: Path, names: Sequence[str], column: str | None) -> str:
    if column is not None and column not in names:
        raise ConfigError(f"{file}: has no column {column!r}; it has {', '.join(names)}")
    chosen = column or next((name for name in _IMAGES if name in names), None)
    if chosen is None:
        raise ConfigError(f"{file}: which column holds the images? It has {', '.join(names)}. Say it by --column.")
    return chosen


@dataclass
class ItemReader:
    """Reads items; of Parquet files one row group is held, since its rows come one after the other."""

    _held: tuple[str, int] | None = None
    _values: Sequence[Any] = ()

    def __call__(self, item: ImageItem) -> Path | ImageBytes:
        """An image's bytes, or its path where it is a file of its own.

        Raises:
            DataError: it is not there any more.
        """
        if item.place is None:
            return Path(item.file)
        if not item.column:
            offset, size = item.place
            with Path(item.file).open("rb") as stream:
                stream.seek(offset)
                return ImageBytes(stream.read(size), item.name)
        return self._from_parquet(item, *item.place)

    def _from_parquet(self, item: ImageItem, group: int, row: int) -> Path | ImageBytes:
        if self._held != (item.file, group):
            with pyarrow_parquet(f"{item.file}: is a Parquet file").ParquetFile(item.file) as opened:
                self._values = opened.read_row_group(group, columns=[item.column]).column(0).to_pylist()
            self._held = (item.file, group)
        value = self._values[row]
        if isinstance(value, dict):  # as Hugging Face's datasets keep images
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return ImageBytes(value, item.name)
        if isinstance(value, str):
            path = Path(value)
            return path if path.is_absolute() else Path(item.file).parent / path
        return ImageBytes(b"", item.name)  # nothing there: said as of an empty file
