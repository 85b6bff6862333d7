"""From one format to another, and a repaired copy in the same."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fpn.data.formats.files import enumerate_issues
from fpn.data.formats.open import Surveyed, survey_dataset
from fpn.data.formats.survey import names_of
from fpn.data.formats.write import Family, write
from fpn.data.formats.writer import parts_of, refuse_filled, unique_names
from fpn.data.issues import INVALID_BOXES, KINDS
from fpn.data.limits import Limits
from fpn.data.progress import Progress
from fpn.data.tile_cutting import TileCutter, TileSettings
from fpn.errors import DataError


@dataclass(frozen=True)
class ConvertedDataset:
    """What was written.

    Attributes:
        folder: where it is.
        splits: name -> number of images.
        losses: what the format can't hold.
        renamed: old path -> new name, of images whose name had to change.
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
    images: str | os.PathLike[str] | None = None,
    limits: Limits | None = None,
    bar: Progress | None = None,
    tiles: TileSettings | None = None,
) -> ConvertedDataset:
    """Write a dataset in another format; images are copied as they are, or cut into tiles.

    Args:
        path: see `open_dataset`.
        target: the format.
        output: a new or empty folder.
        split: one of them; None: all.
        images: see `open_dataset`.
        limits: see `open_dataset`.
        bar: shows how many images were written.
        tiles: write the images' tiles, each with what it shows of the objects; None: the images.

    Raises:
        DataError, DataNotFoundError: as `open_dataset`, for any error in any split.
        OutputError: the folder is not empty, or can't be written.
    """
    refuse_filled(Path(output))
    surveyed = survey_dataset(path, split=split, images=images, limits=limits)
    refuse_broken(surveyed, Path(path))
    names = unique_names([name for survey in surveyed.splits.values() for name in names_of(survey)])
    root = next(iter(surveyed.splits.values())).dataset.root
    parts = parts_of(surveyed.splits, surveyed.family, names)
    if tiles is None:
        losses = write(parts, root, target, Path(output), bar=bar)
    else:
        accepted = limits or Limits()
        with TileCutter(tiles, accepted.image_pixels, accepted.image_bytes) as cutter:
            datasets = [survey.dataset for survey in surveyed.splits.values()]
            sizes = [[dataset.size(row) for row in range(len(dataset))] for dataset in datasets]
            parts = [cutter.split(part, each, names) for part, each in zip(parts, sizes, strict=True)]
            losses = [*write(parts, root, target, Path(output), bar=bar), *cutter.losses()]
    renamed = {old: new for old, new in names.items() if Path(old).name != new}
    return ConvertedDataset(Path(output), {part.name: len(part.sources) for part in parts}, losses, renamed)


def refuse_broken(surveyed: Surveyed, path: Path, *, drop_invalid: bool | None = None) -> int:
    """Stop at what would stop `open_dataset`; how many invalid boxes there are, if they may be left out.

    Args:
        surveyed: what was read.
        path: where it was read.
        drop_invalid: whether they may; None: nobody can say so.

    Raises:
        DataError: anything else is wrong, or there is nothing.
    """
    found = [finding for finding in surveyed.findings if KINDS[finding.kind].severity == "error"]
    errors = [finding.message for finding in found if not (drop_invalid and finding.kind in INVALID_BOXES)]
    droppable = sum(finding.kind in INVALID_BOXES for finding in found)
    if errors:
        remedy = f"See all with `fpn check {path}`; `fpn check {path} --fix OUT` writes a repaired copy."
        if drop_invalid is False and droppable:
            remedy += " --drop-invalid leaves invalid boxes out."
        raise DataError(enumerate_issues(f"{path}: {len(errors)} faults:", errors, remedy))
    if not surveyed.splits:
        raise DataError(f"{path}: nothing to convert")
    return droppable
