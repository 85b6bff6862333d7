"""`fpn ablate`: what the tables say about figures made up here, and a small ablation from end to end."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shell import Shell
from torch import nn

import fpn.studies.ablation.running as running
from fpn.data.synthetic.scenes import SceneDataset
from fpn.detectors import PAPER, Detector, Preprocessor
from fpn.detectors.recipe import FasterRCNNRecipe
from fpn.errors import ConfigError, DataError, DataNotFoundError, OutputError
from fpn.features.necks.designs import DESIGNS, PAPER_ROWS
from fpn.structures import Detections, ImageBatch, LossTerms, Proposals, Targets
from fpn.studies.ablation.chart import chart
from fpn.studies.ablation.costs import measure_costs
from fpn.studies.ablation.outcomes import FIGURES, Cost, Outcome, OutcomeFolder
from fpn.studies.ablation.report import check_page, write_report
from fpn.studies.ablation.running import Ablation, run_ablation
from fpn.studies.ablation.settings import BudgetSettings, DetectorSettings
from fpn.studies.ablation.statistics import Spread, paired, ranking, summary
from fpn.studies.ablation.tables import Findings, text_tables, to_json, verdicts
from fpn.studies.screen import Screen

DIALECT = PAPER.changed(pixels_mean=(0.5, 0.5, 0.5), pixels_std=(0.25, 0.25, 0.25))


def outcome(row: str, seed: int, **figures: float | None) -> Outcome:
    return Outcome(
        row=row,
        seed=seed,
        figures={**dict.fromkeys(FIGURES, 0.5), **figures},
        anchors=1500,
        steps=10,
        training_seconds=1.0,
        measuring_seconds=1.0,
    )


def cost(milliseconds: float, multiply_adds: int = 10) -> Cost:
    return Cost(
        detect_ms=milliseconds,
        train_ms=2 * milliseconds,
        parameters=1_500_000,
        multiply_adds=multiply_adds,
        detect_bytes=2**20,
        train_bytes=3 * 2**20,
    )


def gap_of(points: tuple[float, ...]) -> Findings:
    """FPN at 0.60 with each seed, and C4 that many points below it."""
    outcomes = [outcome("fpn", seed, ar1000=0.6, ar1000_small=0.6) for seed in range(len(points))]
    outcomes += [
        outcome("c4", seed, ar1000=0.6 - below / 100, ar1000_small=0.6 - below / 100)
        for seed, below in enumerate(points)
    ]
    return Findings(outcomes=outcomes, costs={})


# --- statistics -------------------------------------------------------------------------------------------------


def test_a_spread_is_the_mean_and_the_deviation_of_a_sample():
    assert Spread.of([1.0, 2.0, 6.0]) == Spread(3.0, 7.0**0.5, 3)
    assert Spread.of([4.0]) == Spread(4.0, None, 1)


def test_a_difference_is_clear_beyond_two_deviations_and_never_with_one_seed():
    assert Spread(2.1, 1.0, 3).clear
    assert not Spread(1.9, 1.0, 3).clear
    assert Spread(-2.1, 1.0, 3).clear
    assert not Spread(99.0, None, 1).clear


def test_differences_are_taken_seed_by_seed():
    # Each seed is worth 0.1 to both rows; between them it cancels out.
    outcomes = [outcome("c4", seed, ap=0.2 + 0.1 * seed) for seed in range(3)]
    outcomes += [outcome("fpn", seed, ap=0.25 + 0.1 * seed) for seed in range(3)]
    difference = paired(outcomes, "fpn", "c4", "ap")
    assert difference is not None
    assert difference.mean == pytest.approx(0.05)
    assert difference.deviation == pytest.approx(0.0, abs=1e-12)
    spread = summary(outcomes, "fpn", "ap")
    assert spread is not None
    assert spread.deviation == pytest.approx(0.1)


def test_only_seeds_of_both_rows_are_paired_and_what_was_not_measured_is_left_out():
    outcomes = [outcome("fpn", 0, ap=0.5), outcome("fpn", 1, ap=0.9), outcome("c4", 0, ap=0.4)]
    difference = paired(outcomes, "fpn", "c4", "ap")
    assert difference is not None
    assert difference.mean == pytest.approx(0.1)
    assert difference.count == 1
    assert paired(outcomes, "fpn", "c5", "ap") is None
    assert summary([outcome("fpn", 0, ap=None)], "fpn", "ap") is None


def test_rows_are_ranked_by_their_means():
    outcomes = [
        outcome("c4", 0, ap=0.9),
        outcome("c4", 1, ap=0.1),
        outcome("fpn", 0, ap=0.6),
        outcome("c5", 0, ap=None),
    ]
    assert ranking(outcomes, DESIGNS, "ap") == ["fpn", "c4"]


# --- tables and sentences -----------------------------------------------------------------------------------------


def test_rows_have_the_papers_order_and_letters_whatever_order_they_were_measured_in():
    findings = Findings(outcomes=[outcome(row, 0) for row in reversed(PAPER_ROWS)], costs={})
    table = text_tables(findings, wide=False)[0]
    letters = [row[0].split()[0] for row in table.rows]
    assert letters == ["(a)", "(b)", "(c)", "(d)", "(e)", "(f)", "1c", "1a"]


def test_the_tables_have_the_papers_columns_and_percents():
    findings = Findings(outcomes=[outcome("fpn", 0, ar100=0.1234, ap=None)], costs={})
    proposals, detections = text_tables(findings, wide=False)
    assert proposals.columns[1:] == (
        ">anchors",
        "lateral",
        "top-down",
        ">AR100",
        ">AR1k",
        ">AR1k_s",
        ">AR1k_m",
        ">AR1k_l",
    )
    assert proposals.rows[0][1:5] == ("1.5k", "yes", "yes", "12.3")
    assert detections.columns[-5:] == (">AP@.5", ">AP", ">AP_s", ">AP_m", ">AP_l")
    assert detections.rows[0][-4] == "-"


def test_lateral_and_top_down_are_ticked_as_in_the_paper():
    findings = Findings(outcomes=[outcome(row, 0) for row in DESIGNS], costs={})
    ticks = {row: cells[2:4] for row, cells in zip(DESIGNS, text_tables(findings, wide=False)[0].rows, strict=True)}
    assert ticks["c4"] == ticks["hierarchy"] == ("", "")
    assert ticks["lateral_only"] == ("yes", "")
    assert ticks["top_down_only"] == ("", "yes")
    assert ticks["fpn"] == ticks["p2_only"] == ("yes", "yes")


def test_a_difference_outside_the_spread_has_a_star():
    clear, unclear = (text_tables(gap_of(points), wide=False)[2] for points in ((5.0, 6.0, 7.0), (1.0, 9.0, 5.0)))
    place = clear.columns.index(">AR1k")
    assert clear.rows[0][place] == "-6.0±1.0*"
    assert unclear.rows[0][place] == "-5.0±4.0"


def test_sentences_tell_the_rank_of_fpn_and_the_gap_for_small_objects():
    told = verdicts(gap_of((5.0, 6.0, 7.0)))
    assert (
        "AR1k: FPN is first of 2; the next is c4, FPN minus c4 is +6.0 ± 1.0 points, outside the spread of 3 seeds."
        in told
    )
    assert (
        "Small objects, AR1k_s: FPN minus the single map C4 is +6.0 ± 1.0 points, outside the spread of 3 seeds."
        in told
    )
    assert not any("C5" in sentence for sentence in told)


def test_sentences_are_as_plain_when_fpn_loses():
    told = verdicts(gap_of((-5.0, -1.0, 3.0)))
    assert any(
        sentence.startswith("AR1k: FPN is number 2 of 2; the first is c4, FPN minus c4 is -1.0 ± 4.0")
        and sentence.endswith("within the spread of 3 seeds.")
        for sentence in told
    )


def test_what_the_image_pyramid_costs_is_told():
    outcomes = [outcome("fpn", 0), outcome("image_pyramid", 0)]
    findings = Findings(outcomes=outcomes, costs={"fpn": cost(100.0), "image_pyramid": cost(425.0, 45)})
    assert any("takes 4.2 times FPN's time to detect" in sentence for sentence in verdicts(findings))
    assert any("4.5 times its multiply-adds" in sentence for sentence in verdicts(findings))
    table = text_tables(findings, wide=False)[-1]
    assert table.rows[1][1:5] == ("425", "4.25", "850", "1.50")


def test_the_terminals_tables_fit_80_columns(capsys: pytest.CaptureFixture[str]):
    from rich.console import Console

    outcomes = [outcome(row, seed, ap=0.5 + 0.111 * seed) for row in DESIGNS for seed in range(3)]
    findings = Findings(outcomes=outcomes, costs={row: cost(1234.0, 10**11) for row in DESIGNS})
    for table in text_tables(findings, wide=False):
        Console(width=80, force_terminal=False).print(table.rich())
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 80
    for row in ("(a) C4", "(f) P2 only", "1a images"):
        assert sum(line.startswith(row) for line in shown) == 5


def test_json_holds_each_seed_and_the_difference():
    told = to_json(gap_of((5.0, 6.0, 7.0)))
    rows = told["rows"]
    assert isinstance(rows, Mapping)
    assert [each["seed"] for each in rows["c4"]["seeds"]] == [0, 1, 2]
    assert rows["c4"]["minus_fpn"]["ar1000"]["mean"] == pytest.approx(-0.06)
    assert json.loads(json.dumps(told)) is not None


def test_the_chart_has_a_dot_for_each_seed_of_each_row_in_each_panel():
    drawn = ET.fromstring(chart(gap_of((5.0, 6.0, 7.0))))
    names = [element.tag.rpartition("}")[2] for element in drawn.iter()]
    assert names.count("circle") == 2 * 3 * 4
    assert "(c) FPN" in list(drawn.itertext())


# --- costs --------------------------------------------------------------------------------------------------------


class OneProduct(Detector):
    """Its only work is a product of (1, 8) with (8, 5)."""

    def __init__(self) -> None:
        recipe = FasterRCNNRecipe(classes=("a",), category_ids=(1,), dialect=DIALECT)
        super().__init__(classes=recipe.found, preprocessor=Preprocessor(DIALECT.pixels), recipe=recipe)
        self.features = nn.Linear(8, 5, bias=False)

    def detect(self, images: ImageBatch) -> list[Detections]:
        found = self.features(torch.ones(1, 8))
        return [Detections(found[:, :4], found[:, 4], torch.zeros(1, dtype=torch.int64))]

    def losses(
        self, images: ImageBatch, targets: Sequence[Targets], *, generator: torch.Generator | None = None
    ) -> LossTerms:
        return LossTerms({"product": self.features(torch.ones(1, 8)).sum()})

    def proposals(self, images: ImageBatch) -> list[Proposals]:
        return []


def test_costs_count_weights_multiply_adds_and_bytes():
    images = ImageBatch(torch.zeros(1, 3, 4, 4), torch.tensor([[4, 4]]))
    measured = measure_costs({"fpn": OneProduct()}, images, [], rounds=1)["fpn"]
    assert measured.parameters == 40
    assert measured.multiply_adds == 40
    # 40 weights of 4 bytes, the 8 ones and the 5 sums.
    assert measured.detect_bytes >= 160 + 32 + 20
    assert measured.train_bytes >= measured.detect_bytes + 160  # the gradient
    assert measured.detect_ms > 0


# --- the folder ---------------------------------------------------------------------------------------------------


def test_a_folder_keeps_outcomes_and_gives_them_back(tmp_path: Path):
    folder = OutcomeFolder(tmp_path / "out", {"epochs": 1})
    assert folder.read("fpn", 0) is None
    folder.write(outcome("fpn", 0, ap=0.25))
    again = OutcomeFolder(tmp_path / "out", {"epochs": 1})
    assert again.read("fpn", 0) == outcome("fpn", 0, ap=0.25)
    assert list(again.outcomes(tuple(DESIGNS))) == [outcome("fpn", 0, ap=0.25)]


def test_other_settings_are_refused_and_named(tmp_path: Path):
    OutcomeFolder(tmp_path / "out", {"training": {"epochs": 1}, "side": 3})
    with pytest.raises(ConfigError, match=r"begun with training\.epochs 1, now it is 2"):
        OutcomeFolder(tmp_path / "out", {"training": {"epochs": 2}, "side": 3})


def test_a_result_of_another_ablation_is_refused(tmp_path: Path):
    OutcomeFolder(tmp_path / "a", {"epochs": 1}).write(outcome("fpn", 0))
    other = OutcomeFolder(tmp_path / "b", {"epochs": 2})
    (tmp_path / "b" / "results").mkdir()
    (tmp_path / "a" / "results" / "fpn-0.json").rename(tmp_path / "b" / "results" / "fpn-0.json")
    with pytest.raises(ConfigError, match="measured under other settings"):
        other.read("fpn", 0)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(OutputError, match="no earlier `fpn ablate` wrote it"):
        OutcomeFolder(tmp_path, {})
    assert (tmp_path / "diary.txt").read_text() == "mine"
    (tmp_path / "settings.json").write_text('{"theme": "dark"}')
    with pytest.raises(OutputError, match="no earlier `fpn ablate` wrote it"):
        OutcomeFolder(tmp_path, {"epochs": 1})


def test_a_damaged_result_is_named_with_the_remedy(tmp_path: Path):
    folder = OutcomeFolder(tmp_path, {})
    folder.write(outcome("fpn", 0))
    (tmp_path / "results" / "fpn-0.json").write_text("{")
    with pytest.raises(OutputError, match=r"fpn-0\.json.*Remove it"):
        folder.read("fpn", 0)


# --- from end to end ----------------------------------------------------------------------------------------------


def small_ablation(**changes: object) -> Ablation:
    train, held_out = (
        SceneDataset(count, seed=seed, height=64, width=64, extent=(8.0, 40.0)) for count, seed in ((2, 0), (2, 7))
    )
    settings = Ablation(
        train_set=train,
        held_out=held_out,
        rows=("fpn", "c5"),
        seeds=1,
        detector=DetectorSettings(weights="none", short_side=64, channels=8, head_width=8, roi_samples=16),
        budget=BudgetSettings(steps=1, workers=0),
    )
    return replace(settings, **changes)  # type: ignore[arg-type]


def test_an_ablation_measures_all_rows_and_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch):
    trained: list[str] = []
    run_row = running.run_row

    def stopped_before_the_second(ablation, row, seed, folder, screen):
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(row)
        return run_row(ablation, row, seed, folder, screen)

    monkeypatch.setattr(running, "run_row", stopped_before_the_second)
    with pytest.raises(KeyboardInterrupt):
        run_ablation(small_ablation(), tmp_path)
    first = (tmp_path / "results" / "c5-0.json").read_bytes()

    monkeypatch.setattr(running, "run_row", lambda *words: (trained.append(words[1]), run_row(*words))[1])
    folder = run_ablation(small_ablation(), tmp_path)
    assert trained == ["c5", "fpn"]
    assert (tmp_path / "results" / "c5-0.json").read_bytes() == first
    assert [each.row for each in folder.outcomes(tuple(DESIGNS))] == ["c5", "fpn"]
    # 64 x 64: C5 has 2 x 2 cells of 5 sizes and 3 ratios; P2..P6 have 256 + 64 + 16 + 4 + 1 cells of 3.
    assert [each.anchors for each in folder.outcomes(tuple(DESIGNS))] == [4 * 15, 341 * 3]
    costs = folder.read_costs()
    assert costs["fpn"].multiply_adds > costs["c5"].multiply_adds > 0

    page = tmp_path / "page.md"
    page.write_text("before\n<!-- ablation: begin -->\nold\n<!-- ablation: end -->\nafter\n")
    write_report(folder, command="fpn ablate scenes", page=page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| (c) FPN" in text
    assert "(page.svg)" in text
    assert json.loads((tmp_path / "ablation.json").read_text())["rows"]["c5"]["mean"]["ap"] is not None


def test_two_runs_of_a_row_with_one_seed_are_the_same(tmp_path: Path):
    outcomes = [
        running.run_row(small_ablation(), "fpn", 3, OutcomeFolder(tmp_path / name, {}), Screen()) for name in "ab"
    ]
    assert outcomes[0].figures == outcomes[1].figures


def test_unknown_rows_and_empty_data_stop_before_any_work(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"rows 'fnp'.*Did you mean 'fpn'"):
        run_ablation(small_ablation(rows=("fnp",)), tmp_path / "a")
    with pytest.raises(DataError, match="no images"):
        run_ablation(small_ablation(held_out=SceneDataset(0)), tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_page_without_markers_is_refused_before_any_work(tmp_path: Path):
    with pytest.raises(DataNotFoundError):
        check_page(tmp_path / "none.md")
    (tmp_path / "page.md").write_text("no place")
    with pytest.raises(ConfigError, match="ablation: begin"):
        check_page(tmp_path / "page.md")


def test_a_chart_of_the_users_beside_the_page_is_never_replaced(tmp_path: Path) -> None:
    page, chart = tmp_path / "page.md", tmp_path / "page.svg"
    page.write_text("<!-- ablation: begin -->\n<!-- ablation: end -->\n![mine](page.svg)\n")
    check_page(page)
    chart.write_text("mine")
    with pytest.raises(OutputError, match=r"page\.svg: is already there"):
        check_page(page)
    page.write_text("<!-- ablation: begin -->\n![ours](page.svg)\n<!-- ablation: end -->\n")
    check_page(page)


def test_the_page_tells_every_row_by_letter_and_name():
    page = (Path(__file__).parents[2] / "docs" / "ablation.md").read_text(encoding="utf-8")
    assert all(f"{design.letter} {design.short}" in page for design in map(DESIGNS.get, PAPER_ROWS))
    assert all(
        f"| {design.letter} {design.title} | {design.feature} |" in page for design in map(DESIGNS.get, PAPER_ROWS)
    )


def test_the_whole_backbone_of_every_row_can_be_frozen():
    ablation = small_ablation(detector=DetectorSettings(weights="none", frozen_stages=5, channels=8, head_width=8))
    for row in ("c4", "image_pyramid", "fpn"):
        backbone = running.build_row(ablation, row, 0).features.backbone
        assert not any(parameter.requires_grad for parameter in backbone.parameters())


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("COLUMNS", "80")
    return Shell(capsys)


def test_the_command_shows_tables_and_leaves_files(tmp_path: Path, shell: Shell):
    words = "--seeds 1 --scenes 2 1 --steps 1 --short-side 64 --channels 8 --head-width 8 --workers 0 --weights none"
    ended = shell("ablate", "scenes", "--rows", "fpn", "c4", *words.split(), "--output", tmp_path / "out")
    assert ended.status == 0, ended
    assert "Proposals (the paper's table 1)" in ended.out + ended.err
    assert {"ablation.md", "ablation.json", "ablation.svg"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_the_command_wants_images_to_measure_on(tmp_path: Path, shell: Shell):
    assert "--held-out-split" in shell.fails("ablate", tmp_path, "--output", tmp_path / "out")
    said = shell.fails("ablate", tmp_path, "--split", "a", "--held-out-split", "a", "--output", tmp_path / "out")
    assert "both trained and measured on" in said
