"""`fpn split`: one folder of labelled images divided into train, val and test."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fpn.cli import paths
from fpn.cli.options import LimitOptions
from fpn.cli.terminal import progress_bar, say, say_renamed, say_warning
from fpn.wording import counted

if TYPE_CHECKING:
    from fpn.data.split import Division, WrittenDivision
    from fpn.studies.tables import TextTable

# Rows of classes that are shown.
_CLASSES = 30


def run(
    data: Annotated[Path, paths.DATA],
    output: Annotated[Path, Parameter(name="OUT")],
    /,
    *,
    validation: float = 0.2,
    test: float = 0.0,
    by_group: str | None = None,
    similar: bool = True,
    seed: int = 0,
    split: str | None = None,
    to: Literal["coco", "voc", "yolo"] | None = None,
    copy: bool = False,
    drop_invalid: bool = False,
    images: Annotated[Path | None, paths.folder("--images")] = None,
    limits: Annotated[LimitOptions | None, Parameter(name="*", group="Limits")] = None,
) -> None:
    """Divide a dataset into train, val and test, so that each has its share of every class.

    A new folder is written; DATA stays as it is. `fpn train DATA --validation-share 0.2` divides in the same way, but
    writes nothing.

    Args:
        data: A folder or file in COCO, VOC, YOLO or LabelMe format.
        output: A new or empty folder.
        validation: Share of the images for val. 0: no val.
        test: Share of the images for test. 0: no test. The rest is train.
        by_group: Regular expression that is searched for in each image's path. Images in which it finds the same, or
            in which its groups do, stay together, such as all frames of a film: "(film[0-9]+)_".
        similar: Keep images together that look alike. All of them are read for it.
        seed: Another one divides otherwise.
        split: Divide this split of DATA. None: the only one, else all, else trainval.
        to: The format to write. None: that of DATA.
        copy: Copy images. Else they are linked (hard links), which takes no space, where that can be done.
        drop_invalid: Leave out boxes that are empty, not finite or outside of their image, and count them.
        images: Folder of the images, if they lie elsewhere than their annotations.
    """
    from fpn.data.split import split_dataset

    written = split_dataset(
        data,
        output,
        validation=validation,
        test=test,
        by_group=by_group,
        similar=similar,
        seed=seed,
        split=split,
        target=to,
        copy=copy,
        drop_invalid=drop_invalid,
        images=images,
        limits=(limits or LimitOptions()).limits(),
        looking=partial(progress_bar, "looking"),
        writing=partial(progress_bar, "writing"),
    )
    say(division_table(written.division).rich())
    say()
    _report(written)


def _report(written: WrittenDivision) -> None:
    for remark in written.division.remarks:
        say_warning(remark)
    for loss in written.losses:
        say_warning(f"not kept: {loss}")
    say_renamed(written.renamed)
    count = len(written.division.counts)
    how = {0: "copied", count: "linked, which takes no space"}.get(written.linked, f"{written.linked} linked")
    say(f"{written.folder}: {written.format.upper()}, {counted(count, 'image')}, {how}")
    parts = written.division.parts
    command = ["fpn", "train", str(written.folder), "--output", "NEW-FOLDER"]
    say(f"Next: {shlex.join(command)}" + ("" if "val" in parts else "  (there is no val to validate on)"))


def division_table(division: Division, *, most: int = _CLASSES) -> TextTable:
    """Images and objects of each class in each part, with what share of all they are; `most`: rows of classes."""
    from fpn.studies.tables import TextTable

    parts = list(division.parts)
    objects = {part: division.objects(part) for part in parts}
    images = {part: division.images(part) for part in parts}
    totals = [sum(objects[part][k] for part in parts) for k in range(len(division.classes))]
    rows = [("images", *_cells([len(rows) for rows in division.parts.values()]))]
    rows.append(("objects", *_cells([sum(objects[part]) for part in parts])))
    order = sorted(range(len(division.classes)), key=lambda k: -totals[k])
    for k in order[:most]:
        cells = _cells([objects[part][k] for part in parts], [images[part][k] for part in parts])
        rows.append((division.classes[k], *cells))
    rest = len(order) - most
    notes = (
        (f"... {rest} more classes with {sum(totals[k] for k in order[most:])} objects together",) if rest > 0 else ()
    )
    return TextTable(
        title="Parts: images, objects, and objects of each class (in how many images)",
        columns=("", *(f">{part}" for part in parts)),
        rows=tuple(rows),
        notes=notes,
    )


def _cells(counts: list[int], images: list[int] | None = None) -> list[str]:
    whole = max(sum(counts), 1)
    cells = [f"{count} {100 * count / whole:3.0f} %" for count in counts]
    return cells if images is None else [f"{cell} ({count})" for cell, count in zip(cells, images, strict=True)]
