"""Datasets written in a format: the one table of writers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from fpn.data.formats.coco_writer import write_coco
from fpn.data.formats.voc_writer import write_voc
from fpn.data.formats.writer import Losses, Part, new_folder
from fpn.data.formats.yolo_writer import write_yolo
from fpn.data.progress import Progress, no_bar

Family: TypeAlias = Literal["coco", "voc", "yolo"]
_Writer: TypeAlias = Callable[[Sequence[Part], Path, Path, Losses, Callable[[], None]], None]
WRITERS: Mapping[str, _Writer] = {"coco": write_coco, "voc": write_voc, "yolo": write_yolo}


def own_or_coco(family: str) -> Family:
    """The format in which a dataset of a family is written again: its own, or COCO, which holds what LabelMe says."""
    return next((known for known in get_args(Family) if known == family), "coco")


def write(
    parts: Sequence[Part],
    root: Path,
    target: str,
    output: Path,
    *,
    bar: Progress | None = None,
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
