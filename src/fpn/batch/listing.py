"""The images of a batch run, listed once: a folder of millions is neither read nor sorted again, and a file that comes
while the run goes on can't shift the others to other shards.

The list lies compressed in a file without a name, so that it takes no memory.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import IO

from fpn.batch.shards import NumberedItems
from fpn.batch.sources import ImageItem, iterate_items
from fpn.errors import OutputError

# Items of a line of the file.
_TOGETHER = 1000


@dataclass(frozen=True)
class Listing:
    """What a run has before it.

    Attributes:
        images: how many.
        digest: of all their names, in order.
        kept: the list.
    """

    images: int
    digest: str
    kept: IO[bytes]

    def shards(self, size: int) -> int:
        """How many there are of `size` images each."""
        return -(-self.images // size)

    def items(self) -> Iterator[ImageItem]:
        """All of them, in order."""
        self.kept.seek(0)
        with gzip.GzipFile(fileobj=self.kept, mode="rb") as lines:
            for line in lines:
                for name, file, place, column in json.loads(line):
                    yield ImageItem(name, file, None if place is None else (place[0], place[1]), column)

    def pick(self, size: int, missing: frozenset[int]) -> Iterator[NumberedItems]:
        """The shards that are missing, of `size` images each."""
        items, number = self.items(), 0
        while shard := list(islice(items, size)):
            if number in missing:
                yield number, shard
            number += 1


@contextmanager
def list_items(sources: Sequence[str], column: str | None) -> Iterator[Listing]:
    """List the images, count them and take the digest of their names.

    Args:
        sources, column: see `iterate_items`.

    Raises:
        OutputError: there is no room for the list.
        ConfigError, DataError, DataNotFoundError, MissingExtraError: as `iterate_items`.
    """
    with tempfile.TemporaryFile() as kept:
        digest, count = hashlib.sha256(), 0
        try:
            with gzip.GzipFile(fileobj=kept, mode="wb", compresslevel=1) as lines:
                for some in _parts(iterate_items(sources, column=column)):
                    count += len(some)
                    for item in some:
                        digest.update(item.name.encode("utf-8", "surrogateescape") + b"\0")
                    rows = [(item.name, item.file, item.place, item.column) for item in some]
                    lines.write(json.dumps(rows).encode("ascii") + b"\n")
            kept.flush()
        except OSError as error:
            if isinstance(error, FileNotFoundError) or error.filename is not None:
                raise  # of a source
            raise OutputError(
                f"{tempfile.gettempdir()}: the list of images can't be kept there ({error.strerror}). Make room, or "
                "set TMPDIR to another folder."
            ) from error
        yield Listing(count, digest.hexdigest(), kept)


def _parts(items: Iterable[ImageItem]) -> Iterator[list[ImageItem]]:
    coming = iter(items)
    while some := list(islice(coming, _TOGETHER)):
        yield some
