"""What a format's reader says about a path: these splits are there, or why it is not one of mine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fpn.data.formats.table import TableDataset
from fpn.data.formats.table_builder import Options

# The one split of a dataset that is not divided.
WHOLE = "all"


@dataclass(frozen=True, slots=True)
class Layout:
    """A recognised dataset: its format in words, and a way to read each of its splits."""

    format: str
    splits: Mapping[str, Callable[[Options], TableDataset]]
