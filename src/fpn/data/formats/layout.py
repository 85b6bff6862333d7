"""What a format's reader says about a path: these splits are there, or why it is not one of mine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fpn.data.formats.table import TableDataset
from fpn.data.formats.table_builder import Options
from fpn.data.issues import Finding

# The one split of a dataset that is not divided.
WHOLE = "all"


@dataclass(frozen=True, slots=True)
class Layout:
    """A recognised dataset.

    Attributes:
        format: in words.
        splits: name -> a way to read it.
        findings: what was noticed while recognising it, such as files left aside.
        absent: splits that are named but whose images are not there, and where they should be.
    """

    format: str
    splits: Mapping[str, Callable[[Options], TableDataset]]
    findings: Sequence[Finding] = ()
    absent: Mapping[str, str] = field(default_factory=dict)


_SYNONYMS = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}


def plain_split(split: str) -> str:
    """`train`, `val` or `test` for whatever a tool calls them; other names without their year."""
    name = split.lower().rstrip("0123456789").rstrip("_-")
    return _SYNONYMS.get(name, name)
