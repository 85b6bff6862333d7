"""`fpn plan`: what more labels would bring."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fpn.cli import paths
from fpn.cli.options import LimitOptions, read_duration
from fpn.cli.terminal import progress_bar, say, say_warning
from fpn.errors import ConfigError
from fpn.studies.label_budget.settings import PilotSettings
from fpn.wording import describe_seconds

if TYPE_CHECKING:
    from fpn.data import Dataset
    from fpn.studies.label_budget.forecast import LabelForecast


def run(
    data: Annotated[Path, Parameter(name="DATA"), paths.DATA],
    /,
    *,
    output: Path | None = None,
    time_budget: str | None = None,
    confidence: float = 0.9,
    split: str | None = None,
    validation: Annotated[Path | None, paths.dataset("--validation")] = None,
    validation_split: str | None = None,
    validation_share: float = 0.25,
    by_group: str | None = None,
    similar: bool = True,
    images: Annotated[Path | None, paths.folder("--images")] = None,
    drop_invalid: bool | None = None,
    pilots: Annotated[PilotSettings | None, Parameter(name="*", group="Pilots, the same for all")] = None,
    limits: Annotated[LimitOptions | None, Parameter(name="*", group="Limits")] = None,
) -> None:
    """Estimate what more labelled images would bring, before anybody labels them.

    Small detectors are trained on quarters, halves and all of the images, and measured on held-out ones. A learning
    curve through the results estimates what twice and four times the labels would bring, with an interval; what no
    number of them would exceed; and how long a whole training takes here.

    To see how one model would be trained on the images at hand, use fpn train DATA --plan.

    With --output, Ctrl-C or a kill costs one pilot: repeat the command to go on.

    Args:
        data: A folder or file in COCO, VOC, YOLO or LabelMe format.
        output: Folder for label-budget.json, .csv and .svg (the curve), and each pilot's outcome. None: nothing is
            kept.
        time_budget: What the pilots may take together, such as 20m or 1h. None: 200 steps each.
        confidence: Of the intervals, 0 to 1.
        split: Split to learn from. None: the only one, else all, else trainval, else train.
        validation: Dataset to measure on, if it is another one than DATA.
        validation_split: Split to measure on. None, without --validation: val, if train was not asked for either.
        validation_share: Where there is nothing to measure on: keep this share of DATA's images for it, each class in
            proportion, images alike on one side.
        by_group: With --validation-share: regular expression that is searched for in each image's path; images in
            which it finds the same stay on one side.
        similar: With --validation-share: keep images on one side that look alike. All are read for it.
        images: Folder of DATA's images, if they lie elsewhere than their annotations.
        drop_invalid: Leave out boxes that are empty, not finite or outside of their image. None: up to one in a
            hundred.
    """
    from fpn.data.division import compile_groups
    from fpn.evaluation.bootstrap import check_confidence
    from fpn.runtime.waiting import considerate
    from fpn.studies.label_budget.report import save_budget
    from fpn.studies.label_budget.running import forecast_labels, refuse_unfit_pilots
    from fpn.studies.screen import Screen

    seconds = _seconds(time_budget)
    if not 0 < validation_share < 1:
        raise ConfigError(f"--validation-share {validation_share:g}: a share between 0 and 1, such as 0.25")
    check_confidence(confidence)
    if by_group is not None:
        compile_groups(by_group)
    settings = pilots or PilotSettings()
    paths.weights("--weights").look(settings.weights)
    refuse_unfit_pilots(settings)
    reading = {"limits": (limits or LimitOptions()).limits(), "drop_invalid": bool(drop_invalid)}
    asked = drop_invalid is not None
    train_set, held_out = _open(data, images, (split, validation_split), validation, asked=asked, reading=reading)
    if held_out is None:
        wishes = {"validation": validation_share, "by_group": by_group, "similar": similar, "seed": settings.seed}
        train_set, held_out = _hold_out(train_set, wishes)
    screen = Screen(tell=say, bar=progress_bar, training=True)
    try:
        with considerate(say_warning):
            found = forecast_labels(
                train_set, held_out, output, settings=settings, seconds=seconds, confidence=confidence, screen=screen
            )
    except KeyboardInterrupt:
        if output is None:
            say("Nothing is kept of the pilots: with --output the same command would go on.")
        else:
            say(f"Complete pilots stay in {output}. Repeat the command to go on.")
        raise
    _show(found)
    if output is not None:
        say(f"Left: {', '.join(map(str, save_budget(found, output)))}")


def _seconds(time_budget: str | None) -> float | None:
    try:
        return None if time_budget is None else read_duration(time_budget)
    except ValueError as error:
        raise ConfigError(f"--time-budget {time_budget!r}: {error}") from None


def _open(
    data: Path,
    images: Path | None,
    splits: tuple[str | None, str | None],
    validation: Path | None,
    *,
    asked: bool,
    reading: dict[str, Any],
) -> tuple[Dataset, Dataset | None]:
    """What to learn from, and what to measure on if it is there."""
    from fpn.cli.labelled import open_labelled
    from fpn.data.formats.open import usual_split

    split, held_out = splits
    if split is None:
        split = usual_split(data, "train", images=images)
        if split is not None and validation is None and held_out is None:
            held_out = usual_split(data, "val", images=images)
    if validation is None and held_out is not None and held_out == split:
        raise ConfigError(f"split {split!r} would be learned from and measured on. Choose another --validation-split.")
    train_set, _ = open_labelled(data, asked=asked, speaks=True, split=split, images=images, **reading)
    if validation is None and held_out is None:
        return train_set, None
    where, folder = (validation, None) if validation is not None else (data, images)
    measured, _ = open_labelled(where, asked=asked, speaks=True, split=held_out, images=folder, **reading)
    return train_set, measured


def _hold_out(dataset: Dataset, wishes: dict[str, Any]) -> tuple[Dataset, Dataset]:
    from fpn.data.split import divide
    from fpn.studies.label_budget.pilots import refuse_few

    refuse_few(dataset, len(dataset))
    division = divide(dataset, bar=partial(progress_bar, "looking for images alike"), **wishes)
    for remark in division.remarks:
        say_warning(remark)
    parts = division.parts
    say(f"holding out {len(parts['val'])} of {len(dataset)} images to measure on")
    return dataset.subset(parts["train"]), dataset.subset(parts["val"])


def _show(found: LabelForecast) -> None:
    from fpn.studies.label_budget.report import budget_table

    say()
    say(budget_table(found).rich())
    say()
    for sentence in found.sentences():
        say(sentence)
    time = found.time
    say(
        f"A whole training on the {found.images} images (fpn train) takes about {describe_seconds(time.full_seconds)} "
        f"here: {time.full_steps} steps of {time.full_step:.2g} s."
    )
