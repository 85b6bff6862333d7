"""Writes what the blocks of pages print today into the pages.

python -m docs_tools.refresh docs/index.md           # quick variants of what takes over a minute
python -m docs_tools.refresh docs/index.md --all     # everything, and the output that only a whole demo can show

Numbers that vary from one run to the next make no new output: a block is left alone where all else is as it was.
A line `...` in a shown output stays: what comes after it is not written anew, but compared by the tests.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from docs_tools.blocks import begins_where, pages
from docs_tools.running import Outcome, copy_folder, differs, run_page
from docs_tools.sources import refresh_code


def refresh(page: Path, *, everything: bool) -> int:
    """Write a page's outputs anew; gives how many changed."""
    changed = refresh_code(page)
    with tempfile.TemporaryDirectory() as folder:
        begin(page, Path(folder), everything=everything)
        outcomes = run_page(page, Path(folder), everything=everything)
    # From the end on, so that lines above keep their numbers.
    for outcome in reversed(outcomes):
        if differs(outcome, everything=everything):
            changed += _write(page, outcome)
    return changed


def begin(page: Path, folder: Path, *, everything: bool) -> None:
    """Make what a page begins with: the folder that another page leaves."""
    earlier = begins_where(page)
    if earlier is not None:
        with tempfile.TemporaryDirectory() as left:
            begin(earlier, Path(left), everything=everything)
            run_page(earlier, Path(left), everything=everything)
            copy_folder(Path(left), folder)


def _write(page: Path, outcome: Outcome) -> int:
    shown = outcome.shown
    if shown is None:
        return 0
    if "..." in [line.strip() for line in shown.text.splitlines()]:
        print(f"{shown.where}: is no longer what is printed, and has a line ...; write it by hand:\n{outcome.printed}")
        return 0
    lines = page.read_text(encoding="utf-8").splitlines()
    end = shown.line + len(shown.text.splitlines())
    lines[shown.line : end] = [line.rstrip() for line in outcome.printed.strip("\n").splitlines()]
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 1


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--all"]
    for one in [Path(word).resolve() for word in words] or pages():
        print(f"{one}: {refresh(one, everything='--all' in sys.argv)} outputs written anew")
