"""`fpn evaluate`: how good a model is on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from fpn.cli import bounds, paths
from fpn.cli.options import LimitOptions
from fpn.cli.terminal import progress_bar, say, say_warning
from fpn.cli.tiles import TileOptions
from fpn.errors import ConfigError

if TYPE_CHECKING:
    from fpn.data import Dataset
    from fpn.detectors import Detector
    from fpn.detectors.prediction import TaskName
    from fpn.evaluation import Evaluation

_RESAMPLES = 1000


def run(
    model: Annotated[Path, paths.MODEL],
    data: Annotated[Path, paths.DATA],
    /,
    *,
    split: str | None = None,
    images: Annotated[Path | None, paths.folder("--images")] = None,
    output: Path | None = None,
    detections: Path | None = None,
    proposals: bool = False,
    intervals: bool = False,
    max_detections: Annotated[int | None, bounds.FROM_1] = None,
    drop_invalid: bool = False,
    skip_unreadable: bool = False,
    batch_size: Annotated[int, bounds.FROM_1] = 8,
    workers: Annotated[int | None, bounds.FROM_0] = None,
    precision: Literal["float32", "bf16", "auto"] = "auto",
    device: str | None = None,
    tiles: Annotated[TileOptions | None, Parameter(name="*", group="Tiles")] = None,
    limits: Annotated[LimitOptions | None, Parameter(name="*", group="Limits")] = None,
) -> None:
    """Measure a model on labelled images: COCO average precision and recall.

    If it is stopped, the same command goes on from what was found until then.

    Args:
        model: A .safetensors file that `fpn train` wrote, or an .onnx, .xml or .pt2 file of `fpn export`.
        data: A folder or file in COCO, VOC, YOLO or LabelMe format.
        split: Which split of it. None: the images that the model's training held out (--validation-share), if it did;
            else one that it was not trained on; else the only split, else all, else trainval, else val, else test.
        images: Folder of the images, if they lie elsewhere than their annotations.
        output: Also write the figures to this JSON file, and as a table to a .csv beside it. A file that is there is
            replaced only if an earlier `fpn evaluate` wrote it, here and of --detections.
        detections: Also write all detections to this COCO results file (.json), and to a .csv beside it.
        proposals: Also measure the proposals: recall with 100 and 1000 an image.
        intervals: Also give 95 % intervals of the boxes' AP, by drawing the images 1000 times with replacement.
        max_detections: Most detections of an image. None: the model's own setting, 100 unless it was trained with
            another. Above 100, AP and AR with all of them are shown beside COCO's, which are of 100.
        drop_invalid: Leave out boxes that are empty, not finite or outside of their image, and count them.
        skip_unreadable: Leave out images that can't be read, and name them. Else the first one stops the command.
        batch_size: Images that go through the network together.
        workers: Processes that read images. None: half as many as there are cores. 0: none beside this one.
        precision: Number format of the network's arithmetic. auto: bf16 where the processor multiplies it in hardware,
            else float32. An exported file keeps the format in which it was proven; only OpenVINO's also takes bf16.
        device: Where to run: cpu, cuda, cuda:1 and so on. None: the GPU if there is one, else the CPU.
    """
    from fpn.cli.decoding import advising
    from fpn.cli.fast_models import load_fast
    from fpn.cli.going_on import going_on
    from fpn.evaluation import evaluate as measure
    from fpn.evaluation.known_truth import ClassWarning
    from fpn.runtime.unheard import unheard
    from fpn.runtime.waiting import considerate
    from fpn.spreadsheets import refuse_others

    for path in (output, detections):
        refuse_others(path, "fpn evaluate")
    tiling = (tiles or TileOptions()).tiling()
    detector = load_fast(model, device=device, max_detections=max_detections, precision=precision)
    reading: dict[str, Any] = {"images": images, "drop_invalid": drop_invalid, "skip_unreadable": skip_unreadable}
    reading["limits"] = (limits or LimitOptions()).limits()
    dataset = _open(detector, data, split, reading, intervals)
    cut = {} if tiling is None else tiling.model_dump()
    keeping = going_on("found", model, detector, dataset, batch_size=batch_size, precision=precision, **cut)
    bar = progress_bar("measuring", len(dataset))
    with considerate(say_warning), keeping as unfinished, bar as progress, unheard(ClassWarning), advising():
        measured = measure(
            detector,
            dataset,
            batch_size=batch_size,
            workers=workers,
            tasks=_with_proposals(detector, dataset, model) if proposals else None,
            progress=progress,
            skip_unreadable=skip_unreadable,
            unfinished=unfinished,
            tiling=tiling,
        )
    say(measured.table())
    measured = _resample(dataset, detector, measured) if intervals else measured
    _say_incomplete(measured, detector)
    detected = measured.images - len(unfinished.known)
    say(f"{detected / measured.seconds:.1f} images a second: {detector.info}")
    _save(measured, output, detections)


def _with_proposals(detector: Detector, dataset: Dataset, model: Path) -> tuple[TaskName, ...]:
    """What is measured anyhow, and proposals.

    Raises:
        ConfigError: the detector gives none.
    """
    from fpn.evaluation import choose_tasks

    if "proposals" not in detector.tasks:
        given = ", ".join(detector.tasks)
        raise ConfigError(f"--proposals: {model} gives {given}, which are measured anyhow, but none. Leave it out.")
    return (*choose_tasks(detector, dataset), "proposals")


def _say_incomplete(measured: Evaluation, detector: Detector) -> None:
    """Warn of images, and of detections, that the figures may lack."""
    from fpn.cli.decoding import say_unreadable
    from fpn.export.exported import allow_more

    say_unreadable(measured.unreadable, "the figures are of the others")
    if measured.limit is not None and measured.limit.advice:
        say_warning(f"{measured.limit.advice}. {allow_more(detector, measured.limit.larger)}")


def _save(measured: Evaluation, output: Path | None, detections: Path | None) -> None:
    from fpn.spreadsheets import beside

    if output is not None:
        say(f"figures: {measured.save(output)} and {beside(output).name}")
    if detections is not None:
        say(f"detections: {measured.save_detections(detections)} and {beside(detections).name}")


def _open(detector: Detector, data: Path, split: str | None, reading: dict[str, Any], intervals: bool) -> Dataset:
    """What to measure on; for intervals, of enough images."""
    from fpn.cli.held_out import refuse_too_few
    from fpn.cli.measuring import open_for_detector

    dataset, _ = open_for_detector(detector, data, split, reading)
    if intervals:
        refuse_too_few(dataset)
    return dataset


def _resample(dataset: Dataset, detector: Detector, measured: Evaluation) -> Evaluation:
    """The same with intervals, which are shown."""
    from dataclasses import replace

    from fpn.evaluation import bootstrap_intervals, match_detections
    from fpn.evaluation.known_truth import known_truth

    names = set(measured.unreadable)
    rows = [number for number in range(len(dataset)) if dataset.path(number) not in names]
    truth = known_truth(detector.classes, dataset.subset(rows) if names else dataset).coco
    with progress_bar("resampling", _RESAMPLES) as progress:
        matches = match_detections(truth, measured.detections)
        found = bootstrap_intervals(matches, resamples=_RESAMPLES, progress=progress)
    say(found.table())
    return replace(measured, intervals=found)
