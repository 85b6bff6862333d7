"""`report`: one page and one JSON of all that can be said of a detector on labelled images."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fpn.data.dataset import Dataset
from fpn.detectors import Detector
from fpn.errors import ConfigError, DataError
from fpn.evaluation.known_truth import shared_ids, told_apart
from fpn.files import write_text
from fpn.inference.optimize import Precision
from fpn.spreadsheets import write_csv
from fpn.studies.report.background import BACKGROUND
from fpn.studies.report.chapters import MEASURED
from fpn.studies.report.draft import Draft
from fpn.studies.report.gathering import BarMaker, Gathered, Settings, gather, silent
from fpn.studies.report.image_chapters import labels_chapter, worst_chapter
from fpn.studies.report.page import render_page
from fpn.studies.report.shown_images import ImageRoom
from fpn.studies.report.verdict import verdict
from fpn.training.run_record import LearnedImages

if TYPE_CHECKING:
    from fpn.data.checks.inspection import CheckReport

PAGE, TABLE, ERRORS = "report.html", "report.json", "label_errors.csv"
_ERROR_COLUMNS = ("kind", "image", "labelled", "found", "score", "suspicion", "x1", "y1", "x2", "y2")
_MEBIBYTE = 2**20


def report(
    detector: Detector,
    dataset: Dataset,
    output: str | os.PathLike[str],
    *,
    name: str = "model",
    run: str | os.PathLike[str] | None = None,
    budget: bool = True,
    check: Callable[[], CheckReport] | None = None,
    learned: LearnedImages | None = None,
    worst: int = 12,
    labels: int = 12,
    room: float = 8.0,
    batch_size: int = 8,
    workers: int | None = None,
    precision: Precision = "auto",
    skip_unreadable: bool = False,
    bar: BarMaker = silent,
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Write what a detector can do, what it can't, and why, into a folder: report.html, report.json and tables.

    The page opens anywhere without a network. The network sees each image once, and once more for the error budget.
    What a run that was stopped had measured is kept beside `output` and used by the next one of the same things.

    Args:
        detector: what to measure, as it was loaded or trained, where it is.
        dataset: labelled images that it did not learn from.
        output: a new or empty folder.
        name: what the page calls the detector.
        run: folder of its training, for the curves; None: there are none.
        budget: trace what is missed and what it costs, as `fpn diagnose` does.
        check: gives what `fpn check` finds; None: that is left out.
        learned: what of the dataset the detector learned from; None: whether it was the very whole is looked up.
        worst: how many of the worst images are shown.
        labels: how many of each kind of suspicious labels are shown.
        room: MiB that the images in the page may take.
        batch_size, workers, precision, skip_unreadable: see `fpn.evaluate`.
        bar: shows progress, as `fpn.cli.terminal.progress_bar`.
        tell: is told if it goes on with what a stopped run measured, and if something is kept for the next one.

    Returns:
        The page.

    Raises:
        OutputError: `output` is neither new nor empty, or can't be written.
        ConfigError: no class in common, or a number out of range.
        DataError: no images (that can be read).
        ImageError, DataNotFoundError: an image can't be read.
    """
    if worst < 0 or labels < 0 or not 0 <= room <= 1024 or batch_size < 1:
        raise ConfigError(
            f"worst {worst}, labels {labels}, room {room:g}, batch_size {batch_size}: at least 0, 0, 0 (and at most "
            "1024 MiB) and 1"
        )
    if len(dataset) == 0:
        raise DataError(f"{dataset.name}: has no images to report on")
    dataset = told_apart(detector, dataset)
    shared_ids(detector.classes, dataset)
    settings = Settings(
        name=name,
        run=None if run is None else Path(run),
        batch_size=batch_size,
        workers=workers,
        precision=precision,
        skip_unreadable=skip_unreadable,
        budget=budget,
        check=check,
        learned=learned,
        bar=bar,
    )
    draft = Draft.begin(Path(output), settings.key(detector, dataset))
    if draft.taken_up and tell is not None:
        tell(f"going on with what an earlier run left in {draft.folder}")
    try:
        gathered = gather(detector, dataset, settings, draft)
        gathered.figures["verdict"] = verdict(gathered.figures)
        _write(gathered, draft.folder, worst, labels, ImageRoom(round(room * _MEBIBYTE)))
    except BaseException:
        if draft.leave() and tell is not None:
            tell(f"what was measured is kept in {draft.folder}: the same command goes on from there")
        raise
    return draft.finish() / PAGE


def _write(gathered: Gathered, folder: Path, worst: int, labels: int, room: ImageRoom) -> None:
    figures = gathered.figures
    drawn = [worst_chapter(gathered, worst, room), labels_chapter(gathered, labels, room)]
    chapters = [*(make(figures) for make in MEASURED), *drawn, *(make(figures) for make in BACKGROUND)]
    title = figures["model"]["name"], figures["dataset"]["name"]
    write_text(folder / TABLE, json.dumps(figures, indent=1, allow_nan=False) + "\n")
    corners = ("x1", "y1", "x2", "y2")
    rows = ({**each, **dict(zip(corners, each["box"], strict=True))} for each in figures["label_errors"])
    write_csv(folder / ERRORS, ({key: row[key] for key in _ERROR_COLUMNS} for row in rows), _ERROR_COLUMNS)
    write_text(folder / PAGE, render_page(title, chapters, datetime.datetime.now(datetime.UTC).date()))
