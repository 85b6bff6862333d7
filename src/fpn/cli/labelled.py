"""Opening what is to be learned from: a few invalid boxes are left out without being asked, and it is told, once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpn.cli.terminal import say, say_warning
from fpn.wording import counted

if TYPE_CHECKING:
    from fpn.data import Dataset

# Share of a dataset's boxes that may be left out as invalid without being asked for.
_FEW_INVALID = 0.01


def open_labelled(path: Path, *, asked: bool, speaks: bool, **options: Any) -> tuple[Dataset, bool]:
    """A dataset, and whether invalid boxes were left out of it without being asked.

    Args:
        path: a folder or file in COCO, VOC, YOLO or LabelMe format.
        asked: whether somebody said what to do about invalid boxes (`drop_invalid`).
        speaks: whether what was read is said.
        options: as `open_dataset` takes them.

    Raises:
        DataError: as `open_dataset`, also where more than one box in a hundred is invalid.
    """
    from fpn.data import open_dataset

    dataset = open_dataset(path, **(options if asked else {**options, "drop_invalid": True}))
    if asked or not dataset.dropped:
        if speaks:
            _say_about(dataset, "invalid boxes dropped")
        return dataset, False
    total = len(dataset.dropped) + sum(len(dataset.targets(index).labels) for index in range(len(dataset)))
    if len(dataset.dropped) > _FEW_INVALID * total:
        return open_dataset(path, **{**options, "drop_invalid": False}), False  # stops, and names them
    if speaks:
        _say_about(dataset, f"of {total} boxes are invalid and left out (--no-drop-invalid stops at them instead)")
    return dataset, True


def _say_about(dataset: Dataset, left_out: str) -> None:
    """What was read, and what was left out of it."""
    from fpn.data.checks.classes import some

    classes = f"{counted(len(dataset.classes), 'class')} ({some(dataset.classes.names)})"
    say(f"{dataset.name}: {counted(len(dataset), 'image')}, {classes}")
    for remark in dataset.remarks:
        say_warning(remark)
    if dataset.dropped:
        say_warning(f"{dataset.name}: {len(dataset.dropped)} {left_out}: {some(dataset.dropped, 2)}")
