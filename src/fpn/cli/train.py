"""`fpn train`: from labelled images to a model file."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fpn.cli import paths
from fpn.cli.decoding import advising, check_images, say_unreadable
from fpn.cli.held_out import NOTE, HeldOut, hold_out, untrained_split
from fpn.cli.labelled import open_labelled
from fpn.cli.options import DataOptions, Given, ModelOptions, PlanOptions
from fpn.cli.planning import keep_plan, note_of, plan_run, refuse_other_plan
from fpn.cli.terminal import say, say_warning
from fpn.data.loading.augmentation.config import AugmentationConfig
from fpn.errors import ConfigError
from fpn.training.config import RunSettings, TrainConfig
from fpn.wording import counted, describe_seconds

if TYPE_CHECKING:
    from fpn.data import Dataset
    from fpn.detectors import Detector
    from fpn.training.pace import Pace
    from fpn.training.planned import TrainingPlan
    from fpn.training.trainer import TrainResult


def run(
    path: Annotated[Path | None, Parameter(name="DATA"), paths.DATA] = None,
    /,
    *,
    config: Annotated[Path | None, paths.file("--config")] = None,
    resume: Annotated[Path | None, paths.folder("--resume")] = None,
    allow_changes: bool = False,
    planning: Annotated[PlanOptions | None, Parameter(name="*", group="Recipe")] = None,
    data: Annotated[DataOptions | None, Parameter(name="*", group="Data and output")] = None,
    model: Annotated[ModelOptions | None, Parameter(name="*", group="Model")] = None,
    training: Annotated[RunSettings | None, Parameter(name="*", group="Training")] = None,
    augmentation: Annotated[AugmentationConfig | None, Parameter(name="*", group="Training: augmentation")] = None,
) -> None:
    """Train a detector on labelled images.

    A recipe chooses every setting that you don't give, by your data and this machine, and prints each with its reason
    and the time that training will take. --plan stops there. --find-lr tries learning rates, and then stops.

    All annotations are read and checked first, so that a broken one costs seconds, not a night. To use several GPUs,
    where N is how many: torchrun --standalone --nproc-per-node N -m fpn train ...

    Args:
        path: A folder or file in COCO, VOC, YOLO or LabelMe format, recognised by itself.
        config: TOML or YAML file with the same names as the options below (and `data`). Options win over the file.
        resume: Folder of an earlier run to go on with; the result is the same to the bit as if it had not stopped.
        allow_changes: Resume even if the data, the detector or settings have changed.
    """
    groups = {"data": data, "model": model, "training": training, "augmentation": augmentation, "planning": planning}
    given = Given(path, config, groups)
    with given.told():
        _train(given, resume, allow_changes=allow_changes)


def _train(given: Given, resume: Path | None, *, allow_changes: bool) -> None:
    from fpn.training.run_record import begun_before_restart
    from fpn.training.validation import find_metric

    find_metric(TrainConfig(**given.training).best)  # reading the data may take long
    _refuse_new_plan(given, resume)
    resume = resume or begun_before_restart(DataOptions(**given.data).output)
    if resume is not None:
        given = _as_before(given, resume)
    elif _speaks():  # the others may come when the first one has begun
        _refuse_taken(given)
    datasets, held_out = _open(given)
    if given.begun and resume is None and _speaks():
        say(given.begun)
    if DataOptions(**given.data).check_images:
        check_images(datasets, skip=TrainConfig(**given.training).skip_unreadable, speaks=_speaks())
    wishes = PlanOptions(**given.planning)
    with advising(_GO_ON):
        plan, pace = plan_run(given, *datasets, speaks=_speaks()) if resume is None else (None, None)
        if wishes.find_lr and plan is not None:
            _find_rate(given, datasets[0], plan, pace)
        if wishes.stops:
            _keep_plan(given, plan, pace, 0 if datasets[1] is None else len(datasets[1]))
            return
        result = _run(given, *datasets, held_out, plan, resume=resume, allow_changes=allow_changes)
    if _speaks():
        _report(given, result)


def _refuse_new_plan(given: Given, resume: Path | None) -> None:
    if resume is not None and given.planning:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(given.planning))
        raise ConfigError(f"{names}: {resume} goes on with the settings that were chosen when it began. Leave it out.")


def _refuse_taken(given: Given) -> None:
    from fpn.training.run_record import refuse_taken

    output = DataOptions(**given.data).output
    wishes = PlanOptions(**given.planning)
    if wishes.find_lr:
        from fpn.cli.rate_test import refuse_unfit

        refuse_unfit(output)
    if wishes.plan:
        refuse_other_plan(output)
    if output is not None and not wishes.stops:
        refuse_taken(output)


def _as_before(given: Given, run: Path) -> Given:
    """What was asked for now, and for the rest what the run to resume was asked for."""
    from fpn.training.run_record import read_record

    record = read_record(run)
    before: Mapping[str, Any] = record["notes"].get("options", {})
    if all(given.data.get(key, old) == old for key, old in _dividing(before.get("data", {})).items()):
        given.held_out = HeldOut.of(record["notes"])
    _refuse_other_beginning(given, before.get("model", {}), run)
    if given.path is None and before.get("path"):
        given.path = Path(before["path"])
    given.data = {**before.get("data", {}), **given.data, "output": run}
    given.model = {**before.get("model", {}), **given.model}
    given.training = {**record["config"], **given.training}
    return given


def _dividing(data: Mapping[str, Any]) -> dict[str, Any]:
    """What decides which images are held out, beside the seed."""
    return {key: data.get(key) for key in ("validation_share", "by_group", "similar")}


def _refuse_other_beginning(given: Given, before: Mapping[str, Any], run: Path) -> None:
    asked = given.model.get("init")
    if asked is not None and str(Path(asked).resolve()) != before.get("init"):
        began = before.get("init") or "no earlier model"
        raise ConfigError(f"--init {asked}: {run} began with {began}, and goes on with its own weights. Leave it out.")


def _open(given: Given) -> tuple[tuple[Dataset, Dataset | None], HeldOut | None]:
    """Read everything about both datasets but their pixels."""
    from fpn.data.formats.open import choose_split

    options = DataOptions(**given.data)
    if given.path is None:
        raise ConfigError(
            "no DATA: name a folder or file in COCO, VOC, YOLO or LabelMe format, such as: fpn train data/cells"
        )
    if options.output is None and not PlanOptions(**given.planning).stops:
        raise ConfigError("no --output: name a new folder for the run, such as --output runs/first")
    _refuse_two_validations(options)
    kept: dict[str, Any] = {
        "drop_invalid": options.drop_invalid,
        "limits": options.limits(),
        "pixel_range": options.pixel_range,
        "skip_unreadable": TrainConfig(**given.training).skip_unreadable,
    }
    trained, split = _splits(given.path, options)
    dataset = _open_one(given, given.path, split=trained, images=options.images, **kept)
    if options.validation_share is not None:
        chosen = choose_split(given.path, trained, images=options.images)
        held_out = given.held_out or _hold_out(given, dataset, chosen, options.validation_share)
        return held_out.divide(dataset), held_out
    if options.validation is None and split is None:
        return (dataset, None), None
    where = options.validation or given.path
    kept["drop_invalid"] = DataOptions(**given.data).drop_invalid
    images = None if options.validation else options.images
    validation = _open_one(given, where, split=split, images=images, **kept)
    return (dataset, validation), None


def _open_one(given: Given, path: Path, **options: Any) -> Dataset:
    """A dataset, and what is to be said of it; a few invalid boxes are left out, unless somebody said otherwise."""
    asked = "drop_invalid" in given.data or PlanOptions(**given.planning).recipe == "none"
    dataset, left_out = open_labelled(path, asked=asked, speaks=_speaks(), **options)
    if left_out:
        given.data["drop_invalid"] = True
    return dataset


def _hold_out(given: Given, dataset: Dataset, split: str, share: float) -> HeldOut:
    options, seed = DataOptions(**given.data), TrainConfig(**given.training).seed
    wishes = {"by_group": options.by_group, "similar": options.similar, "seed": seed}
    return hold_out(dataset, split, share, speaks=_speaks(), **wishes)


def _refuse_two_validations(options: DataOptions) -> None:
    if options.validation_share is None and options.by_group is not None:
        raise ConfigError("--by-group says how DATA is divided: it needs --validation-share, such as 0.2")
    if options.validation_share is not None and (options.validation or options.validation_split):
        raise ConfigError(
            "--validation-share keeps images of DATA to measure on, --validation and --validation-split name others. "
            "Choose one."
        )


def _splits(path: Path, options: DataOptions) -> tuple[str | None, str | None]:
    """The splits to train and to validate on: as asked, or `train` and `val` where they are there and nothing was."""
    from fpn.data.formats.open import usual_split

    trained, held_out = options.split, options.validation_split
    if trained is None:
        trained = usual_split(path, "train", images=options.images)
        if trained is not None and not options.names_validation:
            held_out = usual_split(path, "val", images=options.images)
        if trained is not None and _speaks():
            beside = f", validating on {held_out}" if held_out else ""
            say(f"training on the split {trained}{beside}; --split and --validation-split name others")
        elif trained is None and _speaks():
            _say_which_split(path, options.images)
    return trained, held_out


def _say_which_split(path: Path, images: Path | None) -> None:
    """Where there are several and nobody was asked."""
    from fpn.data.formats.open import choose_split, list_splits

    splits = list_splits(path, images=images)
    chosen = choose_split(path, None, images=images)
    others = [name for name in splits if name != chosen]
    if others:
        say(f"training on the split {chosen}; --split names another of {', '.join(others)}")


def _speaks() -> bool:
    """Of several processes that train together, one does."""
    return os.environ.get("RANK", "0") == "0"


# What to do about one image that can't be read, beside mending it.
_GO_ON = (
    "--skip-unreadable goes on without such images, also with --resume; --check-images finds all of them before the "
    "first step."
)


def _run(
    given: Given,
    dataset: Dataset,
    validation: Dataset | None,
    held_out: HeldOut | None,
    plan: TrainingPlan | None,
    *,
    resume: Path | None,
    allow_changes: bool,
) -> TrainResult:
    from fpn.training.checkpoint import has_checkpoint
    from fpn.training.trainer import train as run_training

    options, training = DataOptions(**given.data), TrainConfig(**given.training)
    # Killed before its first checkpoint, a run begins again.
    going_on = resume if resume is not None and has_checkpoint(resume) else None
    detector, notes = _build(ModelOptions(**given.model), dataset, going_on=going_on, seed=training.seed)
    return run_training(
        detector,
        dataset,
        training,
        validation=validation,
        output=options.output if resume is None else None,
        resume=resume,
        allow_changes=allow_changes,
        notes={
            "command": shlex.join(["fpn", *sys.argv[1:]]),
            "options": _notes(given),
            **notes,
            **note_of(plan),
            **({} if held_out is None else {NOTE: held_out.to_json()}),
        },
    )


def _build(
    options: ModelOptions, dataset: Dataset, *, going_on: Path | None, seed: int
) -> tuple[Detector, dict[str, Any]]:
    """The detector to train, and what to note about it; a run that goes on brings its own weights."""
    import torch

    from fpn.detectors import begin_with, named_preset
    from fpn.detectors.builder import build_detector
    from fpn.detectors.fine_tuning import adapt_recipe
    from fpn.detectors.recipe import read_recipe
    from fpn.training.labels import told_by_data
    from fpn.training.run_record import read_record

    torch.manual_seed(seed)  # the heads start from random weights
    if options.init is None:
        weights = None if going_on is not None else options.weights
        told = told_by_data(options.detector, dataset)
        return named_preset(options.detector)(**told, weights=weights, **options.recipe()), {}
    if going_on is not None:  # the model to begin with may be gone by now
        recipe = read_recipe(read_record(going_on)["recipe"])
        asked = options.recipe(given=True, kind=recipe.kind)
        return build_detector(adapt_recipe(recipe, classes=dataset.classes, **asked)), {}
    detector, carried = begin_with(options.init, classes=dataset.classes, **options.recipe(given=True))
    if _speaks():
        say(str(carried))
        if "weights" in options.model_fields_set:
            say_warning(f"--weights {options.weights} has no effect: all weights are those of --init {options.init}")
    return detector, {"init": carried.to_dict()}


def _find_rate(given: Given, dataset: Dataset, plan: TrainingPlan, pace: Pace | None) -> None:
    """With the detector as the run would have it."""
    from fpn.cli.rate_test import run_rate_test

    training = TrainConfig(**given.training)
    detector, _ = _build(ModelOptions(**given.model), dataset, going_on=None, seed=training.seed)
    budget = PlanOptions(**given.planning).seconds()
    run_rate_test(detector, dataset, plan, pace, budget=budget, run=DataOptions(**given.data).output)


def _keep_plan(given: Given, plan: TrainingPlan | None, pace: Pace | None, validated: int) -> None:
    """Beside the folder that the run would have, if there is to be one."""
    output = DataOptions(**given.data).output
    if PlanOptions(**given.planning).plan and plan is not None and output is not None:
        say(f"plan: {keep_plan(plan, pace, output, validated=validated)}")


def _notes(given: Given) -> dict[str, Any]:
    """What `--resume` needs to open the same data again, from wherever it is called."""
    groups = {"data": DataOptions(**given.data), "model": ModelOptions(**given.model)}
    notes = {name: group.model_dump(mode="json", include=set(getattr(given, name))) for name, group in groups.items()}
    for group, name in (("data", "validation"), ("model", "init")):
        if notes[group].get(name) is not None:
            notes[group][name] = str(Path(notes[group][name]).resolve())
    return {**notes, "path": str(given.path.resolve()) if given.path else None}


def _report(given: Given, result: TrainResult) -> None:
    best = ""
    if result.best_value is not None:
        best = f", best {result.best_metric} {result.best_value:.3f} after epoch {result.best_epoch}"
    say(f"trained {counted(result.steps, 'step')} in {describe_seconds(result.seconds)}{best}")
    say(f"model: {result.model}")
    say_unreadable(result.unreadable, f"all are named in {result.output}/run.json")
    say("Next:")
    options = DataOptions(**given.data)
    where, split = options.validation or given.path, options.validation_split
    if not options.names_validation:
        split = _held_out_split(given.path, options.split)
    words = ["fpn", "evaluate", str(result.model), str(where)]
    words += ["--split", split] if split else []
    words += ["--drop-invalid"] if options.drop_invalid else []
    words += ["--skip-unreadable"] if result.unreadable else []
    say(f"  {shlex.join(words)}")
    say(f"  {shlex.join(['fpn', 'report', *words[2:], '--output', 'report'])}")
    say(f"  fpn predict {shlex.quote(str(result.model))} IMAGES --output predictions")


def _held_out_split(path: Path | None, trained: str | None) -> str | None:
    """A split to measure on that was not trained on; where there is none, the one that was."""
    from fpn.data.formats.open import list_splits

    assert path is not None, "something was trained on"
    splits = list_splits(path)
    used = trained or next((split for split in ("all", "trainval") if split in splits), None)
    return untrained_split(splits, used) or trained
