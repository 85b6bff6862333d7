from __future__ import annotations

from pathlib import Path

import pytest
from shell import Shell
from written_sets import write_coco

from fpn import __version__
from fpn.cli.app import COMMANDS, flowing, make_app, run_command
from fpn.errors import MissingExtraError


def test_help_lists_every_verb_with_what_it_does(fpn: Shell) -> None:
    shown = fpn("--help").out
    for verb in ("demo", "train", "evaluate", "predict"):
        assert f"│ {verb} " in shown


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_option_is_explained(verb: str) -> None:
    for argument in make_app(verb)[verb].assemble_argument_collection(parse_docstring=True):
        if argument.name != "*":  # a group of options, which are explained one by one
            assert argument.parameter.help, f"{verb} {argument.name} has no help"


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_fits_80_columns(fpn: Shell, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = fpn(verb, "--help").out.splitlines()
    assert max(map(len, lines)) <= 80


def test_options_of_the_run_show_their_default(fpn: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = fpn("train", "--help").out
    assert "Passes over the data. 12 is the usual 1x schedule. [default: 12]" in shown
    assert "[choices: sgd, adamw] [default: adamw]" in shown
    assert "[default: tf_efficientnet_lite0]" not in shown


def test_what_training_tells_and_keeps_is_among_its_options(fpn: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    shown = fpn("train", "--help").out
    assert "are called mask_ap, keypoint_ap50, proposal_ar100, ... [default: ap]" in shown
    assert "[choices: aim, clearml, comet_ml, dvclive, mlflow, swanlab, tensorboard, trackio, wandb]" in shown
    assert "--tensorboard" not in shown


def test_trackers_are_named_one_after_the_other() -> None:
    words = ["train", "cells", "--tracker", "tensorboard", "wandb", "--best", "ap50"]
    _, bound, _ = make_app("train").parse_args(words, exit_on_error=False)
    assert bound.arguments["training"].tracker == ("tensorboard", "wandb")
    assert bound.arguments["training"].best == "ap50"


def test_an_unknown_metric_is_refused_before_the_data_is_read(fpn: Shell, tmp_path: Path) -> None:
    ended = fpn("train", tmp_path, "--output", "run", "--best", "ap_smal")
    assert ended.status == 1
    assert "--best 'ap_smal': no such metric. Did you mean 'ap_small'?" in ended.err


def test_lists_take_all_their_values_at_once() -> None:
    words = ["train", "cells", "--milestones", "0.5", "0.8", "--anchor-sizes", "16", "32", "--epochs", "2"]
    _, bound, _ = make_app("train").parse_args(words, exit_on_error=False)
    assert bound.arguments["training"].milestones == (0.5, 0.8)
    assert bound.arguments["model"].anchor_sizes == (16, 32)


def test_the_version_is_printed(fpn: Shell) -> None:
    assert fpn("--version").out.strip() == __version__


def test_an_unknown_option_is_a_usage_error_that_says_the_nearest(fpn: Shell) -> None:
    ended = fpn("train", "data", "--epoch", "3")
    assert ended.status == 2
    assert "--epochs" in ended.err.splitlines()[0]
    assert ended.err.splitlines()[-1] == "See: fpn train --help"


def test_an_unknown_verb_is_a_usage_error_that_says_the_nearest(fpn: Shell) -> None:
    ended = fpn("evalute", "model", "data")
    assert ended.status == 2
    assert "evaluate" in ended.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--epochs", "0"], "--epochs 0: expected 1 or more"),
        (["--batch-size", "many"], "--batch-size 'many': input should be a valid integer"),
        (["--scale", "2", "1"], "--scale 2 1: expected least and greatest"),
        (["--optimizer", "adam"], "'adam'"),
    ],
)
def test_a_value_out_of_range_is_one_plain_sentence(fpn: Shell, words: list[str], reason: str) -> None:
    ended = fpn("train", "data", *words)
    assert ended.status == 2
    assert reason in ended.err
    assert "pydantic" not in ended.err


def test_a_missing_argument_is_a_usage_error(fpn: Shell) -> None:
    ended = fpn("evaluate", "cells")  # it is the model that was forgotten
    assert ended.status == 2
    assert "DATA" in ended.err
    assert "Usage: fpn evaluate [OPTIONS] MODEL DATA" in ended.err


def test_ctrl_c_ends_with_130_and_a_short_message(fpn: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fpn.cli.fast_models.load_fast", interrupted)
    (tmp_path / "model.safetensors").touch()
    ended = fpn("evaluate", tmp_path / "model.safetensors", tmp_path)
    assert (ended.status, ended.err) == (130, "stopped by Ctrl-C\n")


LONG = "x" * 256  # one more than file systems take


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "{model}", LONG],
        ["evaluate", "{model}", "{data}", "--output", f"{LONG}.json"],
        ["train", "{data}", "--output", LONG],
        ["split", "{data}", LONG],
    ],
    ids=lambda words: " ".join(words).replace(LONG, "LONG"),
)
def test_what_the_file_system_refuses_is_one_line_about_the_file(
    fpn: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"model": tmp_path / "model.safetensors", "data": write_coco(tmp_path / "set")}
    places["model"].touch()
    message = fpn.fails(*(word.format(**places) for word in words))
    last = message.splitlines()[-1]
    assert last.startswith("error: ")
    assert LONG in last
    assert last.endswith(": File name too long")


def test_who_reads_no_further_is_no_error_of_the_command(fpn: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def left(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("fpn.cli.doctor.run", left)
    with pytest.raises(BrokenPipeError):
        run_command(["doctor"])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["predict", "model", ""], 'word 3 is empty (""), after model'),
        (["predict", "model", "a.png", "--output", ""], 'word 5 is empty (""), after --output'),
        (["train", "data", "--output="], "--output= is empty"),
    ],
)
def test_an_empty_word_is_not_the_current_folder(fpn: Shell, words: list[str], reason: str) -> None:
    ended = fpn(*words)
    assert ended.status == 2
    assert ended.err.splitlines() == [
        f"error: {reason}. Was a variable of the shell not set? Write a name, or . for the current folder.",
        f"See: fpn {words[0]} --help",
    ]


def test_help_flows_however_the_source_breaks_its_lines() -> None:
    def sample() -> None:
        """Do it.

        A paragraph that goes
        on here.

        Args:
            data: What it is,
                and more of it.
            other: Another.
        """

    assert flowing(sample.__doc__ or "").splitlines() == [
        "Do it.",
        "",
        "A paragraph that goes on here.",
        "",
        "Args:",
        "    data: What it is, and more of it.",
        "    other: Another.",
    ]


def test_defaults_are_shown_as_one_would_type_them(fpn: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = fpn("ablate", "--help").out
    assert "[default: 480 100]" in shown
    assert "[default: c4 c5 fpn" in shown
    assert "[default: no]" in shown


@pytest.mark.parametrize(
    ("pip", "told"), [(None, ["This environment has no pip. In a clone: uv run --extra video fpn"]), (1, [])]
)
def test_a_missing_extra_is_named_as_uv_wants_it_where_there_is_no_pip(
    fpn: Shell, monkeypatch: pytest.MonkeyPatch, pip: object, told: list[str]
) -> None:
    def run(words: object) -> None:
        raise MissingExtraError("films are read by PyAV. pip install 'fpn[video]' brings it.")

    monkeypatch.setattr("fpn.cli.app._run", run)
    monkeypatch.setattr("fpn.cli.app.find_spec", lambda _: pip)
    ended = fpn("predict", "cells.safetensors", "drift.mov")
    assert ended.status == 1
    assert ended.err.splitlines()[1:] == told
