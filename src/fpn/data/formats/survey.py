"""What was found in a dataset's files, before anything is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fpn.data.issues import KINDS, Finding

if TYPE_CHECKING:
    from fpn.data.formats.table import TableDataset


def names_of(survey: Survey) -> list[str]:
    """The paths of a split's images, relative to the dataset's folder."""
    return [survey.name_of(row) for row in range(len(survey.dataset))]


@dataclass(frozen=True)
class Survey:
    """A split as it was read, with what only a check and a converter ask for.

    Attributes:
        dataset: what is left when broken entries are left out.
        boxes: (M, 4) float32, as `Table.boxes` but not cut at the image's edge.
        origins: (M,) what each object's file calls it: its number, line or id.
        describe: (image number, origin) -> where that object stands.
        image_extras, object_extras: what the files say beside what a `Dataset` holds.
        header: what a COCO json says beside its lists; `categories` by id.
    """

    dataset: TableDataset
    boxes: np.ndarray
    origins: np.ndarray
    describe: Callable[[int, int], str]
    image_extras: list[Mapping[str, Any]]
    object_extras: list[Mapping[str, Any]]
    header: Mapping[str, Any]

    def name_of(self, row: int) -> str:
        """The path of image number `row`, relative to the dataset's folder."""
        return self.dataset.table.names[row].decode("utf-8", "surrogateescape")

    def called(self, number: int) -> str:
        """Where object `number` of the table stands, and its class."""
        table = self.dataset.table
        row = int(np.searchsorted(table.starts.numpy(), number, side="right")) - 1
        name = self.dataset.classes[int(table.labels[number])]
        return f"{self.describe(row, int(self.origins[number]))} ({name})"


@dataclass
class Notes:
    """What the readers met. With one in their `Options` they go on where they would have stopped.

    Attributes:
        surveys: the splits, in the order in which they were read.
        used: real paths of the annotation files that were read, and of lists and names.
    """

    surveys: list[Survey] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    _found: dict[tuple[str, str], Finding] = field(default_factory=dict)

    def add(self, kind: str, message: str, file: str = "") -> None:
        """Note a finding; once, though two splits may hold it."""
        assert kind in KINDS, kind
        self._found.setdefault((kind, message), Finding(kind, message, file))

    @property
    def findings(self) -> list[Finding]:
        """All, in the order in which they were met."""
        return list(self._found.values())
