"""`fpn report`: all that can be said of a model on labelled images, as one page and as JSON."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from fpn.cli import bounds, paths
from fpn.cli.options import LimitOptions
from fpn.cli.terminal import progress_bar, say, say_warning
from fpn.errors import ConfigError


def run(
    model: Annotated[Path, paths.MODEL],
    data: Annotated[Path, paths.DATA],
    /,
    *,
    output: Path,
    split: str | None = None,
    images: Annotated[Path | None, paths.folder("--images")] = None,
    run_folder: Annotated[Path | None, paths.folder("--run-folder")] = None,
    budget: bool = True,
    check: bool = True,
    worst: Annotated[int, bounds.FROM_0] = 12,
    labels: Annotated[int, bounds.FROM_0] = 12,
    room: Annotated[float, bounds.ROOM] = 8.0,
    max_detections: Annotated[int | None, bounds.FROM_1] = None,
    drop_invalid: bool = False,
    skip_unreadable: bool = False,
    batch_size: Annotated[int, bounds.FROM_1] = 8,
    workers: Annotated[int | None, bounds.FROM_0] = None,
    precision: Literal["float32", "bf16", "auto"] = "auto",
    device: str | None = None,
    limits: Annotated[LimitOptions | None, Parameter(name="*", group="Limits")] = None,
) -> None:
    """Write one page on what a model can do, what it can't, and why, with all figures as JSON beside it.

    It shows AP with intervals, curves and thresholds by class, confusion, calibration, sizes and levels, where objects
    are lost and what helps, the worst images, labels that look wrong, the training, the data, and speed. The page is
    one file that opens anywhere without a network.

    If it is stopped, the same command goes on from what was measured until then.

    Args:
        model: A .safetensors file that `fpn train` wrote.
        data: A folder or file in COCO, VOC, YOLO or LabelMe format, with images that the model was not trained on.
        output: New or empty folder for report.html, report.json and tables.
        split: Which split of it. None: as `fpn evaluate` chooses.
        images: Folder of the images, if they lie elsewhere than their annotations.
        run_folder: Folder of the training, for its curves. None: that of the model, where it holds them.
        budget: Trace what is missed to the stage that lost it, as `fpn diagnose`: sees each image once more.
        check: Look the whole dataset through, as `fpn check`.
        worst: How many of the worst images to show.
        labels: How many suspicious labels of each kind to show.
        room: MiB that images may take in the page; what comes after is left out.
        max_detections: Most detections of an image. None: the model's own setting.
        drop_invalid: Leave out boxes that are empty, not finite or outside of their image, and count them.
        skip_unreadable: Leave out images that can't be read, and name them. Else the first one stops the command.
        batch_size: Images that go through the network together.
        workers: Processes that read images. None: half as many as there are cores. 0: none beside this one.
        precision: Number format of the network's arithmetic. auto: bf16 where the processor multiplies it in hardware,
            else float32.
        device: Where to run: cpu, cuda, cuda:1 and so on. None: the GPU if there is one, else the CPU.
    """
    from fpn.cli.decoding import advising
    from fpn.cli.devices import check_device
    from fpn.cli.measuring import open_for_detector
    from fpn.data.checks.inspection import check as look_through
    from fpn.detectors import load
    from fpn.evaluation.known_truth import ClassWarning
    from fpn.runtime.unheard import unheard
    from fpn.runtime.waiting import considerate
    from fpn.studies.report.report import report

    _refuse(output, run_folder)
    detector = load(model, device=check_device(device), max_detections=max_detections)
    elsewhere: dict[str, Any] = {"images": images, "limits": (limits or LimitOptions()).limits()}
    reading = {"drop_invalid": drop_invalid, "skip_unreadable": skip_unreadable, **elsewhere}
    dataset, learned = open_for_detector(detector, data, split, reading)
    looking = partial(look_through, data, **elsewhere, bar=partial(progress_bar, "checking images"))
    with considerate(say_warning), unheard(ClassWarning), advising():  # unheard is what was said above
        page = report(
            detector,
            dataset,
            output,
            name=model.name,
            run=run_folder or model.parent,
            learned=learned,
            budget=budget,
            check=looking if check else None,
            worst=worst,
            labels=labels,
            room=room,
            batch_size=batch_size,
            workers=workers,
            precision=precision,
            skip_unreadable=skip_unreadable,
            bar=progress_bar,
            tell=say,
        )
    _tell(page)


def _refuse(output: Path, run_folder: Path | None) -> None:
    """Stop before anything is read."""
    from fpn.data.formats.writer import refuse_filled

    refuse_filled(output)
    if run_folder is not None and not run_folder.is_dir():
        raise ConfigError(f"--run-folder {run_folder}: no such folder")


def _tell(page: Path) -> None:
    """The verdict, and where the rest is."""
    told = json.loads(page.with_name("report.json").read_text(encoding="utf-8"))["verdict"]
    for sentence in told["sentences"]:
        say(sentence)
    for caution in told["cautions"]:
        say_warning(caution)
    say(f"report: {page}")
