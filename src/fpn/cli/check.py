"""`fpn check`: what is wrong with a dataset, before it costs a night."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fpn.cli import bounds, paths
from fpn.cli.options import Given, LimitOptions
from fpn.cli.terminal import progress_bar, say
from fpn.data.loading.augmentation.config import AugmentationConfig
from fpn.errors import ConfigError, FpnError
from fpn.files import taken
from fpn.training.config import DetectorName, detector_settings

if TYPE_CHECKING:
    from fpn.data import Dataset, Limits
    from fpn.data.checks.inspection import CheckReport, Inspected
    from fpn.data.issues import Finding
    from fpn.detectors import Dialect

FAULTY = 1
_SHEETS = (".jpg", ".jpeg", ".png")
# Settings of training that anchors are tried with.
_SIDES = ("short_side", "long_side")
_TRIED = (*_SIDES, "anchor_sizes", "anchor_ratios")
_THEIRS = (
    "Size and anchors are those that fpn train would choose for these images on this machine (--plan says why); "
    "--short-side and --anchor-sizes try others."
)
_OURS = (
    "Size and anchors are the dialect's: what fpn train would choose can't be told of these data as they are; "
    "--short-side and --anchor-sizes try others."
)
_LEGEND = (
    "  grey and dashed: too little of it is left to learn from (--min-visible). All images are drawn equally large, so "
    "that --scale, which resizes what the network sees, does not show."
)


def run(
    data: Annotated[Path, paths.DATA],
    /,
    *,
    split: str | None = None,
    images: Annotated[Path | None, paths.folder("--images")] = None,
    output: Path | None = None,
    fix: Path | None = None,
    all_entries: bool = False,
    detector: DetectorName = "faster_rcnn",
    dialect: str = "paper",
    short_side: int | None = None,
    long_side: int | None = None,
    anchor_sizes: tuple[float, ...] | None = None,
    anchor_ratios: tuple[float, ...] | None = None,
    workers: Annotated[int | None, bounds.FROM_1] = None,
    augment_preview: Path | None = None,
    config: Annotated[Path | None, paths.file("--config")] = None,
    augmentation: Annotated[AugmentationConfig | None, Parameter(name="*", group="Preview of augmentation")] = None,
    limits: Annotated[LimitOptions | None, Parameter(name="*", group="Limits")] = None,
) -> int:
    """Read all labels and images once and say what is wrong with them.

    The exit status is 1 if training would stop, or learn or measure something wrong, and 0 if there is nothing but
    warnings and information. Nothing in DATA is ever changed.

    Args:
        data: A folder or file in COCO, VOC, YOLO or LabelMe format.
        split: Look at this split only. None: at all of them, and at what they have in common.
        images: Folder of the images, if they lie elsewhere than their annotations.
        output: Also write everything to this new JSON file, and the findings as a table to a .csv beside it.
        fix: Write a repaired copy to this new folder, with a list of what changed.
        all_entries: Show every finding, not the first few of each kind.
        detector: Kind of detector that will be trained. Of one without anchors none are tried.
        dialect: Conventions whose anchors are tried on the objects.
        short_side: Shorter side of images in the network, in pixels. None: as `fpn train` would choose it, and anchors
            that go with it, for these images on this machine.
        long_side: Limit of the longer side. None: in the dialect's proportion.
        anchor_sizes: Anchor side of each level, finest first, in network pixels. None: with --short-side the
            dialect's, else as `fpn train` would choose them.
        anchor_ratios: Aspect ratios (height / width) of the anchors. None: the same.
        workers: Threads that look at images. None: one a core, at most 8.
        augment_preview: Also draw augmented images with their objects onto one sheet, this new JPEG or PNG file: as
            training would see them with the augmentation's options below, or each kind alone if none is given.
        config: Settings file of `fpn train`, whose augmentation is previewed. Options win over it.
    """
    from fpn.cli.check_tables import show
    from fpn.data.checks.inspection import check as look_through
    from fpn.detectors.dialect import AnchorDialect
    from fpn.studies.anchor_fit import fit_dataset

    _refuse(output, fix, split)
    changes = _refuse_preview(augment_preview, config, augmentation)
    asked: dict[str, Any] = {"anchor_sizes": anchor_sizes, "anchor_ratios": anchor_ratios}
    asked |= {"short_side": short_side, "long_side": long_side}
    accepted = (limits or LimitOptions()).limits()
    detector_settings(detector, _named(asked))  # stops at one of another kind
    bar = partial(progress_bar, "images")
    report = look_through(data, split=split, images=images, workers=workers, limits=accepted, bar=bar)
    spoken, whose = _tried(data, images, accepted, detector, dialect, _named(asked))
    fit = fit_dataset(report.inspected, spoken) if isinstance(spoken, AnchorDialect) and spoken.anchor_ious else None
    crowded = _crowding(report.inspected, spoken.max_detections)
    report = report.with_findings([*(fit.findings if fit else ()), *crowded])
    for each in show(report, fit, whose=whose, every=all_entries):
        say(each)
    if fit is None:
        say(f"Anchors: not tried, as none decide by their overlap what {detector} learns.")
    if output is not None:
        _save(report, fit.to_dict() if fit else None, output)
    if augment_preview is not None:
        _preview(_trained_on(data, split, images, accepted), changes, augment_preview)
    if fix is not None:
        _repair(report, fix)
    elif not report.passed:
        say(f"A copy with what can be repaired: fpn check {shlex.quote(str(data))} --fix NEW-FOLDER")
    return 0 if report.passed else FAULTY


def _named(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if value is not None}


def _tried(
    data: Path, images: Path | None, limits: Limits, detector: str, dialect: str, named: dict[str, Any]
) -> tuple[Dialect, str]:
    """The conventions whose anchors are tried, and who chose size and anchors, as a sentence."""
    from fpn.detectors.presets import adapt_dialect

    sized = "short_side" in named
    planned = {} if sized else _as_trained(data, images, limits, {"detector": detector, "dialect": dialect, **named})
    every = {**named, **planned}
    sides: dict[str, Any] = {name: value for name, value in every.items() if name in _SIDES}
    rest = detector_settings(detector, {name: value for name, value in every.items() if name not in _SIDES})
    return adapt_dialect(dialect, detector, **sides, **rest), "" if sized else _THEIRS if planned else _OURS


def _trained_on(
    data: Path, split: str | None, images: Path | None, limits: Limits, *, skip_unreadable: bool = False
) -> Dataset:
    """The images that `fpn train DATA` would learn from."""
    from fpn.data import open_dataset
    from fpn.data.formats.open import usual_split

    split = split or usual_split(data, "train", images=images)
    reading: dict[str, Any] = {"images": images, "limits": limits, "skip_unreadable": skip_unreadable}
    return open_dataset(data, split=split, drop_invalid=True, **reading)


def _as_trained(data: Path, images: Path | None, limits: Limits, given: dict[str, Any]) -> dict[str, Any]:
    """Size and anchors that `fpn train DATA` would choose; none where the data can't be trained on as they are."""
    from fpn.training.recipes import plan_training

    try:
        dataset = _trained_on(data, None, images, limits, skip_unreadable=True)
        chosen = plan_training(dataset, given=given, ask_hub=False).chosen
    except FpnError:
        return {}
    return {name: chosen[name] for name in _TRIED if chosen.get(name) is not None}


def _crowding(inspected: Inspected, limit: int | None) -> list[Finding]:
    from fpn.data.checks.boxes import check_crowding

    if limit is None:
        return []
    main = inspected.main_splits.items()
    return [each for split, survey in main for each in check_crowding(survey, inspected.objects[split], limit)]


def _refuse(output: Path | None, fix: Path | None, split: str | None) -> None:
    """Stop before the work if its results can't be kept."""
    from fpn.data.formats.writer import refuse_filled
    from fpn.spreadsheets import refuse_others

    if output is not None:
        refuse_others(output)
    if fix is not None:
        if split is not None:
            raise ConfigError("--fix repairs a whole dataset: leave --split out")
        refuse_filled(fix)


def _refuse_preview(
    sheet: Path | None, config: Path | None, options: AugmentationConfig | None
) -> AugmentationConfig | None:
    """The changes to preview, or None: each kind alone. Stops where there is nothing to draw, or nowhere to."""
    asked = Given(None, config, {"augmentation": options}).training
    changes = {name: value for name, value in asked.items() if name in AugmentationConfig.model_fields}
    if sheet is None:
        if config is not None or changes:
            raise ConfigError("options of augmentation do nothing without --augment-preview SHEET.jpg")
        return None
    if sheet.suffix.lower() not in _SHEETS:
        raise ConfigError(f"--augment-preview {sheet}: expected a name that ends in {', '.join(_SHEETS)}")
    if sheet.exists():
        raise taken(sheet, "file")
    return AugmentationConfig(**changes) if changes else None


def _preview(dataset: Dataset, changes: AugmentationConfig | None, output: Path) -> None:
    from fpn.files import atomic_path
    from fpn.studies.augmentation_preview import preview_epochs, preview_kinds

    sheet = preview_kinds(dataset) if changes is None else preview_epochs(dataset, changes)
    with atomic_path(output) as path:
        sheet.save(path, quality=92)
    what = "each kind of change alone" if changes is None else "as training would see it in its first epochs"
    say(f"augmentation, {what}: {output}")
    say(_LEGEND)


def _save(report: CheckReport, anchors: dict[str, object] | None, output: Path) -> None:
    from fpn.files import write_text
    from fpn.spreadsheets import beside, write_csv

    write_text(output, json.dumps({**report.to_dict(), "anchors": anchors}, indent=1) + "\n")
    write_csv(beside(output), report.rows(), ("severity", "kind", "file", "message", "remedy", "fix"))
    say(f"report: {output} and {beside(output).name}")


def _repair(report: CheckReport, output: Path) -> None:
    from fpn.data.checks.repair import is_loss, repair

    changes = repair(report, output, bar=partial(progress_bar, "writing"))
    lost = sum(map(is_loss, changes))
    how = f"{len(changes)} changes, of which {lost} leave something out" if lost else f"{len(changes)} changes"
    say(f"repaired copy: {output} ({how}, listed in {output / 'CHANGES.txt'})")
    say(f"See what is left to do by hand: fpn check {shlex.quote(str(output))}")
