"""`fpn diagnose`: which stage lost what a model misses, and what it would give back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fpn.cli import bounds, paths
from fpn.cli.options import LimitOptions
from fpn.cli.terminal import progress_bar, say, say_warning
from fpn.errors import ConfigError
from fpn.files import maker, refuse_unwritable, taken

if TYPE_CHECKING:
    from fpn.data import Dataset
    from fpn.detectors import Detector
    from fpn.studies.diagnosis.diagnosis import Diagnosis

_RESULT = "diagnosis.json"
_DRAWINGS = "missed"
_MADE_BY = "fpn diagnose"


def run(
    model: Annotated[Path, paths.MODEL],
    data: Annotated[Path, paths.DATA],
    /,
    *,
    split: str | None = None,
    images: Annotated[Path | None, paths.folder("--images")] = None,
    output: Path | None = None,
    draw: Annotated[int, bounds.FROM_0] = 0,
    score: Annotated[float | None, bounds.SHARE] = None,
    drop_invalid: bool = False,
    skip_unreadable: bool = False,
    batch_size: Annotated[int, bounds.FROM_1] = 4,
    workers: Annotated[int | None, bounds.FROM_0] = None,
    device: str | None = None,
    limits: Annotated[LimitOptions | None, Parameter(name="*", group="Limits")] = None,
) -> None:
    """Say why objects are missed: which stage lost each, what it costs in AP, and what to do about it.

    Stages of two-stage detectors are, in order: no anchor fits, anchor scored low, decoded badly, cut by top-k,
    suppressed in the RPN, moved away by stage 1, 2, ... (of a cascade), level by equation 1, classified wrongly, box
    poor, suppressed in the end, below the threshold. Those of one-stage detectors: no anchor fits, scored low,
    classified wrongly, box poor, centre-ness low, cut by top-k, suppressed in the end, below the threshold. Detections
    that found nothing are sorted into TIDE's kinds.

    If it is stopped, the same command goes on from what was traced until then.

    Args:
        model: A .safetensors file that `fpn train` wrote.
        data: A folder or file in COCO, VOC, YOLO or LabelMe format.
        split: Which split of it. None: as `fpn evaluate` chooses.
        images: Folder of the images, if they lie elsewhere than their annotations.
        output: Folder for diagnosis.json, budget.csv, misses.csv and false_alarms.csv.
        draw: Also draw so many missed objects, into the folder "missed" of --output: the truth and the best anchor,
            proposal and detection.
        score: An object is found by a detection with this score or more. AP is of these detections, too. None: the
            middle of the thresholds that `fpn calibrate` chose for the classes, 0.5 where it did not.
        drop_invalid: Leave out boxes that are empty, not finite or outside of their image, and count them.
        skip_unreadable: Leave out images that can't be read, and name them. Else the first one stops the command.
        batch_size: Images that go through the network together.
        workers: Processes that read images. None: half as many as there are cores. 0: none beside this one.
        device: Where to run: cpu, cuda, cuda:1 and so on. None: the GPU if there is one, else the CPU.
    """
    _refuse(draw, output)
    from fpn.cli.decoding import advising, say_unreadable
    from fpn.cli.devices import check_device
    from fpn.cli.going_on import going_on
    from fpn.cli.measuring import open_for_detector
    from fpn.detectors import load
    from fpn.runtime.waiting import considerate
    from fpn.studies.diagnosis.diagnosis import diagnose, find_tracer
    from fpn.studies.diagnosis.diagnosis_tables import diagnosis_tables

    detector = load(model, device=check_device(device))
    score = _usual(detector) if score is None else score
    find_tracer(detector, score)
    accepted = (limits or LimitOptions()).limits()
    reading: dict[str, Any] = {
        "images": images,
        "drop_invalid": drop_invalid,
        "skip_unreadable": skip_unreadable,
        "limits": accepted,
    }
    dataset, _ = open_for_detector(detector, data, split, reading)
    keeping = going_on("diagnose", model, detector, dataset, batch_size=batch_size, threshold=score)
    bar = progress_bar("tracing", len(dataset))
    with considerate(say_warning), keeping as unfinished, bar as progress, advising():
        found = diagnose(
            detector,
            dataset,
            threshold=score,
            batch_size=batch_size,
            workers=workers,
            skip_unreadable=skip_unreadable,
            progress=progress,
            unfinished=unfinished,
        )
    for table in diagnosis_tables(found):
        say(table.rich())
        say()
    say_unreadable(found.unreadable, "the figures are of the others")
    if output is not None:
        _save(found, dataset, output, draw)


def _usual(detector: Detector) -> float:
    """The one score for all classes where none was given; it is told where it is no common one."""
    from fpn.detectors.operating_point import USUAL_SCORE, middle_score

    if detector.thresholds is None:
        return USUAL_SCORE
    own = detector.thresholds.by_class(detector.classes).values()
    score = middle_score(own)
    say(
        f"tracing at a score of {score:.2f}, the middle of the model's thresholds ({min(own):.2f} to {max(own):.2f}); "
        "--score takes another"
    )
    return score


def _refuse(draw: int, output: Path | None) -> None:
    """Stop before anything is done if it can't be, or if the folder holds something else than an earlier diagnosis."""
    if output is None:
        if draw:
            raise ConfigError("--draw: needs a folder for the drawings. Name one with --output.")
        return
    is_file = output.exists() and not output.is_dir()
    if is_file or (output.is_dir() and any(output.iterdir()) and maker(output / _RESULT) != _MADE_BY):
        raise taken(output, "folder", by=_MADE_BY)
    refuse_unwritable(output)


def _save(found: Diagnosis, dataset: Dataset, output: Path, draw: int) -> None:
    from fpn.studies.diagnosis.diagnosis_tables import save_diagnosis

    paths = save_diagnosis(found, output)
    say(f"all of it: {paths[0]}; as tables: {', '.join(path.name for path in paths[1:])}")
    if drawn := _draw(found, dataset, output, draw):
        say(f"{drawn} missed objects drawn: {output / _DRAWINGS}")


def _draw(found: Diagnosis, dataset: Dataset, output: Path, count: int) -> int:
    """Draw lost objects, in place of those that an earlier run drew; how many there are."""
    from fpn.cli.outputs import save_image
    from fpn.studies.diagnosis.miss_drawings import draw_miss, most_telling

    titles = {line.name: line.title for line in found.stages}
    for stage in titles:
        for old in (output / _DRAWINGS).glob(f"[0-9][0-9][0-9]-{stage}.jpg"):
            old.unlink()
    chosen = most_telling(found, count)
    for number, miss in enumerate(chosen, start=1):
        drawn = draw_miss(dataset.image(miss.index), miss, titles[miss.lost.stage])
        save_image(drawn, output / _DRAWINGS / f"{number:03d}-{miss.lost.stage}.jpg")
    return len(chosen)
