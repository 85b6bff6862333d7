"""`fpn train --find-lr`: losses at rising learning rates, and a suggestion; nothing is trained that is kept."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from fpn.cli.planning import refuse_others_file
from fpn.cli.terminal import progress_bar, say
from fpn.errors import ConfigError
from fpn.files import write_figures, write_text
from fpn.wording import describe_seconds

if TYPE_CHECKING:
    from fpn.data import Dataset
    from fpn.detectors import Detector
    from fpn.training.pace import Pace
    from fpn.training.planned import TrainingPlan
    from fpn.training.rate_range import RateRange

_MADE_BY = "fpn train --find-lr"
# Seconds, unless a time budget says otherwise.
_LONGEST = 600.0
_STEPS = 100
# A test may take so many times the time that it has before it ends.
_SLACK = 1.5
_BAR = 24


def files_beside(run: Path) -> tuple[Path, Path]:
    """Where the figures and the chart go: beside the folder of the run, which stays free for it."""
    return run.with_name(f"{run.name}-find-lr.json"), run.with_name(f"{run.name}-find-lr.svg")


def refuse_unfit(run: Path | None) -> None:
    """Stop before anything is done if several processes train, or a file of somebody else's is in the way.

    Raises:
        ConfigError, OutputError: if so.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("--find-lr is for one process. Run it without torchrun.")
    if run is None:
        return
    figures, chart = files_beside(run)
    for path in (figures, chart):
        refuse_others_file(path, figures, _MADE_BY)


def run_rate_test(
    detector: Detector,
    dataset: Dataset,
    plan: TrainingPlan,
    pace: Pace | None,
    *,
    budget: float | None,
    run: Path | None,
) -> None:
    """Say how long it takes, do it, show it, and write it down.

    Args:
        detector: as it would be trained.
        dataset: what it would learn from.
        plan: how.
        pace: of its steps, if it was timed.
        budget: seconds that it may take.
        run: the folder that the run would have; None: nothing is written.
    """
    from fpn.training.rate_range import FEWEST_STEPS, find_learning_rate

    longest, steps = _LONGEST if budget is None else budget, _STEPS
    if pace is not None and pace.step > 0:
        _refuse_slow(FEWEST_STEPS * pace.step, longest)
        steps = min(_STEPS, max(FEWEST_STEPS, int(longest / pace.step)))
        say(f"range test: {steps} steps at rising rates, about {describe_seconds(steps * pace.step)}; nothing is kept")
    with progress_bar("range test", steps) as progress:
        found = find_learning_rate(
            detector, dataset, plan.config, steps=steps, seconds=_SLACK * longest, progress=progress
        )
    _show(found)
    if run is not None:
        say(f"figures: {', '.join(map(str, _write(found, run)))}")


def _refuse_slow(least: float, longest: float) -> None:
    """Stop where even the shortest test would be cut off before it says anything."""
    if least > _SLACK * longest:
        raise ConfigError(
            f"a range test takes about {describe_seconds(least)} here, and has {describe_seconds(longest)}. Give it "
            f"more, --time-budget {math.ceil(least / 60)}m, or make steps cheaper (--short-side, --batch-size)."
        )


def _show(found: RateRange) -> None:
    say(Text(f"{len(found.rates)} steps from {found.rates[0]:.1e} to {found.rates[-1]:.1e}: {found.stopped}"))
    say("\n".join(_rows(found)))
    if found.suggestion is None:
        say(f"no suggestion: {found.reason}. The usual rate is {found.usual:.1e}.")
        return
    if found.steepest is not None:
        say(f"the loss falls fastest at {found.steepest:.1e}; the usual rate of such a run is {found.usual:.1e}")
    say(f"suggestion: --learning-rate {found.suggestion:g} ({found.reason})")


def _rows(found: RateRange) -> list[str]:
    """About two lines a decade: the rate, the smoothed loss, and it as a bar."""
    decades = math.log10(found.rates[-1] / found.rates[0])
    number = max(4, round(2 * decades) + 1)
    places = sorted({round(k * (len(found.rates) - 1) / (number - 1)) for k in range(number)})
    lowest = found.rates.index(found.lowest)
    places = sorted({lowest, *(place for place in places if abs(place - lowest) > 1)})
    most = _highest_shown(found)
    lines = ["     rate      loss"]
    for place in places:
        loss = found.smoothed[place]
        bar = "#" * max(1, round(_BAR * min(loss / most, 1.0))) if most > 0 else ""
        mark = "  lowest" if place == lowest else ""
        lines.append(f"  {found.rates[place]:.1e}  {loss:8.4g}  {bar}{mark}")
    return lines


def _highest_shown(found: RateRange) -> float:
    """What breaks at the end would press all else flat."""
    return 1.5 * max(found.smoothed[: found.rates.index(found.lowest) + 1])


def _write(found: RateRange, run: Path) -> tuple[Path, Path]:
    figures, chart = files_beside(run)
    write_figures(figures, _MADE_BY, found.to_dict())
    write_text(chart, _draw(found))
    return figures, chart


def _draw(found: RateRange) -> str:
    from fpn.studies.standalone_svg import PLAIN, DrawnLine, LogChart, draw_chart

    first, last = (f(math.log10(rate) for rate in found.rates) for f in (min, max))
    decades = range(math.floor(first), math.ceil(last) + 1)
    steps, means = (list(zip(found.rates, losses, strict=True)) for losses in (found.losses, found.smoothed))
    top = _highest_shown(found)
    markers = [] if found.suggestion is None else [(f"suggestion {found.suggestion:g}", found.suggestion)]
    chart = LogChart(
        title="Loss at rising learning rates",
        across="learning rate",
        up="loss",
        ticks=[(10.0**decade, f"1e{decade}") for decade in decades],
        lines=[
            DrawnLine("each step", [(x, min(y, top)) for x, y in steps], colour="#999999", dots=True),
            DrawnLine("smoothed", [(x, min(y, top)) for x, y in means], colour=PLAIN),
        ],
        markers=[*markers, (f"lowest {found.lowest:.1e}", found.lowest)],
        bounds=(0.0, top),
    )
    return draw_chart(chart)
