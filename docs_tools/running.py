"""Runs the blocks of a page one after the other, as a reader would: in one folder, each in what the ones before left.

`fpn` and Python run in this process, since each start of an interpreter with torch takes seconds.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docs_tools.blocks import CONSOLE, OUTPUT, Block, commands, read_blocks

# Programs that a reader has beside fpn. Others, such as pip, change the machine: their blocks say why they don't run.
PROGRAMS = frozenset({"ls", "cat", "head", "cp", "mkdir", "cd", "python", "echo"})
# Columns of the terminal whose output is shown.
WIDTH = 100

_RULE = re.compile("[─━]+")
_NUMBER = re.compile(r"[-+]?\d[\d.,]*(e[-+]?\d+)?")


@dataclass(frozen=True)
class Outcome:
    """What a block printed, on standard output and error as they came, and the output that the page shows, if any."""

    block: Block
    printed: str
    shown: Block | None


class BlockError(AssertionError):
    """A block that does not run as its page says."""


class Session:
    """One reader's terminal and one Python.

    Attributes:
        folder: where all blocks run.
    """

    def __init__(self, folder: Path) -> None:
        """A terminal that stands in a folder."""
        self.folder = folder
        self._names: dict[str, Any] = {"__name__": "__main__"}

    def run(self, block: Block) -> str:
        """What a block prints.

        Raises:
            BlockError: it fails, or a command ends with another status than the page says.
        """
        with _terminal(self.folder) as screen:
            if block.language == CONSOLE:
                self._console(block, screen)
            else:
                self._python(block, screen)
        return screen.getvalue()

    def _console(self, block: Block, screen: io.StringIO) -> None:
        lines = commands(block)
        expected = int(block.mark("exits ") or 0)
        for place, line in enumerate(lines, start=1):
            status = _command(line, screen)
            if status != (expected if place == len(lines) else 0):
                raise BlockError(f"{block.where}: {line}\nended with status {status}:\n{screen.getvalue()}")

    def _python(self, block: Block, screen: io.StringIO) -> None:
        # Line numbers of a traceback are those of the page.
        source = "\n" * block.line + block.text
        try:
            exec(compile(source, str(block.page), "exec", dont_inherit=True), self._names)
        except Exception:
            raise BlockError(f"{block.where}: fails\n{traceback.format_exc()}\n{screen.getvalue()}") from None


@contextlib.contextmanager
def _terminal(folder: Path) -> Iterator[io.StringIO]:
    """Standard output and error in one place, in a folder, as wide as the pages' output."""
    screen = io.StringIO()
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH)
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
            yield screen
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns


def _command(line: str, screen: io.StringIO) -> int:
    """Exit status of one line; `> file` at its end takes what goes to standard output."""
    words = shlex.split(line, comments=True)
    if words[0] != "fpn":
        if words[0] not in PROGRAMS:
            raise BlockError(
                f"{line}: {words[0]} is none of {', '.join(sorted(PROGRAMS))}. Say above why it is not run."
            )
        ended = subprocess.run(
            ["bash", "-c", line.replace("python ", f"{shlex.quote(sys.executable)} ", 1)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        screen.write(ended.stdout)
        return ended.returncode
    from fpn.cli import main

    if len(words) > 2 and words[-2] == ">":
        with Path(words[-1]).open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            return main(words[1:-2])
    return main(words[1:])


def run_page(page: Path, folder: Path, *, everything: bool) -> list[Outcome]:
    """Run a page's blocks in a folder.

    Args:
        page: whose blocks.
        folder: where; holds what the page begins with.
        everything: also those that take over a minute, in place of their quick variants.

    Raises:
        BlockError: one does not run.
    """
    session, blocks = Session(folder), read_blocks(page)
    outcomes = []
    for place, block in enumerate(blocks):
        if not block.runs:
            continue
        following = blocks[place + 1] if place + 1 < len(blocks) else None
        shown = following if following is not None and following.language == OUTPUT else None
        printed = session.run(block if everything else block.quick)
        if block.mark("nightly: ") is not None and not everything:
            shown = None
        outcomes.append(Outcome(block, printed, shown))
    return outcomes


def differs(outcome: Outcome, *, everything: bool) -> str:
    """What is wrong with the output that the page shows; empty: nothing."""
    shown = outcome.shown
    if shown is None or shown.mark("not run: ") is not None:
        return ""
    if shown.mark("of a whole demo") is not None and not everything:
        return ""
    plain: Callable[[str], str] = _lines if shown.mark("exact") is not None else _without_numbers
    if _fits(plain(shown.text).splitlines(), plain(outcome.printed).splitlines()):
        return ""
    return f"{shown.where}: shows\n{shown.text}\nbut {outcome.block.where} prints\n{outcome.printed}"


def _lines(text: str) -> str:
    """Without what a terminal's width decides: spaces at the end, empty lines."""
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def _without_numbers(text: str) -> str:
    """Numbers may vary, and with them the width of columns and bars."""
    return "\n".join(
        " ".join(_RULE.sub("─", _NUMBER.sub("0", line)).replace("█", "").split()) for line in _lines(text).splitlines()
    )


def _fits(pattern: list[str], lines: list[str]) -> bool:
    """Whether lines are those of a pattern, in which a line `...` stands for any number of lines."""
    if not pattern:
        return not lines
    if pattern[0].strip() == "...":
        return any(_fits(pattern[1:], lines[start:]) for start in range(len(lines) + 1))
    return bool(lines) and pattern[0] == lines[0] and _fits(pattern[1:], lines[1:])


def copy_folder(begun: Path, folder: Path) -> None:
    """What an earlier page left, for a page that goes on from there."""
    shutil.copytree(begun, folder, dirs_exist_ok=True)
