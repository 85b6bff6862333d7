"""What `fpn train` chooses and tells before it begins: the recipe's table, the time it will take, and alternatives."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fpn.cli.options import Given, ModelOptions, PlanOptions
from fpn.cli.terminal import errors, say, say_note, say_warning
from fpn.errors import ConfigError
from fpn.files import maker, taken, write_figures
from fpn.wording import counted, describe_seconds

if TYPE_CHECKING:
    from fpn.data import Dataset
    from fpn.training.pace import Pace
    from fpn.training.planned import TrainingPlan

_MADE_BY = "fpn train --plan"
_NOTHING_HELD_OUT = (
    "no images are held out to measure on: --validation-share 0.2 keeps a fifth, --validation-split or --validation "
    "name others"
)


def file_beside(run: Path) -> Path:
    """Where a plan goes: beside the folder of the run, which stays free for it."""
    return run.with_name(f"{run.name}-plan.json")


def refuse_others_file(path: Path, figures: Path, made_by: str) -> None:
    """Stop before anything is done if a file of somebody else's is in the way.

    Args:
        path: what would be written.
        figures: the JSON file that says who wrote it: `path`, or one that was written with it.
        made_by: who may have written it.

    Raises:
        OutputError: if so.
    """
    if path.exists() and maker(figures) != made_by:
        raise taken(path, "file", by=made_by, otherwise="move it")


def refuse_other_plan(run: Path | None) -> None:
    """As `refuse_others_file`, of a run's plan."""
    if run is not None:
        refuse_others_file(file_beside(run), file_beside(run), _MADE_BY)


def keep_plan(plan: TrainingPlan, pace: Pace | None, run: Path, *, validated: int) -> Path:
    """Write down what was printed.

    Args:
        plan: what was chosen.
        pace: of its steps, if it was timed.
        run: the folder that the run would have.
        validated: images of a validation.
    """
    from fpn.training.pace import alternatives

    time: dict[str, Any] = {}
    if pace is not None:
        seconds = pace.seconds(plan.config, validated=validated)
        others = {
            name: {"options": options, "seconds": other}
            for name, (options, other) in alternatives(plan, seconds).items()
            if options
        }
        time = {
            "time": {
                "seconds": seconds,
                "seconds_a_step": pace.step,
                "cores_of_others": pace.others,
                "alternatives": others,
            }
        }
    about = {"data": str(plan.facts), "device": str(plan.capacity)}
    path = file_beside(run)
    write_figures(path, _MADE_BY, {**about, **plan.to_json(), **time})
    return path


def plan_run(
    given: Given, dataset: Dataset, validation: Dataset | None, *, speaks: bool
) -> tuple[TrainingPlan, Pace | None]:
    """Choose what was not given, put it into `given`, and print it with the time it will take.

    Returns:
        What was chosen, and how long its steps take, if they were timed.

    Raises:
        ConfigError: no such recipe, or a time budget beside a length.
    """
    from fpn.training.recipes import plan_training

    wishes = PlanOptions(**given.planning)
    budget = wishes.seconds()
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    _refuse_two_lengths(given, budget, alone=alone)
    choose = partial(
        plan_training,
        dataset,
        wishes.recipe,
        given={**given.model, **given.training},
        sources=given.sources,
        begun="init" in given.model,
        ask_hub=alone,  # several processes have to choose the same
    )
    plan = choose()
    wanted = plan.recipe != "none" or wishes.plan or wishes.find_lr or budget is not None
    pace = _measure(given, plan, dataset) if wanted and alone else None
    validated = 0 if validation is None else len(validation)
    if budget is not None and pace is not None and not wishes.find_lr:
        from fpn.training.pace import fit_to_time

        fitted = fit_to_time(plan, pace, budget, validated=validated)
        shorter = choose(room=fitted.shown)
        if _differ(plan, shorter):  # which takes other steps
            pace = _measure(given, shorter, dataset) or pace
            fitted = fit_to_time(shorter, pace, budget, validated=validated)
        plan = fitted
    if speaks:
        _show(plan, pace, validated)
    given.take(plan.chosen)
    return plan, pace


def _differ(plan: TrainingPlan, other: TrainingPlan) -> bool:
    """Whether two plans are more than a longer and a shorter run of the same."""
    length = ("epochs", "validate_every")
    chosen, others = ({k: v for k, v in each.chosen.items() if k not in length} for each in (plan, other))
    return chosen != others


def _refuse_two_lengths(given: Given, budget: float | None, *, alone: bool) -> None:
    if budget is None:
        return
    length = next((name for name in ("epochs", "steps") if name in given.training), None)
    if length is not None:
        raise ConfigError(f"--time-budget says how long to train, and so does --{length}. Choose one.")
    if not alone:
        raise ConfigError("--time-budget is for one process; say --epochs where several train together")


def _measure(given: Given, plan: TrainingPlan, dataset: Dataset) -> Pace | None:
    """Time some steps of what will be trained, on a detector of its own."""
    from fpn.detectors import Detector, begin_with, named_preset
    from fpn.training.labels import told_by_data
    from fpn.training.pace import measure_pace

    if len(dataset) == 0 or plan.facts.objects == 0:
        return None  # which training refuses with its own words
    model = ModelOptions(**{**given.model, **{k: v for k, v in plan.chosen.items() if k in ModelOptions.model_fields}})
    detector: Detector
    if model.init is None:
        detector = named_preset(model.detector)(**told_by_data(model.detector, dataset), weights=None, **model.recipe())
    else:
        detector, _ = begin_with(model.init, classes=dataset.classes, **model.recipe(given=True))
    errors().print("timing a few steps ...")
    return measure_pace(detector, dataset, plan.config)


def _show(plan: TrainingPlan, pace: Pace | None, validated: int) -> None:
    others = "" if plan.recipe == "none" else "; --recipe NAME takes another, any option below wins over it"
    say(f"recipe {plan.recipe}: {plan.because}{others}")
    if plan.settings:
        say(f"data: {plan.facts}")
        say(f"device: {plan.capacity}")
        _show_settings(plan)
    if not plan.facts.objects:
        say_warning("there is no object to learn from: training would refuse. Label some.")
    for warning in plan.warnings:
        say_warning(warning)
    for note in plan.notes:
        say_note(note)
    if plan.settings and not validated:
        say_note(_NOTHING_HELD_OUT)
    if pace is not None:
        _show_time(plan, pace, validated)


def _show_settings(plan: TrainingPlan) -> None:
    """A table on a terminal, a line each elsewhere, as for grep."""
    width = max(len(each.option) for each in plan.settings)
    table = Table.grid(padding=(0, 2, 0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for each in plan.settings:
        table.add_row(Text(each.option, style="" if each.given else "bold"), Text(each.reason))
    if Console().is_terminal:
        say(table)
    else:
        say("\n".join(f"  {each.option:{width}}  {each.reason}" for each in plan.settings))


def _show_time(plan: TrainingPlan, pace: Pace, validated: int) -> None:
    from fpn.training.pace import alternatives

    seconds = pace.seconds(plan.config, validated=validated)
    steps = plan.config.steps or plan.config.epochs * pace.epoch
    measured = f", validations on {counted(validated, 'image')} included" if validated else ""
    say(f"time: about {describe_seconds(seconds)} for {steps} steps of {pace.step:.2g} s{measured} (timed just now)")
    for name, (options, other) in alternatives(plan, seconds).items():
        if options:
            say(f"  {name}: about {describe_seconds(other)} with {options}")
    if pace.caution:
        say_note(pace.caution)


def note_of(plan: TrainingPlan | None) -> dict[str, Any]:
    """For a run's record."""
    return {} if plan is None else {"plan": plan.to_json()}
