"""`fpn suggest`: which unlabelled images to label next, and drafts of their labels."""

from __future__ import annotations

import os
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fpn.cli import bounds, paths
from fpn.cli.inputs import find_images
from fpn.cli.terminal import progress_bar, say, say_error, say_warning
from fpn.errors import DataNotFoundError
from fpn.wording import counted

if TYPE_CHECKING:
    from fpn.data import Dataset, Limits
    from fpn.detectors import Detector
    from fpn.studies.suggesting.suggest import Suggestions
    from fpn.studies.tables import TextTable

# From which score on a detection becomes a draft where nobody said and the model was not calibrated.
_USUAL_SCORE = 0.5
# Rows that are shown; the files hold all.
_ROWS = 40


def run(
    model: Annotated[Path, paths.MODEL],
    images: Annotated[tuple[str, ...], Parameter(name="FOLDER"), paths.SOURCES] = (),
    /,
    *,
    count: Annotated[int, bounds.FROM_1] = 20,
    labelled: Annotated[Path | None, paths.dataset("--labelled")] = None,
    split: str | None = None,
    output: Path = Path("suggestions"),
    to: Literal["coco", "voc", "yolo", "label-studio"] = "coco",
    score: Annotated[float | Literal["calibrated"] | None, bounds.SHARE] = None,
    prefix: str = "/data/local-files/?d=",
    copy: bool = False,
    mirror: bool = True,
    batch_size: Annotated[int, bounds.FROM_1] = 4,
    precision: Literal["float32", "bf16", "auto"] = "auto",
    device: str | None = None,
    max_pixels: Annotated[int, bounds.FROM_1] = 2**27,
) -> int:
    """Choose the images whose labels would teach a model most, say why, and write drafts of their labels.

    It chooses images in which the model is unsure of its detections, above all of classes that have few labels, and
    which look unlike each other and unlike what is labelled. Of images that show the same, only one is chosen.

    The folder of --output gets suggestions.json and suggestions.csv, the ranking of all images with the reason for
    each, and the folder prelabels with drafts: a dataset of the chosen images that `fpn check` and labelling tools
    read. A run that was stopped goes on where it was when it is called again. An image that can't be read is named and
    left aside; the exit status is then 1.

    Args:
        model: A .safetensors file that `fpn train` wrote, of what is labelled so far.
        images: Folders with unlabelled images (with all inside of them), files, and globs in quotes.
        count: How many images to choose.
        labelled: The labelled images so far, a dataset in COCO, VOC, YOLO or LabelMe format. Images like these are not
            chosen, and its counts say which classes are rare. Without it the model's own findings say that.
        split: Which split of --labelled. None: the only one, else all, else trainval, else train.
        output: A new or empty folder for the results.
        to: Format of the drafts. label-studio: tasks with predictions, and the labelling interface for them.
        score: Detections become drafts from this score on, 0 to 1. calibrated: from each class's own threshold, that
            `fpn calibrate` chose. None: calibrated where the model has that, else 0.5.
        prefix: For label-studio: what stands before each image's path within FOLDER. The default is for images that
            it serves from a folder of its own; a URL such as https://example.org/photos/ is possible, too.
        copy: Copy images to the drafts. Else they are linked (hard links), which takes no space, where that can be
            done. Label Studio's drafts have no images.
        mirror: Look at each image and at its mirror image: what only one shows is unsure. Takes twice as long.
        batch_size: Images that go through the network together.
        precision: Number format of the network's arithmetic. auto: bf16 where the processor multiplies it in hardware,
            else float32.
        device: Where to run: cpu, cuda, cuda:1 and so on. None: the GPU if there is one, else the CPU.
        max_pixels: Largest image that is read, height times width.
    """
    from fpn.cli.devices import check_device
    from fpn.cli.going_on import going_on
    from fpn.data.formats.writer import refuse_filled
    from fpn.data.limits import Limits
    from fpn.detectors import load
    from fpn.detectors.operating_point import choose_score
    from fpn.inference.optimize import optimize
    from fpn.runtime.waiting import considerate
    from fpn.studies.suggesting.saving import save_suggestions
    from fpn.studies.suggesting.suggest import pool_of, suggest

    refuse_filled(output)
    sources = [source.path for source in find_images(images, own=frozenset())]
    _refuse_absent(sources)
    detector = optimize(load(model, device=check_device(device)), precision)
    usual = _USUAL_SCORE if score is None and detector.thresholds is None else score
    chosen = choose_score(usual, detector.thresholds)
    limits = Limits.of(max_pixels=max_pixels)
    _warn_of_brightness(detector, sources)
    known = None if labelled is None else _open(labelled, split, detector, limits)
    pool = pool_of(detector, sources, known, limits)
    keeping = going_on("suggest", model, detector, pool, batch_size=batch_size, mirror=mirror, precision=precision)
    with considerate(say_warning), keeping as unfinished:
        found = suggest(
            detector,
            sources,
            count=count,
            labelled=known,
            mirror=mirror,
            batch_size=batch_size,
            unfinished=unfinished,
            limits=limits,
            reading=partial(progress_bar, "reading"),
            looking=partial(progress_bar, "detecting"),
        )
    losses = save_suggestions(found, output, target=to, score=chosen, prefix=prefix, copy=copy, model=model.stem)
    _report(found, [*losses, *_beside_boxes(detector)], output, to)
    return 1 if found.unreadable else 0


def _refuse_absent(sources: list[Path]) -> None:
    """A folder that is not there would be taken for an image that can't be read."""
    if absent := [source for source in sources if not os.path.lexists(source)]:
        raise DataNotFoundError(f"{absent[0]}: no such file or folder")


def _warn_of_brightness(detector: Detector, sources: list[Path]) -> None:
    from fpn.data.checks.brightness import unfitting

    pixel_range = detector.preprocessor.config.pixel_range
    if (warning := unfitting("images", [str(path) for path in sources], pixel_range)) is not None:
        say_warning(warning)


def _open(labelled: Path, split: str | None, detector: Detector, limits: Limits) -> Dataset:
    from fpn.data import open_dataset
    from fpn.data.formats.open import usual_split

    split = split or usual_split(labelled, "train")
    pixel_range = detector.preprocessor.config.pixel_range
    dataset = open_dataset(
        labelled, split=split, drop_invalid=True, skip_unreadable=True, limits=limits, pixel_range=pixel_range
    )
    say(f"labelled so far: {dataset.name}, {counted(len(dataset), 'image')}")
    return dataset


def _beside_boxes(detector: Detector) -> list[str]:
    """What a draft, which is a box, has no place for."""
    found = [task for task in ("masks", "keypoints") if task in detector.tasks]
    return (
        [f"the model's {' and '.join(found)}: drafts are boxes. fpn predict writes all of it as COCO"] if found else []
    )


def _report(found: Suggestions, losses: list[str], output: Path, to: str) -> None:
    say(suggestion_table(found).rich())
    say()
    for name, why in found.unreadable.items():
        say_error(f"left aside: {name}: {why}")
    for loss in losses:
        say_warning(f"not kept: {loss}")
    if len(found.chosen) < found.about["count"]:
        chosen = counted(len(found.chosen), "image")
        say_warning(f"{chosen} chosen, not {found.about['count']}: there are no more to choose from")
    say(f"ranking: {output / 'suggestions.json'}, {output / 'suggestions.csv'}")
    drafts = output / "prelabels"
    if to == "label-studio":
        say(f"drafts: {drafts / 'label_studio.json'}, for a project with the interface {drafts / 'label_studio.xml'}")
    else:
        say(f"drafts: {drafts} ({to.upper()}). Look at them with: fpn check {shlex.quote(str(drafts))}")


def suggestion_table(found: Suggestions, *, most: int = _ROWS) -> TextTable:
    """The chosen images with their reasons; `most`: rows that are shown."""
    from fpn.studies.tables import TextTable

    top = max((each.gain for each in found.chosen), default=0.0) or 1.0
    rows = tuple(
        (str(rank), each.name, f"{100 * each.gain / top:.0f}", each.reason)
        for rank, each in enumerate(found.chosen[:most], start=1)
    )
    notes = [f"... {len(found.chosen) - most} more are in the files"] if len(found.chosen) > most else []
    notes.append(f"chosen of {len(found.chosen) + len(found.others) + len(found.aside)} images")
    if found.aside:
        notes[-1] += f"; {len(found.aside)} look like another"
    if found.objects is not None:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(found.objects.items(), key=lambda pair: pair[1]))
        notes.append(f"labelled so far: {counts}")
    title = "Label these next (gain: in percent of the first one's)"
    return TextTable(title=title, columns=(">", "image", ">gain", "why"), rows=rows, notes=tuple(notes))
