from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from shell import Shell

from fpn.cli.app import COMMANDS
from fpn.cli.help import HelpRow, Page, asked_page, read_pages, render, show_page
from fpn.cli.help_pages import make_pages

SOURCE = Path(__file__).parents[2] / "src/fpn"
OPTION = r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9](?![\w-])"
SLOW = ["torch", "torchvision", "timm", "accelerate", "numpy", "PIL", "pydantic", "cyclopts", "rich", "yaml"]
PAGE = Page(
    usage="fpn cook [OPTIONS] DISH",
    text=["Cook it well-done.", ""],
    panels=[
        {
            "title": "Parameters",
            "rows": [
                HelpRow(names=["--salt INT"], text="Grains of it. [default: 3]", required=False),
                HelpRow(names=["--lid", "--no-lid"], text="Covered.", required=True),
            ],
        }
    ],
)


def test_the_pages_are_what_the_verbs_say_now() -> None:
    assert make_pages() == read_pages(), "write them anew: python -m fpn.cli.help_pages"


def test_every_option_that_a_text_of_the_source_names_is_one() -> None:
    # Of curl, uv, ray, torchrun, docker and pip.
    others = {"--data-binary", "--extra", "--head", "--rdzv-id", "--shm-size", "--upgrade"}
    pages = json.dumps(read_pages())
    known = others | set(re.findall(OPTION, pages))
    wrong = [
        f"{path.name}:{node.lineno}: {option}"
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for option in re.findall(OPTION, node.value)
        if option not in known
    ]
    assert wrong == []


def test_help_imports_nothing_that_is_slow() -> None:
    # Without compiled bytecode each of these takes longer than all of help may.
    script = (
        "import sys; from fpn.cli import main\n"
        f"for verb in {list(COMMANDS)}: assert main([verb, '--help']) == 0\n"
        "assert main(['--help']) == main([]) == 0\n"
        f"slow = {SLOW}\n"
        "assert not [name for name in slow if name in sys.modules]\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_columns_wrap_and_what_is_required_has_a_star() -> None:
    assert list(render(PAGE, 40)) == [
        "Usage: fpn cook [OPTIONS] DISH",
        "",
        "Cook it well-done.",
        "",
        "",
        "╭─ Parameters ─────────────────────────╮",
        "│    --salt INT  Grains of it.         │",
        "│                [default: 3]          │",
        "│ *  --lid       Covered.              │",
        "│      --no-lid                        │",
        "╰──────────────────────────────────────╯",
    ]


def test_colours_take_no_place() -> None:
    plain, coloured = (list(render(PAGE, 40, coloured=each)) for each in (False, True))
    assert coloured[6] == "│ \x1b[36m   --salt INT  \x1b[0mGrains of it.         │"
    assert [line.replace("\x1b[36m", "").replace("\x1b[0m", "") for line in coloured] == plain


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        ([], ""),
        (["--help"], ""),
        (["-h", "train"], ""),
        (["train", "--help"], "train"),
        (["train", "cells", "--epochs", "3", "-h"], "train"),
    ],
)
def test_help_may_be_asked_for_anywhere(words: list[str], verb: str) -> None:
    assert asked_page(words) == read_pages()[verb]


@pytest.mark.parametrize("words", [["train"], ["evalute", "--help"], ["predict", "m", "--", "--help"], ["--version"]])
def test_what_is_no_question_for_help_is_left_alone(words: list[str]) -> None:
    assert asked_page(words) is None


def test_help_for_a_verb_that_is_none_names_the_nearest(fpn: Shell) -> None:
    ended = fpn("evalute", "--help")
    assert ended.status == 2
    assert "evaluate" in ended.err


def test_a_terminal_without_rounded_corners_gets_others(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", "40")
    show_page(PAGE)
    assert isinstance(stream.buffer, io.BytesIO)
    assert stream.buffer.getvalue().decode("ascii").splitlines()[5] == "+- Parameters -------------------------+"
