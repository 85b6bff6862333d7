"""From one format to another, and a repaired copy in the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from fpn.data.checks import Bar, names_of, no_bar
from fpn.data.faults import KINDS
from fpn.data.formats import Surveyed, survey_dataset
from fpn.data.reading import Limits, enumerate_faults
from fpn.data.writing import Losses, Part, new_folder, parts_of, refuse_filled, unique_names
from fpn.data.writing_coco import write_coco
from fpn.data.writing_voc import write_voc
from fpn.data.writing_yolo import write_yolo
from fpn.errors import DataError

Family: TypeAlias = Literal["coco", "voc", "yolo"]
_Writer: TypeAlias = Callable[[Sequence[Part], Path, Path, Losses, Callable[[], None]], None]
WRITERS: Mapping[str, _Writer] = {"coco": write_coco, "voc": write_voc, "yolo": write_yolo}


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        folder: where it is.
        splits: name -> number of pictures.
        losses: what the format can't hold.
        renamed: old path -> new name, of pictures whose name had to change.
    """

    folder: Path
    splits: Mapping[str, int]
    losses: Sequence[str]
    renamed: Mapping[str, str]


def convert(
    path: str | os.PathLike[str],
    target: Family,
    output: str | os.PathLike[str],
    *,
    split: str | None = None,
    limits: Limits | None = None,
    bar: Bar | None = None,
) -> Converted:
    """Write a dataset in another format; pictures are copied as they are.

    Args:
        path: see `open_dataset`.
        target: the format.
        output: a new or empty folder.
        split: one of them; None: all.
        limits: see `open_dataset`.
        bar: shows how many pictures were written.

    Raises:
        DataError, DataNotFoundError: as `open_dataset`, for any error in any split.
        OutputError: the folder is not empty, or can't be written.
    """
    refuse_filled(Path(output))
    surveyed = survey_dataset(path, split=split, limits=limits)
    _refuse_broken(surveyed, Path(path))
    names = unique_names([name for survey in surveyed.splits.values() for name in names_of(survey)])
    root = next(iter(surveyed.splits.values())).dataset.root
    parts = parts_of(surveyed.splits, surveyed.family, names)
    losses = write(parts, root, target, Path(output), bar=bar)
    renamed = {old: new for old, new in names.items() if Path(old).name != new}
    return Converted(Path(output), {part.name: len(part.sources) for part in parts}, losses, renamed)


def write(
    parts: Sequence[Part],
    root: Path,
    target: str,
    output: Path,
    *,
    bar: Bar | None = None,
    notes: Callable[[Sequence[str]], str] | None = None,
) -> list[str]:
    """Write splits to a new folder and say what was lost; `notes`: losses -> the text of CHANGES.txt in it."""
    losses = Losses()
    number = 0
    with new_folder(output) as draft, (bar or no_bar)(sum(len(part.sources) for part in parts)) as progress:

        def done() -> None:
            nonlocal number
            number += 1
            progress(number)

        WRITERS[target](parts, root, draft, losses, done)
        if notes is not None:
            (draft / "CHANGES.txt").write_text(notes(losses.lines()), encoding="utf-8")
    return losses.lines()


def _refuse_broken(surveyed: Surveyed, path: Path) -> None:
    errors = [finding.message for finding in surveyed.findings if KINDS[finding.kind].severity == "error"]
    if errors:
        remedy = f"See all with `fpn check {path}`; `fpn check {path} --fix OUT` writes a repaired copy."
        raise DataError(enumerate_faults(f"{path}: {len(errors)} faults:", errors, remedy))
    if not surveyed.splits:
        raise DataError(f"{path}: nothing to convert")
