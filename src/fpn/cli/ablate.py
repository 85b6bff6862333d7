"""`fpn ablate`: the paper's comparison on your own images."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fpn.cli import bounds, paths
from fpn.cli.options import LimitOptions
from fpn.cli.terminal import progress_bar, say
from fpn.errors import ConfigError
from fpn.features.necks.designs import DESIGNS, PAPER_ROWS
from fpn.studies.ablation.settings import BudgetSettings, DetectorSettings

if TYPE_CHECKING:
    from fpn.data import Dataset
    from fpn.studies.ablation.outcomes import OutcomeFolder

SCENES = "scenes"


def run(
    data: Annotated[str, Parameter(name="DATA"), paths.DATA_OR_SCENES],
    /,
    *,
    output: Path,
    rows: Annotated[tuple[str, ...], Parameter(help=f"Which designs or necks: {', '.join(DESIGNS)}.")] = PAPER_ROWS,
    seeds: Annotated[int, bounds.FROM_1] = 3,
    split: str | None = None,
    held_out: Annotated[Path | None, paths.dataset("--held-out")] = None,
    held_out_split: str | None = None,
    drop_invalid: bool = False,
    scenes: Annotated[tuple[int, int], bounds.FROM_1] = (480, 100),
    page: Annotated[Path | None, paths.file("--page")] = None,
    detector: Annotated[DetectorSettings | None, Parameter(name="*", group="Detector, the same for all rows")] = None,
    limits: Annotated[LimitOptions | None, Parameter(name="*", group="Limits")] = None,
    budget: Annotated[BudgetSettings | None, Parameter(name="*", group="Budget, the same for all rows")] = None,
) -> None:
    """Train and measure every design of the paper's figure 1 and tables on your data, and print the tables.

    All rows get the same backbone, head, budget and seeds. Stop it with Ctrl-C and repeat the command to go on: rows
    that are complete stay. More seeds or rows can be added in the same way, such as
    later necks: --rows fpn pafpn bifpn.

    fpn ablate scenes --output runs/ablation (drawn scenes, about an hour on two cores)

    fpn ablate data/cells --split train --held-out-split test --epochs 12 --output runs/cells-ablation

    Args:
        data: The word scenes (drawn images with objects of 8 to 300 pixels), or a folder or file in COCO, VOC,
            YOLO or LabelMe format.
        output: Folder for results, models, ablation.md, ablation.json, ablation.csv and ablation.svg.
        seeds: How many times each row is trained. One seed tells nothing about spread.
        split: Split of DATA to train on. None: the only one, else all, else trainval.
        held_out: Dataset to measure on, if it is another one than DATA.
        held_out_split: Split to measure on.
        drop_invalid: Leave out boxes that are empty, not finite or outside of their image.
        scenes: How many scenes are drawn to train on and to measure on.
        page: Markdown file with the lines <!-- ablation: begin --> and <!-- ablation: end -->, to put the tables
            between; the chart goes beside it.
    """
    from fpn.studies.ablation.report import check_page, write_report
    from fpn.studies.ablation.running import Ablation, refuse_unfit_rows, run_ablation
    from fpn.studies.screen import Screen

    if page is not None:
        check_page(page)
    asked = detector or DetectorSettings()
    paths.weights("--weights").look(asked.weights)
    refuse_unfit_rows(rows, seeds, asked)
    drawn = data == SCENES
    datasets = (
        _draw(scenes)
        if drawn
        else _open(
            Path(data), (split, held_out_split), held_out, drop_invalid=drop_invalid, limits=limits or LimitOptions()
        )
    )
    ablation = Ablation(
        train_set=datasets[0],
        held_out=datasets[1],
        rows=rows,
        seeds=seeds,
        detector=asked,
        budget=budget or BudgetSettings(),
    )
    try:
        folder = run_ablation(ablation, output, Screen(tell=say, bar=progress_bar, training=True))
    except KeyboardInterrupt:
        say(f"Complete rows stay in {output}. Repeat the command to go on.")
        raise
    written = write_report(folder, command=shlex.join(["fpn", *sys.argv[1:]]), page=page)
    _show(folder)
    say(f"Left: {', '.join(map(str, written))}")


def _draw(counts: tuple[int, int]) -> tuple[Dataset, Dataset]:
    """Images large enough for objects of 300 pixels."""
    from fpn.data.synthetic.scenes import SceneDataset

    training, held_out = (
        SceneDataset(count, seed=seed, height=336, width=(336, 448), extent=(8.0, 300.0))
        for count, seed in zip(counts, (0, 1_000_003), strict=True)
    )
    return training, held_out


def _open(
    path: Path,
    splits: tuple[str | None, str | None],
    held_out: Path | None,
    *,
    drop_invalid: bool,
    limits: LimitOptions,
) -> tuple[Dataset, Dataset]:
    from fpn.data import open_dataset

    split, held_out_split = splits
    if held_out is None and held_out_split is None:
        raise ConfigError(
            "no images to measure on: name a split, such as --held-out-split test, or another dataset with --held-out"
        )
    if held_out is None and held_out_split == split:
        raise ConfigError(
            f"split {split!r} is both trained and measured on, which shows nothing. Choose another --held-out-split."
        )
    accepted = limits.limits()
    training = open_dataset(path, split=split, drop_invalid=drop_invalid, limits=accepted)
    return training, open_dataset(held_out or path, split=held_out_split, drop_invalid=drop_invalid, limits=accepted)


def _show(folder: OutcomeFolder) -> None:
    from fpn.studies.ablation.report import findings_of
    from fpn.studies.ablation.tables import text_tables, verdicts

    findings = findings_of(folder)
    for table in text_tables(findings, wide=False):
        say(table.rich())
        say()
    for sentence in verdicts(findings):
        say(sentence)
